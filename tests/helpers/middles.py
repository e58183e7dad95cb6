"""A network with any function in its middle, and what a method says about it."""

from __future__ import annotations

import torch
from torch import nn

from whyfooled import Classifier


class Middle(nn.Module):
    """A convolution, a function, a head: whatever stands in the middle."""

    def __init__(self, function, channels=16):
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(channels, 4)
        self.parts = nn.ModuleList([part for part in [function] if isinstance(part, nn.Module)])

    def forward(self, x):
        x = self.function(self.conv(x))
        return self.head(x.mean((2, 3)) if x.ndim == 4 else x)


def maps_of(function, method, scale=1.0, **options):
    torch.manual_seed(0)
    module = Middle(function, **options).double().eval()
    with torch.no_grad():
        module.conv.weight.mul_(scale)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    classifier = Classifier(module, mean=(0.5,) * 3, std=(0.25,) * 3, size=(8, 8))
    found = method(classifier, x, torch.tensor([1, 2]))
    assert found.any()
    return found
