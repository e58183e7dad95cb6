"""The rescale rule: at an activation, the slope from a reference to the input takes the place of the gradient.

The reference goes through the network first, and what arrives at each activation is kept; then the images go through,
and each activation finds its own there, because a network calls them in the same order. As in `rules`, calls are seen
wherever they are made, and nothing is done to the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.errors import MethodError
from whyfooled.saliency.backward.calls import Call
from whyfooled.saliency.backward.followed import RectifierCalls
from whyfooled.saliency.backward.graph import is_checkpointed
from whyfooled.saliency.backward.rectifiers import Rectifier


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
    """While active, keeps what arrives at each rectifier and max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Keep what arrives, and make the rectifier as it is."""
        self._keep(rectifier.inputs)
        return rectifier.compute(_bounded)

    def other(self, call: Call) -> Any:
        """Make a call that is no rectifier."""
        pooling = _as_max_pool(call)
        if pooling is not None:
            self._keep(pooling[0])
        return call()

    def _keep(self, inputs: Tensor) -> None:
        # A copy: the activation, or what comes after it, may work in place.
        self.inputs.append(inputs.detach().clone())


class RescaledCalls(RectifierCalls):
    """While active, every rectifier and max pooling is differentiated by the rescale rule, against what was kept."""

    def __init__(self, references: RecordedInputs) -> None:
        super().__init__()
        self._references: Iterator[Tensor] = iter(references.inputs)

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier with the rule."""
        reference = self._reference(rectifier.inputs)
        return rectifier.compute(lambda inputs, upper, inplace: _RescaledReLU.apply(inputs, reference, upper, inplace))

    def other(self, call: Call) -> Any:
        """Make a call that is no rectifier, a max pooling with the rule."""
        pooling = _as_max_pool(call)
        if pooling is None:
            return call()
        inputs, windows = pooling
        return _RescaledMaxPool.apply(inputs, self._reference(inputs), windows)

    def _reference(self, inputs: Tensor) -> Tensor:
        if is_checkpointed():
            raise MethodError(
                "A part of this model is checkpointed, and runs again where its ReLUs cannot be given a rule. Give the "
                "model without checkpoints."
            )
        reference = next(self._references, None)
        if reference is None or reference.shape != inputs.shape:
            raise MethodError(
                "This method needs a network that does the same steps for every image; this one does not."
            )
        return reference


def _bounded(inputs: Tensor, upper: float, inplace: bool) -> Tensor:
    return inputs.clamp_(0, upper) if inplace else inputs.clamp(0, upper)


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
