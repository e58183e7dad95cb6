"""Rules at an activation: what a backward pass does with the gradient that arrives at one.

One mechanism serves them all: while `activation_rule` is active, every call of ReLU that PyTorch sees (a module's,
``F.relu``'s, ``x.relu()``'s, in place or not; ReLU6 and Hardtanh(0, h) too) is replaced by an autograd function with
the rule as its backward, and so is what computes the same in other words (`whyfooled.saliency.backward.followed`). For
a rule that says something of other activations, that is so for all with a gate (`whyfooled.saliency.backward.gates`).
The model is not touched, so nothing can be left on it, and an activation shared by two branches, or used twice, is
right by construction: the rule changes that node's own gradient and nothing else.

What the mechanism cannot reach is found afterwards, in the autograd graph itself: an activation that ran where it was
not seen (a scripted module, another thread), or anything that is not known to be no activation
(`whyfooled.saliency.backward.steps`), raises `MethodError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from whyfooled.errors import MethodError
from whyfooled.saliency.backward.followed import Followed, RectifierCalls
from whyfooled.saliency.backward.gates import Gated, GatedCall
from whyfooled.saliency.backward.graph import is_checkpointed, is_scripted, uncompiled
from whyfooled.saliency.backward.rectifiers import Rectifier
from whyfooled.saliency.backward.steps import steps_between


@dataclass(frozen=True, eq=False)
class Node:
    """An activation in a backward pass, with what it keeps for it."""

    activation: Activation
    kept: Tensor

    def own_gradient(self, gradient: Tensor) -> Tensor:
        """Compute the gradient at the input from the one at the output, by the derivative."""
        return self.activation.own_gradient(gradient, self.kept)

    def through_gate(self, gradient: Tensor) -> Tensor:
        """Compute it by the gate ``f(a) / a``; of a rectifier, that is its derivative."""
        return self.activation.through_gate(gradient, self.kept)


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule at activations.

    Parameters
    ----------
    back
        (gradient G at the output, the activation) -> gradient at the input.
    gates
        Whether it says something of all activations with a gate, or of rectifiers alone.
    """

    back: Callable[[Tensor, Node], Tensor]
    gates: bool = False


def _guided(gradient: Tensor, node: Node) -> Tensor:
    # After and not before: no gate is below 0, so the signs are the same, and this result is ours.
    return node.through_gate(gradient).relu_()


def _deconvnet(gradient: Tensor, node: Node) -> Tensor:
    return gradient.relu()


def _derivative(gradient: Tensor, node: Node) -> Tensor:
    return node.own_gradient(gradient)


guided = Rule(_guided, gates=True)
"""Let a positive gradient pass as far as the activation is open, by its gate: ``max(G, 0) · f(a) / a``.

At a ReLU that is ``max(G, 0) · 1[0 < a < upper]``, guided backpropagation (Springenberg et al. 2015).
"""

deconvnet = Rule(_deconvnet)
"""Let a positive gradient pass: ``max(G, 0)`` (Zeiler & Fergus 2014)."""


