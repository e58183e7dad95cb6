"""What a method must leave as it was, whatever happens."""

from __future__ import annotations

import torch
from torch import nn


def state(module):
    hooks = [
        len(getattr(part, name))
        for part in module.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    ]
    flags = [(p.requires_grad, p.grad) for p in module.parameters()]
    return hooks, flags, [part.training for part in module.modules()]


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        torch.relu(self.norm(self.conv(x)))
        raise RuntimeError("broken")
