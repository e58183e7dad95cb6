"""Slow, plain re-derivations from the papers, to hold the library against."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn


def enhanced_by_loops(maps: np.ndarray, contrast: np.ndarray, norm: str) -> np.ndarray:
    """Gu & Tresp 2019, sec. 3, one pixel at a time, for a single map (c,h,w)."""

    def normalised(s: np.ndarray) -> np.ndarray:
        s = np.where(s > 0, s, 0.0)
        out = np.zeros_like(s)
        for channel in range(len(s)):
            size = {"max": s.max(), "energy": s.sum(), "channel": s[channel].sum()}[norm]
            if size > 0:
                out[channel] = s[channel] / size
        return out

    a, b = normalised(maps), normalised(contrast)
    out = np.zeros_like(a)
    for place in np.ndindex(*a.shape):
        out[place] = max(0.0, a[place] - b[place])
    return out


def ruled_two_layers(first: Tensor, second: Tensor, x: Tensor, out: int, rule: str, upper: float) -> Tensor:
    """Back-propagate through ``second @ min(relu(first @ x), upper)`` by hand, with a rule at the activation."""
    a = first @ x
    gradient = second[out].clone()
    for unit in range(len(a)):
        is_open = 0 < a[unit] < upper
        g = gradient[unit]
        gradient[unit] = {
            "gradient": g if is_open else 0.0,
            "deconvnet": max(g, 0.0),
            "guided": max(g, 0.0) if is_open else 0.0,
        }[rule]
    return first.T @ gradient


def grad_cam_by_hand(features: Tensor, head: nn.Linear, cls: int) -> Tensor:
    """Grad-CAM for global average pooling and a linear head: the gradient of the logit is the head's weight / (h·w)."""
    _, h, w = features.shape
    cam = torch.zeros(h, w, dtype=features.dtype)
    for channel in range(len(features)):
        cam += head.weight[cls, channel] / (h * w) * features[channel]
    return cam.clamp_min(0)


def grad_cam_plus_plus_by_derivatives(features: Tensor, logit: Callable[[Tensor], Tensor]) -> Tensor:
    """Chattopadhay et al. 2018, eq. 5 and 10: three derivatives of Y = exp(z) at every place, over Y in the end."""
    channels, h, w = features.shape
    alphas, slopes = torch.zeros_like(features), torch.zeros_like(features)
    for place in product(range(channels), range(h), range(w)):
        inputs = features.clone().requires_grad_()
        first = torch.autograd.grad(logit(inputs).exp(), inputs, create_graph=True)[0][place]
        second = torch.autograd.grad(first, inputs, create_graph=True)[0][place]
        third = torch.autograd.grad(second, inputs)[0][place]
        below = 2 * second + features[place[0]].sum() * third
        alphas[place] = (second / below).detach() if below != 0 else 0.0
        slopes[place] = first.detach()
    weights = (alphas * slopes.clamp_min(0)).sum((1, 2), keepdim=True)
    return (weights * features).sum(0).clamp_min(0) / logit(features).exp().detach()


def rescaled_two_layers(first: Tensor, second: Tensor, x: Tensor, reference: Tensor, out: int, upper: float) -> Tensor:
    """Shrikumar et al. 2017, sec. 3.5.2: slopes through ``second @ min(relu(first @ x), upper)``, unit by unit."""
    a, b = first @ x, first @ reference
    gradient = second[out].clone()
    for unit in range(len(a)):
        new, old = (min(max(float(v), 0.0), upper) for v in (a[unit], b[unit]))
        change = float(a[unit] - b[unit])
        gradient[unit] *= (new - old) / change if abs(change) > 1e-12 else float(0 < a[unit] < upper)
    return first.T @ gradient
