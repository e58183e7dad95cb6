"""The nodes of the graph along which relevance flows: operations that share it, and operations that move it.

An operation that shares relevance is an autograd function whose forward pass is the operation itself and whose backward
pass takes the relevance of its outputs to its inputs. An operation that only moves values, or picks one of several,
needs none: its gradient moves relevance as it should.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyfooled.saliency.backward.graph import operation
from whyfooled.saliency.backward.shares import Layer, Rule, divide, held_rule, mixture_rule


class WeightedRelevance(torch.autograd.Function):
    """An operation that weights and sums its input; its rule shares the relevance."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, compute: Callable[[], Tensor], rule: Rule, layer: Layer) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(inputs)
        ctx.rule, ctx.layer = rule, layer
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None, None]:
        """Share the relevance of the output among the inputs."""
        (inputs,) = ctx.saved_tensors
        return ctx.rule(ctx.layer, inputs, relevance[0]), None, None, None


class MixedRelevance(torch.autograd.Function):
    """A sum or mean of values of one tensor, which share by what they are, or equally."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mix: Callable[[Tensor], Tensor], equally: bool) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(inputs)
        ctx.mix, ctx.equally = mix, equally
        return mix(inputs)

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None]:
        """Share the relevance of the output among the inputs."""
        (inputs,) = ctx.saved_tensors
        return mixture_rule(ctx.mix, torch.ones_like(inputs) if ctx.equally else inputs, relevance[0]), None, None


class HeldRelevance(torch.autograd.Function):
    """An operation that is linear in its input while everything else in it is held, and may add a bias."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        compute: Callable[[], Tensor],
        linear: Callable[[Tensor], Tensor],
        bias: Tensor | float,
        epsilon: float,
    ) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(inputs)
        ctx.linear, ctx.bias, ctx.epsilon = linear, bias, epsilon
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Share the relevance of the output among the inputs."""
        (inputs,) = ctx.saved_tensors
        return held_rule(ctx.linear, inputs, ctx.bias, relevance[0], ctx.epsilon), None, None, None, None


class ProductRelevance(torch.autograd.Function):
    """A product of two signals, value by value or of matrices: each receives half (Achtibat et al. 2024)."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        compute: Callable[[], Tensor],
        multiply: Callable[[Tensor, Tensor], Tensor],
        epsilon: float,
    ) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(first, second)
        ctx.multiply, ctx.epsilon = multiply, epsilon
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Share the relevance of the output among the two."""
        first, second = ctx.saved_tensors
        half = relevance[0] / 2
        shares = (
            held_rule(lambda values: ctx.multiply(values, second), first, 0.0, half, ctx.epsilon),
            held_rule(lambda values: ctx.multiply(first, values), second, 0.0, half, ctx.epsilon),
        )
        return *shares, None, None, None


class SoftmaxRelevance(torch.autograd.Function):
    """Softmax, to first order: ``x·(R − p·ΣR)`` (Achtibat et al. 2024). What is masked receives nothing."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, compute: Callable[[], Tensor], axis: int) -> Tensor:
        """Compute the operation."""
        outputs = compute()
        ctx.save_for_backward(inputs, outputs)
        ctx.axis = axis
        return outputs

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None]:
        """Share the relevance of the output among the inputs."""
        inputs, outputs = ctx.saved_tensors
        whole = relevance[0].sum(ctx.axis, keepdim=True)
        return torch.where(outputs == 0, 0, inputs * (relevance[0] - outputs * whole)), None, None


class SumRelevance(torch.autograd.Function):
    """The sum of two tensors: each receives its share. Shares are kept, because sums are overwritten in place."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, term: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Compute the operation."""
        version = first._version
        whole = compute()
        if first._version != version:
            ctx.mark_dirty(first)
        ctx.save_for_backward(divide(whole - term, whole))
        ctx.shapes = first.shape, second.shape
        return whole

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Share the relevance of the output among the inputs."""
        (share,) = ctx.saved_tensors
        first = relevance[0] * share
        return first.sum_to_size(ctx.shapes[0]), (relevance[0] - first).sum_to_size(ctx.shapes[1]), None, None


class PassedRelevance(torch.autograd.Function):
    """An operation on each value by itself: its input receives all the relevance, or all but a shift's share."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, compute: Callable[[], Tensor], shift: Tensor | float | None) -> Tensor:
        """Compute the operation."""
        version, ctx.shape = inputs._version, inputs.shape
        outputs = compute()
        if inputs._version != version:
            ctx.mark_dirty(inputs)
        if shift is not None:
            ctx.save_for_backward(divide(outputs - shift, outputs))
        return outputs

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None]:
        """Share the relevance of the output among the inputs."""
        passed = relevance[0] * ctx.saved_tensors[0] if ctx.saved_tensors else relevance[0]
        return passed.sum_to_size(ctx.shape), None, None


class HardGateRelevance(PassedRelevance):
    """The hard form of a sigmoid, of which one factor of a product is made: only its name differs."""


SHARING = frozenset(
    function.__name__
    for function in (
        *(WeightedRelevance, MixedRelevance, SumRelevance, PassedRelevance, HardGateRelevance),
        *(HeldRelevance, ProductRelevance, SoftmaxRelevance),
    )
)

# fmt: off
MOVING = frozenset((
    "Alias", "AsStrided", "Cat", "ChannelShuffle", "Clone", "ConstantPadNd", "Copy", "CopySlices", "Diagonal",
    "Expand", "Fill", "Flip", "Gather", "Im2Col", "Index", "IndexPut", "IndexSelect", "Lift", "MaskedFill",
    "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad1D", "ReflectionPad2D", "Repeat", "ReplicationPad2D",
    "ReshapeAlias", "Roll", "Rot90", "Select", "Slice", "SliceScatter", "Split", "SplitWithSizes", "Squeeze",
    "Stack", "T", "ToCopy", "Transpose", "Unbind", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
    "Where", "Zero", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D", "Amax", "FractionalMaxPool2D", "Max", "Maximum",
    "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AccumulateGrad", "BackwardHookFunction", "_Count",
))
# fmt: on
"""Operations that move values, or pick one of several: their gradient moves relevance as it should."""


_GATES = ("Sigmoid", "Hardsigmoid", "Softmax", SoftmaxRelevance.__name__, HardGateRelevance.__name__)


def gated(first: Tensor, second: Tensor) -> Tensor | None:
    """Tell which factor of a product is the signal and not its gate; None if neither or both could be.

    A gate comes from a sigmoid or the like, or is one number for each channel where the signal is a map of them. A
    signal multiplied by a sigmoid of itself is an activation (SiLU), not a gated signal.
    """
    gates = [_is_gate(first, second), _is_gate(second, first)]
    if gates[0] == gates[1]:
        gates = [_is_pooled(first, second), _is_pooled(second, first)]
    if gates[0] == gates[1]:
        return None
    return second if gates[0] else first


def _is_gate(tensor: Tensor, signal: Tensor) -> bool:
    squashed, node = False, tensor.grad_fn
    while node is not None:
        if node is signal.grad_fn:
            return False
        name = operation(node.name())
        squashed |= name in _GATES
        if name not in MOVING.union(_GATES, ["PassedRelevance"]):
            break
        node = next((following for following, _ in node.next_functions if following is not None), None)
    return squashed


def _is_pooled(tensor: Tensor, signal: Tensor) -> bool:
    return tensor.ndim == signal.ndim == 4 and tensor.shape[2:].numel() == 1 < signal.shape[2:].numel()
