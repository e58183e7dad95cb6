"""Small models with known behaviour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from whyfooled import Classifier


class SmallNet(nn.Module):
    """Two convolutions, ReLU as a function, global average pooling, a linear head."""

    def __init__(self, classes: int = 5, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, 12, 3, padding=1)
            self.second = nn.Conv2d(12, 16, 3, stride=2, padding=1)
            self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        return self.head(x.mean((2, 3)))


class Linear(nn.Module):
    """Logits that are linear in the image: the nearest adversarial image is known in closed form."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


def small(side: int = 16, seed: int = 0) -> Classifier:
    return Classifier(SmallNet(seed=seed).eval(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(side, side), name="small")


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None, side: int = 8) -> Classifier:
    return Classifier(Linear(weight, bias), size=(side, side), name="linear")
