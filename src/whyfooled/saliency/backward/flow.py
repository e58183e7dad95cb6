"""The nodes of the graph along which relevance flows: operations that share it, and operations that move it.

An operation that shares relevance is an autograd function whose forward pass is the operation itself and whose backward
pass takes the relevance of its outputs to its inputs. An operation that only moves values, or picks one of several,
needs none: its gradient moves relevance as it should.

Relevance that is differentiated again is made of the values that the network has, and these depend on the images by the
derivative, not by a rule. So an operation that shares it is then made twice (`Again`): by itself, with its own graph,
and by its rule. Relevance goes back along the one until the map is there (`Twice.over`), gradients along the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyfooled.classifier.dependence import operation
from whyfooled.saliency.backward.graph import edges_of
from whyfooled.saliency.backward.shares import Layer, Rule, divide, held_rule, mixture_rule
from whyfooled.saliency.backward.twice import Twice


class WeightedRelevance(torch.autograd.Function):
    """An operation that weights and sums its input; its rule shares the relevance."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], inputs: Tensor, rule: Rule, layer: Layer) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(inputs)
        ctx.rule, ctx.layer = rule, layer
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[None, Tensor, None, None]:
        """Share the relevance of the output among the inputs."""
        (inputs,) = ctx.saved_tensors
        return None, ctx.rule(ctx.layer, inputs, relevance[0]), None, None


class MixedRelevance(torch.autograd.Function):
    """A sum or mean of values of one tensor, which share by what they are, or equally."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[], Tensor], inputs: Tensor, mix: Callable[[Tensor], Tensor], equally: bool
    ) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(inputs)
        ctx.mix, ctx.equally = mix, equally
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[None, Tensor, None, None]:
        """Share the relevance of the output among the inputs."""
        (inputs,) = ctx.saved_tensors
        values = torch.ones_like(inputs) if ctx.equally else inputs
        return None, mixture_rule(ctx.mix, values, relevance[0]), None, None


class HeldRelevance(torch.autograd.Function):
    """An operation that is linear in its input while everything else in it is held, and may add a bias."""

    @staticmethod
    def forward(
        ctx: Any,
        compute: Callable[[], Tensor],
        inputs: Tensor,
        linear: Callable[[Tensor], Tensor],
        bias: Tensor | float,
        epsilon: float,
    ) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(inputs)
        ctx.linear, ctx.bias, ctx.epsilon = linear, bias, epsilon
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[None, Tensor, None, None, None]:
        """Share the relevance of the output among the inputs."""
        (inputs,) = ctx.saved_tensors
        return None, held_rule(ctx.linear, inputs, ctx.bias, relevance[0], ctx.epsilon), None, None, None


class ProductRelevance(torch.autograd.Function):
    """A product of two signals, value by value or of matrices: each receives half (Achtibat et al. 2024)."""

    @staticmethod
    def forward(
        ctx: Any,
        compute: Callable[[], Tensor],
        first: Tensor,
        second: Tensor,
        multiply: Callable[[Tensor, Tensor], Tensor],
        epsilon: float,
    ) -> Tensor:
        """Compute the operation."""
        ctx.save_for_backward(first, second)
        ctx.multiply, ctx.epsilon = multiply, epsilon
        return compute()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        """Share the relevance of the output among the two."""
        first, second = ctx.saved_tensors
        half = relevance[0] / 2
        shares = (
            held_rule(lambda values: ctx.multiply(values, second), first, 0.0, half, ctx.epsilon),
            held_rule(lambda values: ctx.multiply(first, values), second, 0.0, half, ctx.epsilon),
        )
        return None, *shares, None, None


class SoftmaxRelevance(torch.autograd.Function):
    """Softmax, to first order: ``x·(R − p·ΣR)`` (Achtibat et al. 2024). What is masked receives nothing."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], inputs: Tensor, axis: int) -> Tensor:
        """Compute the operation."""
        outputs = compute()
        ctx.save_for_backward(inputs, getattr(ctx, "plain", outputs))
        ctx.axis = axis
        return outputs

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[None, Tensor, None]:
        """Share the relevance of the output among the inputs."""
        inputs, outputs = ctx.saved_tensors
        whole = relevance[0].sum(ctx.axis, keepdim=True)
        return None, torch.where(outputs == 0, 0, inputs) * (relevance[0] - outputs * whole), None


