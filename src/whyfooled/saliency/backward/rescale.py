"""The rescale rule: at an activation, the slope from a reference to the input takes the place of the gradient.

The reference goes through the network first, and what arrives at each activation is kept; then the images go through,
and each activation finds its own there, because a network calls them in the same order. As in `rules`, calls are seen
wherever they are made, and nothing is done to the model.

A map may be differentiated again. The slopes are then made of what arrived at each activation, of image and reference,
and this depends on the images as the network's values do: by the derivative, which takes the rule's place once the map
is there (`Twice.over`). Of a reference that is the same for all images, such as black, nothing depends on them: what
arrived is a constant, and the graph of its pass is let go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from whyfooled.errors import MethodError
from whyfooled.saliency.backward.calls import Call
from whyfooled.saliency.backward.followed import RectifierCalls
from whyfooled.saliency.backward.graph import is_checkpointed
from whyfooled.saliency.backward.rectifiers import Rectifier
from whyfooled.saliency.backward.rules import Activation, ReLU
from whyfooled.saliency.backward.twice import Twice


@dataclass
class Rescaling(Twice):
    """How one map is computed. Lives inside that.

    Parameters
    ----------
    smoothed
        Whether activations were smooth in place of rectifiers.
    """

    smoothed: bool = False


class Bent(Activation, Protocol):
    """An activation that bends in places and is straight elsewhere: a rectifier, or a smooth one in place of it."""

    @property
    def beta(self) -> float:
        """How sharp its bends are; infinite for a rectifier."""
        ...


class _Windows(NamedTuple):
    """Where a max pooling looks: the arguments of ``F.max_pool2d`` after the first."""

    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    ceil_mode: bool = False

    def pool(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maxima, and where in its plane each was found."""
        pooled: tuple[Tensor, Tensor] = F.max_pool2d(inputs, *self, return_indices=True)
        return pooled


def _as_max_pool(call: Call) -> tuple[Tensor, _Windows] | None:
    if call.function not in (F.max_pool2d, torch.max_pool2d):
        return None
    given = dict(zip(("input", *_Windows._fields), call.args, strict=False)) | call.kwargs
    return given["input"], _Windows(**{name: given[name] for name in _Windows._fields if name in given})


class RecordedInputs(RectifierCalls):
    """While active, keeps what arrives at each rectifier and max pooling.

    Parameters
    ----------
    keeps_graph
        Whether with its graph, to differentiate what is made of it.
    """

    def __init__(self, *, keeps_graph: bool = False) -> None:
        super().__init__()
        self.keeps_graph = keeps_graph
        self.inputs: list[Tensor] = []

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Keep what arrives, and make the rectifier as it is."""
        self._keep(rectifier.inputs)
        return rectifier.compute(bounded_relu)

    def other(self, call: Call) -> Any:
        """Make a call that is no rectifier."""
        pooling = _as_max_pool(call)
        if pooling is not None:
            self._keep(pooling[0])
        return call()

    def _keep(self, inputs: Tensor) -> None:
        # A copy: the activation, or what comes after it, may work in place.
        self.inputs.append((inputs if self.keeps_graph else inputs.detach()).clone())


class RescaledCalls(RectifierCalls):
    """While active, every rectifier and max pooling is differentiated by the rescale rule, against what was kept."""

    def __init__(self, references: RecordedInputs, rescaling: Rescaling | None = None) -> None:
        super().__init__()
        self._rescaling = rescaling or Rescaling()
        self._references: Iterator[Tensor] = iter(references.inputs)

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier with the rule."""
        reference = self._reference(rectifier.inputs)
        return rectifier.compute(
            lambda inputs, upper, inplace: rescaled_relu(inputs, reference, self._rescaling, upper, inplace)
        )

    def other(self, call: Call) -> Any:
        """Make a call that is no rectifier, a max pooling with the rule."""
        pooling = _as_max_pool(call)
        if pooling is None:
            return call()
        inputs, windows = pooling
        reference = self._reference(inputs)
        if self._rescaling.again:
            return _RescaledMaxPoolAgain.apply(inputs, (reference,), windows, self._rescaling)
        return _RescaledMaxPool.apply(inputs, reference, windows)

    def check_all_met(self) -> None:
        """Raise `MethodError` if the reference went through more activations than the images."""
        if next(self._references, None) is not None:
            raise _other_steps()

    def _reference(self, inputs: Tensor) -> Tensor:
        if is_checkpointed():
            raise MethodError(
                "A part of this model is checkpointed, and runs again where its ReLUs cannot be given a rule. Give the "
                "model without checkpoints."
            )
        reference = next(self._references, None)
        if reference is None or reference.shape != inputs.shape:
            raise _other_steps()
        return reference


