"""Gates: activations f with f(0) = 0 that keep the sign of their input, as ``f(a) = a · g(a)`` with ``g(a) ≥ 0``.

ReLU is one, and its gate is 1 or 0. The gate of those that PyTorch has is known in closed form (`as_gated`); of any
other function, however it is spelled, it is the quotient of its own values (`gate_of`). At 0 the gate is its limit, the
derivative, so nothing is divided by 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.errors import MethodError
from whyfooled.saliency.backward.calls import Call
from whyfooled.saliency.backward.elementwise import FUNCTIONS, written_by
from whyfooled.saliency.backward.values import POINTS, ROUNDING, Line, Values, evaluate, find_line

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Gated:
    """An activation with a gate.

    Parameters
    ----------
    function
        The activation, differentiable.
    gate
        ``function(a) / a``, differentiable.
    values
        What the activation gave, if that is known already.
    """

    function: Elementwise
    gate: Elementwise
    values: Tensor | None = None
    keeps_input: ClassVar[bool] = True

    def value(self, inputs: Tensor, inplace: bool = False) -> Tensor:
        """Compute the output; never in place, as the backward pass reads the input."""
        return self.function(inputs) if self.values is None else self.values

    def own_gradient(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Compute the gradient at the input from the one at the output, differentiably."""
        keeps_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = kept if kept.requires_grad else kept.detach().requires_grad_()
            (passed,) = torch.autograd.grad(self.function(inputs), inputs, gradient, create_graph=keeps_graph)
        return passed

    def through_gate(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Multiply a gradient at the output by the gate, differentiably."""
        return gradient * self.gate(kept)


@dataclass(frozen=True, eq=False)
class GatedCall:
    """A call that computes an activation with a gate.

    Parameters
    ----------
    inputs
        What it is an activation of.
    activation
        The activation.
    bends
        What it is called if it is piecewise linear; else empty.
    inplace
        Whether the call is one of a function that works in place, on `inputs`.
    written
        What the result is written into by another call.
    """

    inputs: Tensor
    activation: Gated
    bends: str
    inplace: bool = False
    written: Tensor | None = None

    def compute(self, activate: Callable[[Tensor, Gated, bool], Tensor]) -> Tensor:
        """Compute it by a function of inputs, activation and whether in place, and put the result where it belongs."""
        if self.written is None:
            return activate(self.inputs, self.activation, self.inplace)
        output = activate(self.inputs.clone(), self.activation, False)
        # What another tensor held before has no part in what it holds now.
        target = self.written if self.written is self.inputs else self.written.detach_()
        return target.copy_(output)


_PLAIN = ("input", "inplace")
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "gelu": ("input", "approximate"),
    "silu": _PLAIN,
    "hardswish": _PLAIN,
    "mish": _PLAIN,
    "selu": _PLAIN,
    "softsign": _PLAIN,
    "elu": ("input", "alpha", "inplace"),
    "celu": ("input", "alpha", "inplace"),
    "leaky_relu": ("input", "negative_slope", "inplace"),
    "rrelu": ("input", "lower", "upper", "training", "inplace"),
    "prelu": ("input", "weight"),
}
"""The activations whose gate is known in closed form, with the names of their arguments."""

_PIECEWISE_LINEAR = {"leaky_relu": "LeakyReLU", "rrelu": "RReLU", "prelu": "PReLU", "hardtanh": "Hardtanh"}
CLOSED_FORMS = frozenset(_ARGUMENTS)
NODES = frozenset((
    "Gelu", "Silu", "Hardswish", "Mish", "Elu", "Celu", "LeakyRelu", "PreluKernel", "Prelu", "RreluWithNoise",
))  # fmt: skip
"""The nodes of the graph that stand for one of them."""


def as_gated(call: Call) -> GatedCall | None:
    """Read a call of an activation of PyTorch's that has a gate; None if it is something else, or its gate is none."""
    function = FUNCTIONS.get(call.function)
    if function is None or function.name not in _ARGUMENTS:
        return None
    given = dict(zip(_ARGUMENTS[function.name], call.args, strict=False)) | call.kwargs
    activation = _closed_form(function.name, given)
    if activation is None or not isinstance(given.get("input"), Tensor):
        return None
    bends = _PIECEWISE_LINEAR.get(function.name, "")
    return GatedCall(given["input"], activation, bends, inplace=written_by(call) is not None)


def _closed_form(name: str, given: Mapping[str, Any]) -> Gated | None:
    """Return an activation with its gate; None where the gate is below 0 somewhere."""
    if name in _WITHOUT_PARAMETERS:
        return Gated(*_WITHOUT_PARAMETERS[name])
    if name == "gelu":
        kind = given.get("approximate", "none")
        return Gated(lambda a: F.gelu(a, approximate=kind), _GELU_GATES[kind])
    if name in ("elu", "celu"):
        alpha = float(given.get("alpha", 1.0))
        function: Callable[..., Tensor] = F.elu if name == "elu" else F.celu
        if alpha < 0 or (name == "celu" and alpha == 0):
            return None
        width = 1.0 if name == "elu" else alpha
        return Gated(lambda a: function(a, alpha), lambda a: _elu_gate(a, alpha, width))
    return _leaky(name, given)


def _leaky(name: str, given: Mapping[str, Any]) -> Gated | None:
    """Return a rectifier that lets a part of what is negative through."""
    if name == "prelu":
        weight = given["weight"].detach()
        slopes = weight.view(-1, *(1,) * max(given["input"].ndim - 2, 0)) if weight.numel() > 1 else weight
        positive = bool((weight >= 0).all())
        return Gated(lambda a: F.prelu(a, weight), lambda a: torch.where(a > 0, 1, slopes)) if positive else None
    if name == "rrelu":
        slope = (float(given.get("lower", 1 / 8)) + float(given.get("upper", 1 / 3))) / 2
        slope = -1.0 if given.get("training", False) else slope
    else:
        slope = float(given.get("negative_slope", 0.01))
    if slope < 0:
        return None
    return Gated(lambda a: F.leaky_relu(a, slope), lambda a: torch.where(a > 0, 1, a.new_tensor(slope)))


def _gelu_gate(a: Tensor) -> Tensor:
    """Compute Φ(a)."""
    # By erfc: what erf leaves far below 0 is rounded to nothing.
    return torch.erfc(a * -math.sqrt(0.5)) / 2


def _tanh_gelu_gate(a: Tensor) -> Tensor:
    return torch.sigmoid(2 * math.sqrt(2 / math.pi) * (a + 0.044715 * a.pow(3)))


def _elu_gate(a: Tensor, alpha: float, width: float) -> Tensor:
    """Compute ``alpha · (exp(a / width) − 1) / a`` below 0, and 1 above."""
    below = torch.where(a > 0, -1.0, a / width)
    near = below > -_NEAR
    # Close to 0 the quotient is its series, whose derivative has as many digits.
    series = 1 + below / 2 * (1 + below / 3 * (1 + below / 4 * (1 + below / 5)))
    apart = torch.where(near, -1.0, below)
    return torch.where(a > 0, 1.0, alpha / width * torch.where(near, series, torch.expm1(apart) / apart))


_NEAR = 1e-2
_SELU = 1.6732632423543772, 1.0507009873554805
"""α and the scale of SELU (Klambauer et al. 2017)."""

_GELU_GATES = {"none": _gelu_gate, "tanh": _tanh_gelu_gate}
_WITHOUT_PARAMETERS: dict[str, tuple[Elementwise, Elementwise]] = {
    "silu": (F.silu, torch.sigmoid),
    "hardswish": (F.hardswish, lambda a: (a + 3).clamp(0, 6) / 6),
    "mish": (F.mish, lambda a: torch.tanh(F.softplus(a))),
    "selu": (F.selu, lambda a: _SELU[1] * _elu_gate(a, _SELU[0], 1.0)),
    "softsign": (F.softsign, lambda a: 1 / (1 + a.abs())),
}


@dataclass(frozen=True, eq=False)
class _SpelledOut:
    """An activation that a model computes in several calls, as the function that these make of what they begin with."""

    outcome: Values
    signal: Values
    line: Line | None

    def at(self, points: Tensor) -> Tensor:
        """Compute it, in double precision."""
        outputs = _evaluate(self.outcome, self.signal, self.line, points.double())
        if outputs is None:
            raise MethodError(
                "An activation of this model, which is written out in several calls, cannot be computed again. Use a "
                "method without a rule at activations, such as gradient or gradcam."
            )
        return outputs

    def function(self, a: Tensor) -> Tensor:
        """Compute the activation."""
        return self.at(a).to(a.dtype)

    def gate(self, a: Tensor) -> Tensor:
        """Compute the quotient; within a small step of 0, on either side, along the line through what is beyond it."""
        wide = a.double()
        steps = wide.new_tensor([_STEP, 2 * _STEP, -_STEP, -2 * _STEP])
        right, further_right, left, further_left = (self.at(steps) / steps).detach().unbind()
        above = right + (further_right - right) * (wide - _STEP) / _STEP
        below = left + (left - further_left) * (wide + _STEP) / _STEP
        apart = torch.where(wide.abs() < _STEP, 1.0, wide)
        quotient = self.at(apart) / apart
        near = torch.where(wide > 0, above, below)
        return torch.where(wide.abs() < _STEP, near, quotient).to(a.dtype)


_STEP = 1e-4


def gate_of(outcome: Values, signal: Values) -> Gated | None:
    """Tell whether values are an activation with a gate of other values; None if they are not.

    Parameters
    ----------
    outcome
        The values in question.
    signal
        What they may be an activation of: an affine function of the same origin, or what they are made of alone.
    """
    line = find_line(signal) if signal.affine else None
    outputs = _evaluate(outcome, signal, line, POINTS)
    if outputs is None or outputs.shape != POINTS.shape:
        return None
    spelled = _SpelledOut(outcome, signal, line)
    allowed = ROUNDING * POINTS.abs() + 1e-14 * (abs(line[1]) if line else 0)
    is_one = _is_gated(outputs.detach(), allowed) and _has_its_derivative(spelled)
    return Gated(spelled.function, spelled.gate) if is_one else None


def _is_gated(outputs: Tensor, allowed: Tensor) -> bool:
    """Tell whether outputs at all points are 0 at 0, keep the sign, and have a finite gate, to 0 and on both sides."""
    sizes = outputs * POINTS.sign()
    keeps_sign = bool((sizes >= -allowed).logical_or(outputs.isnan()).all())
    is_finite = bool(outputs[POINTS.abs() <= _FAR].isfinite().all())
    if not (keeps_sign and is_finite) or abs(float(outputs[POINTS == 0])) > float(allowed[POINTS == 0]):
        return False
    gates = sizes / POINTS.abs()
    nearest = POINTS.abs() == POINTS[POINTS > 0].min()
    largest = gates[(POINTS.abs() >= 1e-2) & (POINTS.abs() <= _FAR)].max()
    return bool((sizes[nearest] <= 10 * largest * POINTS[nearest].abs() + allowed[nearest]).all())


_FAR = 50


def name_if_piecewise_linear(activation: Gated, title: str) -> str:
    """Return what an activation is called if it has no second derivative; else nothing."""
    points = (POINTS[POINTS.abs() <= _FAR] * 1.00371).requires_grad_()
    (slopes,) = torch.autograd.grad(activation.function(points).sum(), points, create_graph=True)
    growth = None
    if slopes.requires_grad:
        (growth,) = torch.autograd.grad(slopes.sum(), points, allow_unused=True)
    is_smooth = growth is not None and bool(growth.any())
    return "" if is_smooth else _PIECEWISE_LINEAR.get(title, title)


def _has_its_derivative(spelled: _SpelledOut) -> bool:
    """Tell whether a backward pass has the derivative of the function, and not one that a model gives it instead."""
    # Next to the usual bends, not in them.
    points = (POINTS[(POINTS.abs() >= 1e-2) & (POINTS.abs() <= _FAR)] * 1.00371).requires_grad_()
    step = 1e-6 * points.detach().abs()
    outputs = spelled.at(points)
    if not outputs.requires_grad:
        return False
    (slopes,) = torch.autograd.grad(outputs.sum(), points)
    with torch.no_grad():
        differences = (spelled.at(points + step) - spelled.at(points - step)) / (2 * step)
    return bool(((slopes - differences).abs() <= 1e-3 * (1 + differences.abs())).all())


def _evaluate(outcome: Values, signal: Values, line: Line | None, points: Tensor) -> Tensor | None:
    """Compute the function that an outcome is of a signal, which may be on a line with its origin."""
    outputs = evaluate(outcome, points, signal)
    if outputs is None and line is not None:
        outputs = evaluate(outcome, (points - line[1]) / line[0])
    return outputs
