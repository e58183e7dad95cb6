"""Slow, plain re-derivations from the papers, to hold the library against."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
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


def grad_cam_of_layer(module, layer, x, classes, *, to_grid=lambda output: output):
    """Grad-CAM (n,1,h,w) by autograd: the layer's output is copied, so that nothing can write into it."""
    kept = {}

    def hook(part, given, output):
        kept["activation"] = output.clone()
        return kept["activation"].clone()

    handle = module.get_submodule(layer).register_forward_hook(hook)
    logits = module(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept["activation"])
    activation, gradient = to_grid(kept["activation"].detach()), to_grid(gradient)
    cam = (gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True).clamp_min(0)
    return F.interpolate(cam, size=x.shape[-2:], mode="bilinear")


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


def convolution_matrix(weight: np.ndarray, side: int, stride: int, padding: int) -> np.ndarray:
    """Write a convolution of square images without bias as a matrix from all pixels to all outputs, one by one."""
    out_channels, in_channels, size, _ = weight.shape
    reach = (side + 2 * padding - size) // stride + 1
    matrix = np.zeros((out_channels, reach, reach, in_channels, side, side))
    for o, row, column, c, i, j in np.ndindex(out_channels, reach, reach, in_channels, size, size):
        y, x = row * stride - padding + i, column * stride - padding + j
        if 0 <= y < side and 0 <= x < side:
            matrix[o, row, column, c, y, x] = weight[o, c, i, j]
    return matrix.reshape(out_channels * reach * reach, -1)


def relevance_by_loops(
    layers: list[tuple[np.ndarray, np.ndarray]],
    x: np.ndarray,
    start: np.ndarray,
    rules: list[str],
    *,
    epsilon: float = 0.0,
    alpha: float = 1.0,
    bias: bool = True,
    low: float = 0.0,
    high: float = 1.0,
) -> np.ndarray:
    """Bach et al. 2015 and Montavon et al. 2017, one weight at a time, for dense layers with ReLU between them.

    `start` is the relevance of the logits, `rules` name the rule of each layer: epsilon, alpha-beta, box or flat.
    """
    activations = [x]
    for k, (weight, shift) in enumerate(layers):
        z = weight @ activations[-1] + shift
        activations.append(z if k == len(layers) - 1 else np.maximum(z, 0))
    relevance = start
    for (weight, shift), a, rule in reversed(list(zip(layers, activations, rules, strict=False))):
        below = np.zeros_like(a)
        typical = np.sqrt(np.mean((weight @ a + shift) ** 2))
        for j in range(len(weight)):
            for share, terms, rest in _terms(rule, a, weight[j], shift[j], alpha, bias, low, high):
                whole = sum(terms) + rest
                if rule == "epsilon":
                    whole += epsilon * typical * (1 if whole >= 0 else -1)
                for i in range(len(a)):
                    below[i] += share * terms[i] / whole * relevance[j] if whole != 0 else 0
        relevance = below
    return relevance


def _terms(rule, a, w, b, alpha, bias, low, high):
    """List (share of the relevance, term of each input, what else is in the sum) for one neuron."""
    n = len(a)
    if rule == "epsilon":
        return [(1, [a[i] * w[i] for i in range(n)], b)]
    if rule == "box":
        return [(1, [a[i] * w[i] - low * max(w[i], 0) - high * min(w[i], 0) for i in range(n)], 0)]
    if rule == "flat":
        return [(1, [float(w[i] != 0) for i in range(n)], 0)]
    above = [max(a[i] * w[i], 0) for i in range(n)]
    under = [min(a[i] * w[i], 0) for i in range(n)]
    return [(alpha, above, max(b, 0) if bias else 0), (1 - alpha, under, min(b, 0) if bias else 0)]
