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
from whyfooled.saliency.backward.values import POINTS, ROUNDING, Values, evaluate, find_line

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
        Whether the call is one of a function that works in place, on ``a``.
    scale
        Above 0.
    written
        What the result is written into by another call.
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
        # A copy of what is overwritten, here or later: the call has its own ways to know it in its backward pass.
        output = rectify(self.inputs if self.written is None else self.inputs.clone(), self.upper, self.inplace)
        output = output if self.scale == 1 else output * self.scale
        if self.written is None:
            return output
        # What another tensor held before has no part in what it holds now.
        target = self.written if self.written is self.inputs else self.written.detach_()
        return target.copy_(output)


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


def matched(outcome: Values, signal: Values) -> tuple[float, float] | None:
    """Tell whether values are a rectifier of other values, with its derivative.

    Parameters
    ----------
    outcome
        The values in question.
    signal
        What they may be a rectifier of: an affine function of the same origin, or what they are made of alone.

    Returns
    -------
    tuple or None
        Its scale and its upper bound; None if it is none.
    """
    line = find_line(signal) if signal.affine else (1.0, 0.0)
    if line is None:
        return None
    slope, shift = line
    points = ((POINTS - shift) / slope).requires_grad_()
    outputs = evaluate(outcome, points, None if signal.affine else signal)
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
    # A guard such as clamp(min=1e-24) is none: below 0, nothing but the shift's rounding errors may be left.
    allowed = ROUNDING * POINTS.clamp_min(0) + 1e-14 * abs(shift)
    same_values = (outputs / scale - POINTS.clamp(0, upper)).abs() <= allowed
    # In the bends themselves every spelling has a derivative of its own.
    bends = (POINTS == 0) | ((POINTS - upper).abs() <= allowed)
    is_open = ((POINTS > 0) & (upper > POINTS)).double()
    same_slopes = bends | ((slopes / scale - is_open).abs() <= ROUNDING)
    return (scale, upper) if bool((same_values & same_slopes).all()) else None


_FIRST = int((POINTS > 0).nonzero()[0])


def _tidy(number: float) -> float:
    """Undo rounding errors in a number of few digits."""
    tidy = float(f"{number:.9g}")
    return tidy if abs(tidy - number) <= 1e-12 * abs(number) else number


def is_middle(signal: Values, upper: float, of: Values | None) -> bool:
    """Tell whether values are ``upper / 2`` where other values, or their origin's, are 0, and grow with them."""
    line = find_line(signal, of)
    return line is not None and line[0] > 0 and abs(line[1] - upper / 2) <= ROUNDING * upper
