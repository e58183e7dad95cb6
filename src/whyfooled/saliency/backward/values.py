"""What the values of a tensor are functions of, and those functions at chosen points.

A chain of calls that work on each value by itself can be computed again at any points: at `POINTS`,
``(h + h.abs()) / 2`` and ``h.clamp(min=0)`` are the same function, and ``h * torch.sigmoid(h)`` is another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whyfooled.saliency.backward.calls import Call, replaced
from whyfooled.saliency.backward.elementwise import Function

_STEPS = (1e-8, 1e-6, 1e-4, 0.01, 0.1, 0.25, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 2.9, 3, 3.1, 4, 5, 5.5, 6, 6.5, 7)
_FAR = (8, 10, 15, 20, 30, 50, 100, 1e3, 1e4, 1e6)
POINTS = torch.tensor([*(-step for step in reversed(_STEPS + _FAR)), 0, *_STEPS, *_FAR], dtype=torch.float64)
"""Where functions are compared: on both sides of 0, close to it and far away, and around the usual upper bounds."""


Key = tuple[Any, ...]
"""Stands for values: equal keys, the same values place by place."""


@dataclass(frozen=True, eq=False)
class Values:
    """What the values of a tensor are functions of.

    Parameters
    ----------
    source
        The values that they are functions of, each of the one in its own place.
    origin
        The same, counted anew where constants that differ between places came in: each is the same function of its own.
    affine, settled, known
        Whether that function is affine; whether it is but for rectifiers that were recognised; whether it is but for
        any activations that were, and for gates.
    behind
        The tensors that this one is made of, functions of the same origin, with their versions.
    parts, make
        The values that the last call took, and what it makes of them; no parts if these are the origin's own.
    """

    source: Key
    origin: Key
    affine: bool = True
    settled: bool = True
    known: bool = True
    behind: tuple[tuple[Tensor, int], ...] = ()
    parts: tuple[Values, ...] = ()
    make: Callable[[Sequence[Tensor]], Tensor] | None = None


def evaluate(values: Values, points: Tensor, of: Values | None = None) -> Tensor | None:
    """Compute the function that values are of their origin, or of other values, at points (k,).

    None if it cannot be computed there, or if they are made of something else than those other values, too.
    """
    known: dict[Values, Tensor] = {} if of is None else {of: points}

    def at_points(current: Values) -> Tensor:
        if current not in known:
            if current.make is None and of is not None:
                raise ValueError("made of something else")
            parts = [at_points(part) for part in current.parts]
            # Copies: some functions are asked to work in place.
            known[current] = points if current.make is None else current.make([part.clone() for part in parts])
        return known[current]

    with torch._C.DisableTorchFunction(), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        try:
            return at_points(values)
        except (RuntimeError, TypeError, ValueError):
            return None


ROUNDING = 1e-9
"""How far apart two equal functions may be in double precision, relative to what goes into them."""

Line = tuple[float, float]
"""A slope and a shift."""


def find_line(values: Values, of: Values | None = None) -> Line | None:
    """Return the slope and the shift of values that are an affine function of their origin, or of other values."""
    at_points = evaluate(values, POINTS, of)
    at_two = evaluate(values, POINTS.new_tensor([0.0, 1.0]), of)
    if at_points is None or at_two is None:
        return None
    shift, slope = float(at_two[0]), float(at_two[1] - at_two[0])
    is_line = (at_points - (slope * POINTS + shift)).abs() <= ROUNDING * (abs(shift) + abs(slope) * POINTS.abs())
    return (slope, shift) if slope != 0 and bool(is_line.all()) else None


def numbers_of(call: Call, function: Function, signals: Sequence[Tensor]) -> dict[int, Tensor] | None:
    """Return each constant of a call as a number, by the tensor's id; None if one differs between places."""
    numbers = {}
    for tensor in call.tensors:
        if function.kind == "same" or any(tensor is signal for signal in signals):
            continue
        values = tensor.detach().reshape(-1)
        if len(values) != 1 and (function.kind == "affine" or not len(values) or bool((values != values[0]).any())):
            return None
        number = values[0].cpu()
        numbers[id(tensor)] = number.double() if number.is_floating_point() else number
    return numbers


def again(
    call: Call, function: Function, signals: Sequence[Tensor], numbers: Mapping[int, Tensor], detached: bool
) -> Callable[[Sequence[Tensor]], Tensor]:
    """Return a call as a function of its signals at chosen points; it holds none of its tensors."""
    places = {id(signal): torch.empty(0) for signal in signals}
    names = [id(places[id(signal)]) for signal in signals]
    kwargs = {key: value for key, value in call.kwargs.items() if key not in ("inplace", "out")}

    def stand_in(tensor: Tensor) -> Tensor:
        known = places.get(id(tensor), numbers.get(id(tensor)))
        return torch.empty(0, dtype=tensor.dtype) if known is None else known

    args, kwargs = replaced((call.args, kwargs), stand_in)

    def make(parts: Sequence[Tensor]) -> Tensor:
        at_points = dict(zip(names, parts, strict=True))
        given = replaced((args, kwargs), lambda tensor: at_points.get(id(tensor), tensor))
        outputs = function.compute(*given[0], **given[1])
        return outputs.detach() if detached else outputs

    return make
