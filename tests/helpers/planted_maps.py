"""Classifiers whose maps move along directions that are known."""

from __future__ import annotations

import torch
from torch import nn

from whyfooled import Classifier

SIDE = 8
PIXELS = SIDE * SIDE
BASE = 10.0


class Planted(nn.Module):
    """Logits ``z_k = (u_k·x)² / 2 + BASE · Σ x + w_k·x``, for directions u_k and slants w_k whose values add up to 0.

    The gradient, ``(u_k·x) u_k + BASE + w_k``, is positive and adds up to the same for every image, so that the
    interpretation is linear in x, ``D(x, δ) = c(x) |u_k·δ|``, and the slope of D ``± c(x) u_k`` wherever it is taken.
    """

    def __init__(self, directions, slants=None):
        super().__init__()
        self.directions = nn.Parameter(directions)
        self.slants = nn.Parameter(torch.zeros_like(directions) if slants is None else slants)

    def forward(self, x):
        flat = x.flatten(1)
        return (flat @ self.directions.T).square() / 2 + flat @ (BASE + self.slants).T

    def lengths(self, images, classes):
        """Return c(x), of images (n,1,h,w)."""
        along = self.directions[classes]
        gradients = (images.flatten(1) * along).sum(1, keepdim=True) * along + BASE + self.slants[classes]
        return along.norm(dim=1) / gradients.norm(dim=1)


class Cubic(nn.Module):
    """Logits ``(2 (u·x)³ / 3 + BASE · Σ x, 0)``: the map moves by ``|2 t d + d²|`` from ``t = u·x`` to ``t + d``."""

    def __init__(self, direction):
        super().__init__()
        self.direction = nn.Parameter(direction)

    def forward(self, x):
        flat = x.flatten(1)
        first = 2 * (flat @ self.direction) ** 3 / 3 + BASE * flat.sum(1)
        return torch.stack([first, 0 * first], dim=1)


class Dark(nn.Module):
    """Some model on bright images; on dark ones its logits do not change with the image."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        bright = (x.mean((1, 2, 3)) > 0.3).to(x).unsqueeze(1)
        return bright * self.module(x)


def grey(module):
    return Classifier(module, mean=(0.0,), std=(1.0,), size=(SIDE, SIDE), name="planted")


def directions(count, seed=0):
    """Draw (k,64) directions of length 1 whose values add up to 0."""
    # In double precision, so that they are the same on every processor: what is drawn for an image hangs on its digits.
    drawn = torch.randn(count, PIXELS, generator=torch.Generator().manual_seed(seed)).double()
    drawn = drawn - drawn.mean(1, keepdim=True)
    return (drawn / drawn.norm(dim=1, keepdim=True)).float()


def along(direction, sizes):
    """Make images (n,1,8,8), grey but for so much of a direction."""
    steps = torch.as_tensor(sizes).view(-1, 1, 1, 1)
    return 0.5 + steps * direction.view(1, 1, SIDE, SIDE)


def world(given, counts, seed=0):
    """Make so many images of each class of `Planted`, in a random order, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    images, classes = [], []
    for number, count in enumerate(counts):
        sizes = (0.6 + 0.4 * torch.rand(count, generator=generator)) * torch.randn(count, generator=generator).sign()
        images.append(along(given[number], sizes))
        classes += [number] * count
    order = torch.randperm(len(classes), generator=generator)
    return torch.cat(images).clamp(0, 1)[order], torch.tensor(classes)[order]


def noise(count, side=8, seed=0):
    """Draw images (n,3,side,side) of random values."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
