"""Derivatives of maps, held against what the maps change by."""

from __future__ import annotations

import torch


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope_error(compute, x, seed=7, step=1e-5):
    """Compare the derivative of a sum of the map, in some direction, with a central difference; relative error."""
    direction = random(*x.shape, seed=seed) - 0.5
    maps = compute(x.requires_grad_(), True)
    weights = random(*maps.shape, seed=seed + 1) - 0.5
    (found,) = torch.autograd.grad((weights * maps).sum(), x)
    found = float((found * direction).sum())
    x = x.detach()
    ends = [float((weights * compute(x + sign * step * direction, False)).sum()) for sign in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert expected != 0
    return abs(found - expected) / abs(expected)
