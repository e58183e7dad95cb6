"""Rules at a ReLU: what a backward pass does with the gradient that arrives at one.

One mechanism serves them all: while `relu_rule` is active, every call of ReLU that PyTorch sees (a module's,
``F.relu``'s, ``x.relu()``'s, in place or not; ReLU6 and Hardtanh(0, h) too) is replaced by an autograd function with
the rule as its backward. The model is not touched, so nothing can be left on it, and a ReLU shared by two branches, or
used twice, is right by construction: the rule changes that node's own gradient and nothing else.

What the mechanism cannot reach is found afterwards, in the autograd graph itself: a ReLU that ran where it was not
seen (a scripted module, another thread), or an activation that has no such rule, raises `MethodError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whyfooled.errors import MethodError
from whyfooled.saliency._graph import graph_nodes, is_scripted, uncompiled

Rule = Callable[[Tensor, Tensor, float], Tensor]
"""(gradient G at the output, output of the activation, its upper bound) -> gradient at the input."""


def guided(gradient: Tensor, output: Tensor, upper: float) -> Tensor:
    """Let a positive gradient pass an open activation: ``max(G, 0) · 1[0 < a < upper]`` (Springenberg et al. 2015)."""
    return _where_open(gradient, output, upper).relu_()


def deconvnet(gradient: Tensor, output: Tensor, upper: float) -> Tensor:
    """Let a positive gradient pass: ``max(G, 0)`` (Zeiler & Fergus 2014)."""
    return gradient.relu()


def _where_open(gradient: Tensor, output: Tensor, upper: float) -> Tensor:
    # The fused kernels read the output: it lies strictly between the bounds exactly where the input does.
    if upper == float("inf"):
        passed: Tensor = torch.ops.aten.threshold_backward(gradient, output, 0)
    else:
        passed = torch.ops.aten.hardtanh_backward(gradient, output, 0, upper)
    return passed


class _RuledReLU(torch.autograd.Function):
    """ReLU (or ReLU6, …) forwards, a rule backwards."""

    @staticmethod
    def forward(inputs: Tensor, rule: Rule, upper: float, inplace: bool) -> Tensor:
        if upper == float("inf"):
            return inputs.relu_() if inplace else inputs.relu()
        return inputs.clamp_(0, upper) if inplace else inputs.clamp(0, upper)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        original, ctx.rule, ctx.upper, inplace = inputs
        if inplace:
            ctx.mark_dirty(original)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (output,) = ctx.saved_tensors
        return ctx.rule(gradients[0], output, ctx.upper), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], inputs: Tensor, rule: Rule, upper: float, inplace: bool) -> Any:
        # Elementwise, so one more dimension changes nothing.
        return _RuledReLU.apply(inputs, rule, upper, inplace), in_dims[0]


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
"""Every function that can be a ReLU, with the names of its arguments."""

_IN_PLACE = (torch.relu_, Tensor.relu_, F.hardtanh_)


def as_relu(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, float, bool] | None:
    """Read a call as a ReLU: its input, its upper bound, whether it works in place; None if it is something else."""
    if function not in _ARGUMENTS:
        return None
    given = dict(zip(_ARGUMENTS[function], args, strict=False)) | kwargs
    upper = _upper_bound(function, given)
    if upper is None:
        return None
    return given["input"], upper, function in _IN_PLACE or bool(given.get("inplace", False))


def _upper_bound(function: Any, given: dict[str, Any]) -> float | None:
    """Return where the activation stops growing; None if it does not begin at 0, and so is no ReLU."""
    if function is F.threshold:
        return float("inf") if given["threshold"] == given["value"] == 0 else None
    if function in (F.hardtanh, F.hardtanh_):
        low, high = given.get("min_val", -1.0), given.get("max_val", 1.0)
        return float(high) if low == 0 < high else None
    return 6.0 if function is F.relu6 else float("inf")


class RuledCalls(TorchFunctionMode):
    """While active, every ReLU call is made with the rule; `met` counts them."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.met = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = as_relu(func, args, kwargs or {})
        if call is None:
            return func(*args, **(kwargs or {}))
        self.met += 1
        inputs, upper, inplace = call
        return _RuledReLU.apply(inputs, self.rule, upper, inplace)


@contextmanager
def relu_rule(rule: Rule) -> Iterator[RuledCalls]:
    """Make every ReLU that runs inside the ``with`` block use a rule in its backward pass.

    Compiled modules run uncompiled inside the block. The block need only cover the forward pass.
    """
    with uncompiled(), RuledCalls(rule) as calls:
        yield calls


_NO_RULE = {
    "Gelu": "GELU",
    "Silu": "SiLU",
    "Hardswish": "Hardswish",
    "Mish": "Mish",
    "Elu": "ELU",
    "Celu": "CELU",
    "LeakyRelu": "LeakyReLU",
    "Prelu": "PReLU",
    "RreluWithNoise": "RReLU",
    "Softplus": "Softplus",
    "Hardtanh": "Hardtanh with a lower bound other than 0",
}
_UNSEEN = ("Relu", "Threshold", "CompiledFunction", "CheckpointFunction", "torch::jit", "DifferentiableGraph")


def check_rule_held(module: nn.Module, logits: Tensor, calls: RuledCalls) -> None:
    """Raise `MethodError` unless the rule reached every activation, one at least, from the images to the logits.

    Gates and attention (sigmoid, tanh, softmax) are no rectifiers and keep their own gradient.
    """
    check_activations(module, logits)
    if not calls.met:
        raise MethodError("This method needs a network with ReLUs, and none ran between the images and the logits.")


def check_activations(module: nn.Module, logits: Tensor) -> None:
    """Raise `MethodError` if there is an activation that is no ReLU, or one that ran where it was not seen."""
    names = graph_nodes(logits)
    unsupported = sorted({title for start, title in _NO_RULE.items() if any(n.startswith(start) for n in names)})
    if unsupported:
        raise MethodError(
            "This method needs a network whose activations are ReLU, ReLU6 or Hardtanh(0, h); this one uses "
            f"{', '.join(unsupported)}. Use a method without a ReLU rule, such as gradient or gradcam."
        )
    unseen = sorted({name for name in names if name.startswith(_UNSEEN)})
    if unseen or is_scripted(module):
        raise MethodError(
            "A part of this model runs where its ReLUs cannot be given a rule: scripted, traced, compiled as a "
            f"function, checkpointed or in another thread ({', '.join(unseen) or 'a ScriptModule'}). Give the plain "
            "Python module."
        )
