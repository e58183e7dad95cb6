"""Every spelling of ReLU and ReLU6, the rules at them, and a model that computes any function of a convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from whyfooled.saliency.backward import rules

RULES = {"guided": rules.guided, "deconvnet": rules.deconvnet}


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 16, 3)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.function(self.conv(x)).mean((2, 3)))


def statement_in_place(a):
    F.relu(a, inplace=True)
    return a


def method_in_place(a):
    a.relu_()
    return a


SPELLINGS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "method": lambda a: a.relu(),
    "F.relu in place": lambda a: F.relu(a, inplace=True),
    "F.relu as a statement": statement_in_place,
    "relu_ as a statement": method_in_place,
    "torch.relu_": torch.relu_,
    "threshold": lambda a: F.threshold(a, 0, 0),
    "threshold module": nn.Threshold(0, 0),
    "on a view in place": lambda a: a.flatten(2).relu_().view_as(a),
}
BOUNDED = {
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.relu6 in place": lambda a: F.relu6(a, inplace=True),
    "Hardtanh(0, 6)": nn.Hardtanh(0, 6),
    "F.hardtanh by keywords": lambda a: F.hardtanh(a, max_val=6.0, min_val=0.0),
    "F.hardtanh_": lambda a: F.hardtanh_(a, 0.0, 6.0),
}
