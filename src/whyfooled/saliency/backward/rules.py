"""Rules at a ReLU: what a backward pass does with the gradient that arrives at one.

One mechanism serves them all: while `relu_rule` is active, every call of ReLU that PyTorch sees (a module's,
``F.relu``'s, ``x.relu()``'s, in place or not; ReLU6 and Hardtanh(0, h) too) is replaced by an autograd function with
the rule as its backward, and so is what computes the same in other words (`whyfooled.saliency.backward.followed`). The
model is not touched, so nothing can be left on it, and a ReLU shared by two branches, or used twice, is right by
construction: the rule changes that node's own gradient and nothing else.

What the mechanism cannot reach is found afterwards, in the autograd graph itself: a ReLU that ran where it was not
seen (a scripted module, another thread), or anything that is not known to be no activation
(`whyfooled.saliency.backward.steps`), raises `MethodError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from whyfooled.errors import MethodError
from whyfooled.saliency.backward.followed import Followed, RectifierCalls
from whyfooled.saliency.backward.graph import is_checkpointed, is_scripted, uncompiled
from whyfooled.saliency.backward.rectifiers import Rectifier
from whyfooled.saliency.backward.steps import steps_between

OwnGradient = Callable[[Tensor], Tensor]
"""The backward pass of an activation as it is: gradient at the output -> gradient at the input."""

Rule = Callable[[Tensor, OwnGradient], Tensor]
"""(gradient G at the output, the activation's own backward pass) -> gradient at the input."""


def guided(gradient: Tensor, own_gradient: OwnGradient) -> Tensor:
    """Let a positive gradient pass an open activation: ``max(G, 0) · 1[0 < a < upper]`` (Springenberg et al. 2015)."""
    # After and not before: no activation here falls anywhere, so the signs are the same, and this result is ours.
    return own_gradient(gradient).relu_()


def deconvnet(gradient: Tensor, own_gradient: OwnGradient) -> Tensor:
    """Let a positive gradient pass: ``max(G, 0)`` (Zeiler & Fergus 2014)."""
    return gradient.relu()


@contextmanager
def first_order(rule: Rule | None) -> Iterator[Rule | None]:
    """Yield the rule as one that holds inside the block; afterwards its activations have their own gradient.

    For maps that are differentiated again. A map is made of the gradient and of the values that the activations had,
    and these depend on the images as the network's values do: by the derivative, not by the rule.
    """
    if rule is None:
        yield None
        return
    current = rule

    def held(gradient: Tensor, own_gradient: OwnGradient) -> Tensor:
        return current(gradient, own_gradient)

    try:
        yield held
    finally:
        current = _no_rule


def _no_rule(gradient: Tensor, own_gradient: OwnGradient) -> Tensor:
    return own_gradient(gradient)


@runtime_checkable
class Activation(Protocol):
    """An activation that a rule can hold at."""

    keeps_input: ClassVar[bool]
    """Whether the backward pass reads the input (which no call in place may then write into), not the output."""

    def value(self, inputs: Tensor, inplace: bool = False) -> Tensor:
        """Compute the output."""
        ...

    def own_gradient(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Compute the gradient at the input from the one at the output, differentiably."""
        ...


@dataclass(frozen=True)
class ReLU:
    """ReLU, or what is cut off at `upper`: ReLU6, Hardtanh(0, upper)."""

    upper: float
    keeps_input: ClassVar[bool] = False

    def value(self, inputs: Tensor, inplace: bool = False) -> Tensor:
        """Compute the output."""
        if self.upper == float("inf"):
            return inputs.relu_() if inplace else inputs.relu()
        return inputs.clamp_(0, self.upper) if inplace else inputs.clamp(0, self.upper)

    def own_gradient(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Compute the gradient at the input from the one at the output."""
        # The fused kernels read the output: it lies strictly between the bounds exactly where the input does.
        if self.upper == float("inf"):
            passed: Tensor = torch.ops.aten.threshold_backward(gradient, kept, 0)
        else:
            passed = torch.ops.aten.hardtanh_backward(gradient, kept, 0, self.upper)
        return passed


class _Ruled(torch.autograd.Function):
    """An activation forwards, a rule backwards."""

    @staticmethod
    def forward(inputs: Tensor, rule: Rule, activation: Activation, inplace: bool) -> Tensor:
        return activation.value(inputs, inplace)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        original, ctx.rule, ctx.activation, inplace = inputs
        if inplace:
            ctx.mark_dirty(original)
        ctx.save_for_backward(original if ctx.activation.keeps_input else output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        return ctx.rule(gradients[0], lambda gradient: ctx.activation.own_gradient(gradient, kept)), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], inputs: Tensor, rule: Rule, activation: Any, inplace: bool) -> Any:
        # Elementwise, so one more dimension changes nothing.
        return _Ruled.apply(inputs, rule, activation, inplace), in_dims[0]


def ruled(inputs: Tensor, rule: Rule, activation: Activation, inplace: bool) -> Tensor:
    """Compute an activation with a rule for its backward pass."""
    if inplace and activation.keeps_input:
        return inputs.copy_(ruled(inputs.clone(), rule, activation, inplace=False))
    output: Tensor = _Ruled.apply(inputs, rule, activation, inplace)
    return output


def ruled_relu(inputs: Tensor, rule: Rule, upper: float, inplace: bool) -> Tensor:
    """Compute a ReLU with a rule for its backward pass. A mode around may put another activation in its place."""
    if has_torch_function((inputs,)):
        output: Tensor = handle_torch_function(ruled_relu, (inputs,), inputs, rule, upper, inplace)
        return output
    return ruled(inputs, rule, ReLU(upper), inplace)


class RuledCalls(RectifierCalls):
    """While active, every rectifier is made with the rule; `met` counts them."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.met = 0

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier with the rule, and a gate with its own gradient."""
        self.met += not rectifier.is_gate
        rule = _no_rule if rectifier.is_gate else self.rule
        output = rectifier.compute(lambda inputs, upper, inplace: ruled_relu(inputs, rule, upper, inplace))
        if is_checkpointed():
            raise _unseen("a checkpoint")
        return output


@contextmanager
def relu_rule(rule: Rule) -> Iterator[RuledCalls]:
    """Make every ReLU that runs inside the ``with`` block use a rule in its backward pass.

    Compiled modules run uncompiled inside the block. The block need only cover the forward pass. The rule holds in
    every backward pass through what ran inside, a second one too, unless `first_order` ends it before.
    """
    with uncompiled(), RuledCalls(rule) as calls:
        yield calls


def check_rule_held(module: nn.Module, logits: Tensor, images: Tensor, calls: RuledCalls) -> None:
    """Raise `MethodError` unless the rule reached every activation, one at least, from the images to the logits.

    Gates and attention (sigmoid, tanh, softmax) are no rectifiers and keep their own gradient.
    """
    check_activations(module, logits, images, calls)
    if not calls.met:
        raise MethodError("This method needs a network with ReLUs, and none ran between the images and the logits.")


def check_activations(module: nn.Module, logits: Tensor, images: Tensor, calls: RectifierCalls) -> None:
    """Raise `MethodError` if there may be an activation that is no ReLU, or one that ran where it was not seen."""
    if is_scripted(module):
        raise _unseen("a ScriptModule")
    steps = steps_between(logits, images, calls.followed or Followed(images))
    if steps.unknown:
        raise MethodError(
            "This method needs a network whose activations are ReLU, ReLU6 or Hardtanh(0, h); this one uses "
            f"{', '.join(sorted(steps.unknown))}. Spell a rectifier as torch.relu, or use a method without a ReLU "
            "rule, such as gradient or gradcam."
        )
    if steps.unseen:
        raise _unseen(", ".join(sorted(steps.unseen)))


def _unseen(part: str) -> MethodError:
    return MethodError(
        "A part of this model runs where its ReLUs cannot be given a rule: scripted, traced, compiled as a function, "
        f"checkpointed or in another thread ({part}). Give the plain Python module, without checkpoints."
    )
