"""The balls that perturbations are kept in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from whyfooled.errors import bad_parameter, one_of, positive
from whyfooled.types import Counts, Images

Ball = Literal["linf", "l2"]
BALLS: tuple[Ball, ...] = ("linf", "l2")


def check_epsilon(epsilon: float, ball: Ball = "linf", argument: str = "epsilon") -> None:
    """Raise `ParameterError` for a radius that no image with values in [0, 1] can have."""
    one_of("ball", ball, BALLS)
    if ball == "l2":
        positive(argument, epsilon)
    elif not 0 < epsilon <= 1:
        fix = f"Did you mean {epsilon:g}/255?" if 1 < epsilon <= 255 else ""
        raise bad_parameter(
            argument, "must be above 0 and at most 1 (pixel values are scaled to [0, 1])", f"{epsilon:g}", fix
        )


def inside(deltas: Tensor, epsilon: float | Tensor, ball: Ball) -> Tensor:
    """Bring (n,c,h,w) perturbations into the ball, each to its nearest point; `epsilon` may be (n,1,1,1)."""
    radius = torch.as_tensor(epsilon).to(deltas)
    if ball == "linf":
        return deltas.clamp(-radius, radius)
    return deltas * (radius / length(deltas).clamp_min(radius))


def farthest(directions: Tensor, epsilon: float | Tensor, ball: Ball) -> Tensor:
    """Return the largest perturbations in the ball along (n,c,h,w) directions: for ``"linf"``, their signs; 0 for 0.

    `epsilon` may be (n,1,1,1).
    """
    if ball == "linf":
        return epsilon * directions.sign()
    return epsilon * directions / length(directions).clamp_min(torch.finfo(directions.dtype).tiny)


def measure(deltas: Tensor, ball: Ball) -> Tensor:
    """Return (n,) the radius of the smallest ball that holds each perturbation."""
    return deltas.flatten(1).abs().amax(1) if ball == "linf" else length(deltas).flatten()


def dual_measure(slopes: Tensor, ball: Ball) -> Tensor:
    """Return (n,) by how much a function with these slopes (n,c,h,w) changes at most in a ball of radius 1."""
    return slopes.flatten(1).abs().sum(1) if ball == "linf" else length(slopes).flatten()


def nearest_plane(gaps: Tensor, slopes: Tensor, ball: Ball) -> Tensor:
    """Return (n,c,h,w) the shortest step, as the ball measures it, that brings one of several linear functions to 0.

    Parameters
    ----------
    gaps
        (n,k) What they are now, above 0.
    slopes
        (n,k,c,h,w) Their slopes. A function that has none is never brought to 0; where none has one, the step is 0.
    ball
        How steps are measured.
    """
    dual = slopes.flatten(2).norm(dim=2) if ball == "l2" else slopes.flatten(2).abs().sum(2)
    distances = (gaps / dual).nan_to_num(float("inf"))
    nearest = distances.argmin(1)
    rows = torch.arange(len(gaps), device=gaps.device)
    distance = distances[rows, nearest].view(-1, 1, 1, 1)
    return farthest(-slopes[rows, nearest], torch.where(distance.isfinite(), distance, 0), ball)


def length(deltas: Tensor) -> Tensor:
    """Return the Euclidean length of each perturbation, (n,1,1,1)."""
    # In half precision, the squares of a few thousand values add up to infinity.
    exact = deltas.to(torch.promote_types(deltas.dtype, torch.float32))
    return exact.flatten(1).square().sum(1).sqrt().view(-1, 1, 1, 1).to(deltas)


def squared_length(deltas: Tensor) -> Tensor:
    """Return (n,) the squared Euclidean length of each perturbation."""
    return deltas.flatten(1).square().sum(1)


def l0(delta: Images) -> Counts:
    """Count (n,) the pixels that changed in any channel."""
    return (delta != 0).any(1).flatten(1).sum(1)