def _other_steps() -> MethodError:
    return MethodError("This method needs a network that does the same steps for every image; this one does not.")


def bounded_relu(inputs: Tensor, upper: float, inplace: bool) -> Tensor:
    """Compute a ReLU. A mode around may put another activation in its place."""
    if has_torch_function((inputs,)):
        output: Tensor = handle_torch_function(bounded_relu, (inputs,), inputs, upper, inplace)
        return output
    return inputs.clamp_(0, upper) if inplace else inputs.clamp(0, upper)


def rescaled_relu(inputs: Tensor, reference: Tensor, rescaling: Rescaling, upper: float, inplace: bool) -> Tensor:
    """Compute a ReLU with the rescale rule. A mode around may put another activation in its place."""
    output: Tensor
    if has_torch_function((inputs,)):
        output = handle_torch_function(rescaled_relu, (inputs,), inputs, reference, rescaling, upper, inplace)
        return output
    if rescaling.again:
        return rescaled(inputs, reference, rescaling, ReLU(upper), inplace)
    output = _RescaledReLU.apply(inputs, reference, upper, inplace)
    return output


def rescaled(inputs: Tensor, reference: Tensor, rescaling: Rescaling, activation: Bent, inplace: bool) -> Tensor:
    """Compute any activation with the rescale rule, in a way that can be differentiated again."""
    if inplace:
        # Of a copy: the backward pass reads the input.
        return inputs.copy_(rescaled(inputs.clone(), reference, rescaling, activation, inplace=False))
    # Not as a tensor of its own, which would have an edge: no gradient of the outputs goes to the reference's pass.
    output: Tensor = _RescaledActivation.apply(inputs, (reference,), rescaling, activation)
    return output


class _RescaledActivation(torch.autograd.Function):
    """An activation forwards; backwards the gradient times Δoutput/Δinput, differentiably, and later its own."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, held: tuple[Tensor], rescaling: Rescaling, activation: Bent) -> Tensor:
        (ctx.reference,), ctx.rescaling, ctx.activation = held, rescaling, activation
        ctx.save_for_backward(inputs)
        return activation.value(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inputs,) = ctx.saved_tensors
        if ctx.rescaling.over:
            return _differentiate(ctx.activation, inputs, gradients[0]), None, None, None
        return gradients[0] * _find_secant(ctx.activation, inputs, ctx.reference), None, None, None


def _differentiate(activation: Activation, inputs: Tensor, gradient: Tensor) -> Tensor:
    return activation.own_gradient(gradient, inputs if activation.keeps_input else activation.value(inputs))


def _find_secant(activation: Bent, inputs: Tensor, reference: Tensor) -> Tensor:
    """Return Δoutput/Δinput, differentiably; where Δinput is too small to divide by, the derivative halfway."""
    change = inputs - reference
    # At this distance the quotient is as wrong by rounding as the derivative is by the activation's bend. A rectifier's
    # quotient is right at any but 0: on one straight piece both differences are the same, or one is 0.
    near = change.abs() <= torch.finfo(change.dtype).eps ** (1 / 3) / activation.beta
    quotient = (activation.value(inputs) - activation.value(reference)) / torch.where(near, 1, change)
    halfway = torch.where(near, (inputs + reference) / 2, inputs)
    return torch.where(near, _differentiate(activation, halfway, torch.ones_like(inputs)), quotient)


class _RescaledReLU(torch.autograd.Function):
    """ReLU, or ReLU6, …: forwards as it is; backwards the gradient times Δoutput/Δinput."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, reference: Tensor, upper: float, inplace: bool) -> Tensor:
        # The slope needs no tolerance: where the two are on one straight piece of the activation, Δoutput is 0 or
        # exactly Δinput, and elsewhere |Δinput| ≥ |Δoutput| > 0. Where Δinput is 0, it is the derivative.
        slope = torch.where(
            inputs == reference,
            ((inputs > 0) & (inputs < upper)).to(inputs.dtype),
            (inputs.clamp(0, upper) - reference.clamp(0, upper)) / (inputs - reference),
        )
        ctx.save_for_backward(slope)
        if inplace:
            ctx.mark_dirty(inputs)
            return inputs.clamp_(0, upper)
        return inputs.clamp(0, upper)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None, None