@contextmanager
def first_order(rule: Rule | None) -> Iterator[Rule | None]:
    """Yield the rule as one that holds inside the block; afterwards its activations have their own gradient.

    For maps that are differentiated again. A map is made of the gradient and of the values that the activations had,
    and these depend on the images as the network's values do: by the derivative, not by the rule.
    """
    if rule is None:
        yield None
        return
    current = rule.back
    try:
        yield replace(rule, back=lambda gradient, node: current(gradient, node))
    finally:
        current = _derivative


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

    def through_gate(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Compute it with ``f(a) / a`` in place of the derivative, differentiably."""
        ...


@dataclass(frozen=True)
class ReLU:
    """ReLU, or what is cut off at `upper`: ReLU6, Hardtanh(0, upper)."""

    upper: float
    beta: ClassVar[float] = float("inf")
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

    def through_gate(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Compute it by the gate: open or closed, as by the derivative."""
        return self.own_gradient(gradient, kept)


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
        return ctx.rule.back(gradients[0], Node(ctx.activation, kept)), None, None, None

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


def ruled_gated(inputs: Tensor, rule: Rule, activation: Gated, bends: str, inplace: bool) -> Tensor:
    """Compute another activation with a gate, and a rule. A mode around may object to one that `bends`."""
    if has_torch_function((inputs,)):
        output: Tensor = handle_torch_function(ruled_gated, (inputs,), inputs, rule, activation, bends, inplace)
        return output
    return ruled(inputs, rule, activation, inplace)


class RuledCalls(RectifierCalls):
    """While active, every activation that the rule is for is made with it; `met` counts them."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(self._activate if rule.gates else None)
        self.rule = rule
        self.met = 0

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier with the rule, and a hard gate with its own gradient."""
        self.met += not rectifier.is_gate
        rule = Rule(_derivative) if rectifier.is_gate else self.rule
        output = rectifier.compute(lambda inputs, upper, inplace: ruled_relu(inputs, rule, upper, inplace))
        return _checked(output)

    def _activate(self, gated: GatedCall) -> Tensor:
        self.met += 1
        return _checked(
            gated.compute(
                lambda inputs, activation, inplace: ruled_gated(inputs, self.rule, activation, gated.bends, inplace)
            )
        )


def _checked(output: Tensor) -> Tensor:
    if is_checkpointed():
        raise _unseen("a checkpoint")
    return output


@contextmanager
def activation_rule(rule: Rule) -> Iterator[RuledCalls]:
    """Make every activation that runs inside the ``with`` block use a rule in its backward pass, if it is for it.

    Compiled modules run uncompiled inside the block. The block need only cover the forward pass. The rule holds in
    every backward pass through what ran inside, a second one too, unless `first_order` ends it before.
    """
    with uncompiled(), RuledCalls(rule) as calls:
        yield calls


def check_rule_held(module: nn.Module, logits: Tensor, images: Tensor, calls: RuledCalls) -> None:
    """Raise `MethodError` unless the rule reached every activation, one at least, from the images to the logits.

    Gates and attention (sigmoid, tanh, softmax) are no activations here and keep their own gradient.
    """
    check_activations(module, logits, images, calls)
    if not calls.met:
        which = "activations" if calls.activate else "ReLUs"
        raise MethodError(f"This method needs a network with {which}, and none ran between the images and the logits.")


def check_activations(module: nn.Module, logits: Tensor, images: Tensor, calls: RectifierCalls) -> None:
    """Raise `MethodError` if there may be an activation without a rule, or one that ran where it was not seen."""
    if is_scripted(module):
        raise _unseen("a ScriptModule")
    steps = steps_between(logits, images, calls.followed or Followed(images))
    if steps.unknown:
        names = ", ".join(sorted(steps.unknown))
        raise MethodError((_NO_GATE if calls.activate else _NO_RECTIFIER).format(names))
    if steps.unseen:
        raise _unseen(", ".join(sorted(steps.unseen)))


_NO_RECTIFIER = (
    "This method needs a network whose activations are ReLU, ReLU6 or Hardtanh(0, h); this one uses {}. Spell a "
    "rectifier as torch.relu, or use a method without a ReLU rule, such as gradient or gradcam."
)
_NO_GATE = (
    "This method needs a network whose activations are 0 at 0 and keep the sign of what they take, such as ReLU, GELU, "
    "SiLU, Hardswish or ELU; this one uses {}. Use a method without a rule at activations, such as gradient or gradcam."
)


def _unseen(part: str) -> MethodError:
    return MethodError(
        "A part of this model runs where its activations cannot be given a rule: scripted, traced, compiled as a "
        f"function, checkpointed or in another thread ({part}). Give the plain Python module, without checkpoints."
    )