class SumRelevance(torch.autograd.Function):
    """The sum of two tensors: each receives its share."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], first: Tensor, second: Tensor, held: tuple[Tensor]) -> Tensor:
        """Compute the operation. What is held is the term that the second makes."""
        version = first._version
        whole = compute()
        if first._version != version:
            ctx.mark_dirty(first)
        # Not as a tensor of its own, to which relevance would have to go.
        _keep_share(ctx, whole, *held)
        ctx.shapes = first.shape, second.shape
        return whole

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[None, Tensor, Tensor, None]:
        """Share the relevance of the output among the inputs."""
        first = relevance[0] * _find_share(ctx)
        return None, first.sum_to_size(ctx.shapes[0]), (relevance[0] - first).sum_to_size(ctx.shapes[1]), None


class PassedRelevance(torch.autograd.Function):
    """An operation on each value by itself: its input receives all the relevance, or all but a shift's share."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], inputs: Tensor, shift: Tensor | float | None) -> Tensor:
        """Compute the operation."""
        version, ctx.shape = inputs._version, inputs.shape
        outputs = compute()
        if inputs._version != version:
            ctx.mark_dirty(inputs)
        if shift is not None:
            _keep_share(ctx, outputs, shift)
        return outputs

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[None, Tensor, None]:
        """Share the relevance of the output among the inputs."""
        passed = relevance[0] * _find_share(ctx) if ctx.saved_tensors else relevance[0]
        return None, passed.sum_to_size(ctx.shape), None


class HardGateRelevance(PassedRelevance):
    """The hard form of a sigmoid, of which one factor of a product is made: only its name differs."""


def _keep_share(ctx: Any, whole: Tensor, rest: Tensor | float) -> None:
    """Keep which share of a whole is not the rest; not the whole, which may be overwritten in place."""
    if hasattr(ctx, "plain"):
        ctx.save_for_backward(ctx.plain)
        ctx.rest = (rest,)
    else:
        ctx.save_for_backward(divide(whole - rest, whole))


def _find_share(ctx: Any) -> Tensor:
    (kept,) = ctx.saved_tensors
    share: Tensor = divide(kept - ctx.rest[0], kept) if hasattr(ctx, "rest") else kept
    return share


class Again(torch.autograd.Function):
    """An operation that was made by itself, and by a rule: relevance goes back by the rule, and gradients afterwards.

    The edge to what was made by itself comes first, and is beside the way of the relevance.
    """

    @staticmethod
    def forward(ctx: Any, plain: Tensor, twice: Twice, function: type[torch.autograd.Function], *args: Any) -> Tensor:
        """Give what was made already, as a copy: the model may overwrite it in place."""
        ctx.set_materialize_grads(False)
        ctx.plain, ctx.twice, ctx.function, ctx.beside = plain, twice, function, 1
        output: Tensor = function.forward(ctx, lambda: plain.detach().clone(), *args)
        # Whoever needs it for its rule has saved it.
        del ctx.plain
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Share the relevance of the output among the inputs; or give its gradient to what was made by itself."""
        if gradients[0] is None:
            return (None,) * len(ctx.needs_input_grad)
        if ctx.twice.over:
            return gradients[0], *(None,) * (len(ctx.needs_input_grad) - 1)
        return None, None, None, *ctx.function.backward(ctx, *gradients)[1:]


def share_by(
    function: type[torch.autograd.Function], twice: Twice, compute: Callable[[], Tensor], *args: Any
) -> Tensor:
    """Make an operation that shares relevance by one of the functions of this module.

    Parameters
    ----------
    function, args
        The function, and what it takes after `compute`.
    twice
        How the map is computed.
    compute
        Makes the operation: in place if the model does, or anew where the map is differentiated again.
    """
    output: Tensor = Again.apply(compute(), twice, function, *args) if twice.again else function.apply(compute, *args)
    return output


SHARING = frozenset(
    function.__name__
    for function in (
        *(WeightedRelevance, MixedRelevance, SumRelevance, PassedRelevance, HardGateRelevance),
        *(HeldRelevance, ProductRelevance, SoftmaxRelevance, Again),
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
        name = node.function.__name__ if hasattr(node, "function") else operation(node.name())
        squashed |= name in _GATES
        if name not in MOVING.union(_GATES, ["PassedRelevance"]):
            break
        node = next((following for following in edges_of(node) if following is not None), None)
    return squashed


def _is_pooled(tensor: Tensor, signal: Tensor) -> bool:
    return tensor.ndim == signal.ndim == 4 and tensor.shape[2:].numel() == 1 < signal.shape[2:].numel()