class _RescaledMaxPool(torch.autograd.Function):
    """Max pooling: forwards as it is; backwards each window's Δoutput goes to the two places that its maxima are at.

    With the maxima ``o`` of the image and ``r`` of the reference, and ``t`` the larger one, the place of ``o`` is
    credited with ``t − r`` and that of ``r`` with ``o − t`` (one of them is 0): never more than these places changed,
    so that no slope exceeds 1, and together ``o − r``.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, reference: Tensor, windows: _Windows) -> Tensor:
        output, place = windows.pool(inputs)
        maxima, reference_place = windows.pool(reference)
        top = torch.maximum(output, maxima)
        ctx.save_for_backward(inputs - reference, place, top - maxima, reference_place, output - top)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        change, place, gain, reference_place, loss = ctx.saved_tensors
        # Windows overlap, so places are added to, not overwritten.
        credit = torch.zeros_like(change).flatten(-2)
        credit.scatter_add_(-1, place.flatten(-2), (gradients[0] * gain).flatten(-2))
        credit.scatter_add_(-1, reference_place.flatten(-2), (gradients[0] * loss).flatten(-2))
        plain = torch.zeros_like(credit).scatter_add_(-1, place.flatten(-2), gradients[0].flatten(-2))
        slope = torch.where(change == 0, plain.view_as(change), credit.view_as(change) / change)
        return slope, None, None


class _RescaledMaxPoolAgain(torch.autograd.Function):
    """The same, differentiably; once the map is there, with the gradient of a max pooling.

    Where a value does not differ from the reference's, the slope is that gradient, as above, and counts as constant.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, held: tuple[Tensor], windows: _Windows, rescaling: Rescaling) -> Tensor:
        (ctx.reference,), ctx.rescaling = held, rescaling
        output, place = windows.pool(inputs)
        _, reference_place = windows.pool(ctx.reference)
        ctx.save_for_backward(inputs, place, reference_place)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        inputs, place, reference_place = ctx.saved_tensors
        reference: Tensor = ctx.reference
        gradient = gradients[0].flatten(-2)
        place, reference_place = place.flatten(-2), reference_place.flatten(-2)
        nothing = torch.zeros_like(inputs).flatten(-2)
        plain = nothing.scatter_add(-1, place, gradient).view_as(inputs)
        if ctx.rescaling.over:
            return plain, None, None, None
        output, maxima = inputs.flatten(-2).gather(-1, place), reference.flatten(-2).gather(-1, reference_place)
        top = torch.maximum(output, maxima)
        credit = nothing.scatter_add(-1, place, gradient * (top - maxima))
        credit = credit.scatter_add(-1, reference_place, gradient * (output - top)).view_as(inputs)
        change = inputs - reference
        same = change == 0
        return torch.where(same, plain, credit / torch.where(same, 1, change)), None, None, None
