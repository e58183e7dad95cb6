"""Rectifiers: reading a call as one by its name, and a function as one by its values.

The rules at a ReLU hold at what computes ``min(max(a, 0), upper)``: ReLU, ReLU6, Hardtanh(0, h), however they are
spelled. `as_relu` reads the functions that are made to be one; `matched` tells whether any other is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.saliency.backward.calls import Call
from whyfooled.saliency.backward.elementwise import POINTS, Values, evaluate

INFINITY = float("inf")


@dataclass(frozen=True, eq=False)
class Rectifier:
    """A call that computes ``scale · min(max(a, 0), upper)``.

    Parameters
    ----------
    inputs
        ``a``.
    upper
        Where it stops growing.
    inplace
        Whether the result takes the place of ``a``.
    scale
        Above 0.
    written
        What else the result is written into, if anything.
    is_gate
        Whether it is the hard form of a sigmoid, as in ``relu6(x + 3) / 6``: cut off on both sides, and at its middle
        where something that ``a`` is made of is 0. That is a gate and no rectifier, and keeps its own gradient.
    """

    inputs: Tensor
    upper: float
    inplace: bool
    scale: float = 1.0
    written: Tensor | None = None
    is_gate: bool = False

    def compute(self, rectify: Callable[[Tensor, float, bool], Tensor]) -> Tensor:
        """Compute it by a function of `inputs`, `upper` and `inplace`, and put the result where the call does."""
        output = rectify(self.inputs, self.upper, self.inplace)
        if self.scale != 1:
            output = output.mul_(self.scale) if self.inplace else output * self.scale
        if self.written is None:
            return output
        # What it held before has no part in what it holds now.
        return self.written.detach_().copy_(output)


_PLAIN = ("input", "inplace")
_BOUNDED = ("input", "min_val", "max_val", "inplace")
_ARGUMENTS = {
    F.relu: _PLAIN,
    torch.relu: _PLAIN,
    torch.relu_: _PLAIN,
    Tensor.relu: _PLAIN,
    Tensor.relu_: _PLAIN,
    F.relu6: _PLAIN,
    F.hardtanh: _BOUNDED,
    F.hardtanh_: _BOUNDED,
    F.threshold: ("input", "threshold", "value", "inplace"),
}
"""Every function that is made to be a ReLU, with the names of its arguments."""

_IN_PLACE = (torch.relu_, Tensor.relu_, F.hardtanh_)


def as_relu(call: Call) -> Rectifier | None:
    """Read a call of a function that is made to be a ReLU; None if it is something else."""
    if call.function not in _ARGUMENTS:
        return None
    given = dict(zip(_ARGUMENTS[call.function], call.args, strict=False)) | call.kwargs
    upper = _upper_bound(call.function, given)
    if upper is None:
        return None
    return Rectifier(given["input"], upper, call.function in _IN_PLACE or bool(given.get("inplace", False)))


def _upper_bound(function: Any, given: dict[str, Any]) -> float | None:
    """Return where the activation stops growing; None if it does not begin at 0, and so is no ReLU."""
    if function is F.threshold:
        return INFINITY if given["threshold"] == given["value"] == 0 else None
    if function in (F.hardtanh, F.hardtanh_):
        low, high = given.get("min_val", -1.0), given.get("max_val", 1.0)
        return float(high) if low == 0 < high else None
    return 6.0 if function is F.relu6 else INFINITY


_ROUNDING = 1e-9
"""How far apart two equal functions may be in double precision, relative to what goes into them."""


def matched(outcome: Values, signal: Values) -> tuple[float, float] | None:
    """Tell whether values are a rectifier of other values of the same origin, with its derivative.

    Parameters
    ----------
    outcome
        The values in question.
    signal
        An affine function of the same origin.

    Returns
    -------
    tuple or None
        Its scale and its upper bound; None if it is none.
    """
    line = _line(signal)
    if line is None:
        return None
    slope, shift = line
    points = ((POINTS - shift) / slope).requires_grad_()
    outputs = evaluate(outcome, points)
    if outputs is None or not outputs.requires_grad or outputs.shape != points.shape:
        return None
    (growth,) = torch.autograd.grad(outputs, points, torch.ones_like(outputs))
    outputs, slopes = outputs.detach(), growth / slope
    if not bool(torch.isfinite(outputs).all()):
        return None
    scale = _tidy(float(slopes[_FIRST]))
    if not 0 < scale < INFINITY:
        return None
    upper = INFINITY if float(slopes[-1]) > 0 else _tidy(float(outputs[-1]) / scale)
    allowed = _ROUNDING * POINTS.abs() + 1e-14 * (1 + abs(shift))
    same_values = (outputs / scale - POINTS.clamp(0, upper)).abs() <= allowed
    # In the bends themselves every spelling has a derivative of its own.
    bends = (POINTS == 0) | ((POINTS - upper).abs() <= allowed)
    is_open = ((POINTS > 0) & (upper > POINTS)).double()
    same_slopes = bends | ((slopes / scale - is_open).abs() <= _ROUNDING)
    return (scale, upper) if bool((same_values & same_slopes).all()) else None


_FIRST = int((POINTS > 0).nonzero()[0])


def _tidy(number: float) -> float:
    """Undo rounding errors in a number of few digits."""
    tidy = float(f"{number:.9g}")
    return tidy if abs(tidy - number) <= 1e-12 * abs(number) else number


def _line(values: Values) -> tuple[float, float] | None:
    """Return the slope and the shift of an affine function."""
    ends = evaluate(values, torch.tensor([0.0, 1.0], dtype=torch.float64))
    if ends is None:
        return None
    shift, at_one = (float(end) for end in ends)
    return (at_one - shift, shift) if at_one != shift else None


def is_middle(signal: Values, upper: float, behind: Values) -> bool:
    """Tell whether an affine function is ``upper / 2`` where one of the same origin is 0, and grows with it."""
    lines = _line(signal), _line(behind)
    if lines[0] is None or lines[1] is None:
        return False
    (slope, shift), (way, start) = lines[0], lines[1]
    size = slope / way
    return size > 0 and abs(shift - size * start - upper / 2) <= _ROUNDING * (upper + abs(size * start))
