"""The operations of a forward pass with their relevance rules: what shares a logit is put in place of what computes it.

While `RelevanceCalls` is active, every operation through which relevance must be shared is replaced by an autograd
function that shares it (`flow`), by the rule for its kind (`shares`), however the model spells the call (`calls`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from whyfooled.errors import MethodError
from whyfooled.saliency.backward.attention import Attention, as_attention, as_norm, attend_with_heads
from whyfooled.saliency.backward.calls import (
    CONVOLUTIONS,
    LAYERS,
    MIXTURES,
    Call,
    as_affine,
    as_layer,
    keeps_sign,
    per_channel,
    tensors_in,
)
from whyfooled.saliency.backward.doubts import Step
from whyfooled.saliency.backward.elementwise import title_of, written_by
from whyfooled.saliency.backward.flow import (
    HardGateRelevance,
    HeldRelevance,
    MixedRelevance,
    PassedRelevance,
    ProductRelevance,
    SoftmaxRelevance,
    SumRelevance,
    WeightedRelevance,
    gated,
    share_by,
)
from whyfooled.saliency.backward.followed import Followed
from whyfooled.saliency.backward.gates import Gated
from whyfooled.saliency.backward.graph import (
    is_checkpointed,
)
from whyfooled.saliency.backward.rectifiers import Rectifier, as_relu
from whyfooled.saliency.backward.shares import STABILISER, FirstRule, Layer, Rule
from whyfooled.saliency.backward.twice import Twice

Attending = Literal["value", "attnlrp"]


@dataclass(frozen=True)
class Rules:
    """Which rule holds where.

    Parameters
    ----------
    convolution, linear
        The rules of these layers.
    first
        The rule of the layers that see the image itself (normalised, padded, …, but not yet weighted); their own if
        None.
    epsilon
        ε where layer norms, attention and products of signals share.
    attention
        Whether relevance goes to the values alone, through held weights, or to queries and keys, too.
    """

    convolution: Rule
    linear: Rule
    first: FirstRule | None
    epsilon: float = STABILISER
    attention: Attending = "value"


class RelevanceCalls(TorchFunctionMode):
    """While active, operations on what depends on the images are made with their relevance rule.

    ``refused`` names what was met in a place where the graph cannot show it.
    """

    def __init__(self, rules: Rules, images: Tensor, twice: Twice) -> None:
        super().__init__()
        self.rules = rules
        self.twice = twice
        self.images = images
        self.refused: set[str] = set()
        # Constants of the model that are no image and take shares: what is joined to it, and what is added.
        self.joined: list[Tensor] = []
        self.added: list[Tensor] = []
        self._followed = Followed(images, gates=True)
        # What attention weights its values by: a softmax, and what is linear in one.
        self._weights = WeakTensorKeyDictionary()
        # What a tensor that is still image would be for a black and for a white image: the box of its values.
        self._boxes = WeakTensorKeyDictionary()
        self._boxes[images] = (torch.zeros_like(images), torch.ones_like(images))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        step = self._followed.before(call)
        signals = [tensor for tensor in call.tensors if self._depends(tensor)]
        if not signals:
            # What is made of parameters alone is a constant, so that whatever has a graph depends on the images.
            with torch.no_grad() if any(tensor.requires_grad for tensor in call.tensors) else nullcontext():
                constant = call()
            self._followed.after(step, constant)
            return constant
        if is_checkpointed():
            raise MethodError(
                "A part of this model is checkpointed, and runs again where its operations cannot be given a relevance "
                "rule. Give the model without checkpoints."
            )
        if func is F.multi_head_attention_forward:
            with self:
                attended = attend_with_heads(call)
            if attended is not None:
                return attended
        result = self._checked(step, signals)
        self._followed.after(step, result)
        self._note_weights(call, signals, result)
        made = list(tensors_in(result))
        is_image = call.name not in LAYERS and all(signal in self._boxes for signal in signals)
        if is_image and (made or func is Tensor.__setitem__):
            self._follow(call, made)
        return result

    def _checked(self, step: Step, signals: list[Tensor]) -> Any:
        """Make a call, and note if it may be an activation that turns the sign of its input around."""
        is_doubtful = step.doubt is not None and step.doubt.bends
        inputs = [signal.detach().clone() for signal in signals] if is_doubtful else []
        ruled = self._ruled(step, signals)
        result = self._plain(step.call, signals) if ruled is None else ruled
        if step.doubt is not None:
            output = step.call.args[0] if result is None else result
            if any(_turns_sign(values, output) for values in inputs):
                self.refused.add(step.doubt.step)
        return result

    def _depends(self, tensor: Tensor) -> bool:
        return tensor.grad_fn is not None or tensor is self.images

    def _follow(self, call: Call, made: list[Tensor]) -> None:
        """Make a call on what is still image for a black and for a white image, too."""
        with torch.no_grad():
            black = call.of(lambda tensor: self._boxes[tensor][0] if tensor in self._boxes else tensor)
            white = call.of(lambda tensor: self._boxes[tensor][1] if tensor in self._boxes else tensor)
        for tensor, low, high in zip(made, tensors_in(black), tensors_in(white), strict=True):
            self._boxes[tensor] = (low, high)

    def _ruled(self, step: Step, signals: list[Tensor]) -> Any:
        """Make the call with its rule; None if it has none."""
        call, given = step.call, step.call.given
        held = self._held(step, signals)
        if held is not None:
            return held
        alone = len(signals) == 1 and given.get("input") is signals[0]
        if call.name in LAYERS:
            return self._weighted(call, signals)
        if call.name in MIXTURES and alone and given.get("mode") != "bicubic":
            equally = self.rules.first is not None and signals[0] in self._boxes
            return self._share(MixedRelevance, call, signals[0], call.of_input(), equally)
        if step.rectifier is not None and as_relu(call) is None and call.function is not Tensor.__setitem__:
            return self._pass_rectified(step.rectifier)
        if step.gated is not None and not keeps_sign(call.name, given):
            return step.gated.compute(partial(self._pass_gated, call))
        if keeps_sign(call.name, given) and alone:
            is_gate = step.rectifier is not None and step.rectifier.is_gate
            return self._share(HardGateRelevance if is_gate else PassedRelevance, call, signals[0], None)
        if call.name in ("add", "sub") and (len(signals) == 2 or (call.in_place and not alone)):
            term = self._held_values(given["other"]) * (given.get("alpha", 1) * (1 if call.name == "add" else -1))
            return self._share(SumRelevance, call, given["input"], given["other"], (term,))
        if call.name == "mul" and len(signals) == 2:
            signal = None if step.shares_source else gated(given["input"], given["other"])
            in_other = call.in_place and signal is not given["input"]
            if signal is None and not step.shares_source and not call.in_place:
                factors = given["input"], given["other"]
                return self._share(ProductRelevance, call, *factors, torch.mul, self.rules.epsilon)
            return None if signal is None or in_other else self._share(PassedRelevance, call, signal, None)
        if call.function in _JOINING and len(signals) < len(call.tensors):
            return self._join(call, signals)
        return self._affine(call, signals[0]) if len(signals) == 1 else None

    def _held(self, step: Step, signals: list[Tensor]) -> Any:
        """Make a normalisation or attention with its rule; None if a call is neither."""
        call, epsilon = step.call, self.rules.epsilon
        norm = as_norm(call, again=self.twice.again) if len(signals) == 1 else None
        if norm is not None:
            return self._share(HeldRelevance, call, norm.inputs, norm.linear, norm.bias, epsilon)
        if self.rules.attention == "attnlrp" and title_of(call) == "softmax" and len(signals) == 1:
            return self._share(SoftmaxRelevance, call, signals[0], _axis_of(call))
        attention = as_attention(call)
        if attention is not None:
            return self._attend(attention)
        if title_of(call) in _PRODUCTS and len(call.tensors) == len(signals) == 2 and signals[0] is not signals[1]:
            return self._multiply(call, signals)
        return None

    def _attend(self, attention: Attention) -> Tensor:
        """Compute attention, with relevance for the values alone, or step by step with the rules of its steps."""
        if self.rules.attention == "attnlrp":
            with self:
                return attention.logits().softmax(-1) @ attention.values
        with nullcontext() if self.twice.again else torch.no_grad():
            weights = attention.logits().softmax(-1)

        def weigh(values: Tensor) -> Tensor:
            return weights @ values

        compute = partial(weigh, attention.values)
        return self._share(HeldRelevance, compute, attention.values, weigh, 0.0, self.rules.epsilon)

    def _multiply(self, call: Call, signals: list[Tensor]) -> Any:
        """Make a product of two signals as matrices: of weights of attention and what they weigh, or of any two."""
        first, second = signals

        def multiply(left: Tensor, right: Tensor) -> Tensor:
            product: Tensor = call.of(lambda tensor: left if tensor is first else right)
            return product

        if self.rules.attention == "attnlrp":
            return self._share(ProductRelevance, call, first, second, multiply, self.rules.epsilon)
        weighed = [signal for signal in signals if signal not in self._weights]
        if len(weighed) != 1:
            return None
        by_first = weighed[0] is second
        weights = self._held_values(first if by_first else second)

        def weigh(values: Tensor) -> Tensor:
            return multiply(weights, values) if by_first else multiply(values, weights)

        return self._share(HeldRelevance, call, weighed[0], weigh, 0.0, self.rules.epsilon)

    def _held_values(self, values: Tensor) -> Tensor:
        """Return values by which relevance is shared and which receive none: without their graph, if it is no use."""
        return values if self.twice.again else values.detach()

    def _share(self, function: Any, compute: Callable[[], Any], *args: Any) -> Tensor:
        """Make an operation, or a call, that shares relevance by a function of `flow`."""
        if self.twice.again and isinstance(compute, Call):
            target = written_by(compute)
            output = share_by(function, self.twice, partial(_make_anew, compute), *args)
            # What the call would overwrite is kept until its own gradient is taken.
            return output if target is None else target.copy_(output)
        return share_by(function, self.twice, compute, *args)

    def _pass_rectified(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier that passes on all the relevance that it receives."""
        relevance = HardGateRelevance if rectifier.is_gate else PassedRelevance

        def rectify(inputs: Tensor, upper: float, _: bool) -> Tensor:
            return self._share(relevance, lambda: inputs.clamp(0, upper) * rectifier.scale, inputs, None)

        return replace(rectifier, scale=1.0).compute(rectify)

    def _pass_gated(self, call: Call, inputs: Tensor, activation: Gated, inplace: bool) -> Tensor:
        """Compute an activation whose gate is held: it passes on all that it receives."""
        # What it gave is known without its graph.
        compute = partial(_make_anew, call) if self.twice.again else partial(activation.value, inputs)
        output = self._share(PassedRelevance, compute, inputs, None)
        return inputs.copy_(output) if inplace else output

    def _note_weights(self, call: Call, signals: list[Tensor], result: Any) -> None:
        """Note what attention weights its values by, so that it is known where they meet."""
        if title_of(call) == "softmax" or all(signal in self._weights for signal in signals):
            for tensor in tensors_in(result):
                self._weights[tensor] = True

    def _join(self, call: Call, signals: list[Tensor]) -> Any:
        """Join constants, such as a class token, to signals, and note what they receive."""
        known = {id(signal) for signal in signals}
        constants = {
            id(tensor): tensor.detach().clone().requires_grad_() for tensor in call.tensors if id(tensor) not in known
        }
        self.joined += constants.values()
        return call.of(lambda tensor: constants.get(id(tensor), tensor))

    def _weighted(self, call: Call, signals: list[Tensor]) -> Any:
        inputs_and_layer = as_layer(call)
        if inputs_and_layer is None or len(signals) != 1 or signals[0] is not inputs_and_layer[0]:
            return None
        inputs, layer = inputs_and_layer
        rule = self.rules.convolution if call.name in CONVOLUTIONS else self.rules.linear
        return self._share(WeightedRelevance, call, inputs, self._first_rule(inputs) or rule, layer)

    def _first_rule(self, inputs: Tensor) -> Rule | None:
        """Return the rule of a layer that sees what is still image; None for its own, or if it sees something else."""
        first = self.rules.first
        if first is None or inputs not in self._boxes:
            return None
        ends = self._boxes[inputs]
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        return lambda layer, values, relevance: first(layer, values, relevance, low, high)

    def _affine(self, call: Call, signal: Tensor) -> Any:
        scale_and_shift = as_affine(call.name, call.given, signal)
        if scale_and_shift is None or (call.in_place and call.given["input"] is not signal):
            return None
        scale, shift = scale_and_shift
        if signal in self._boxes:
            return self._share(PassedRelevance, call, signal, None)
        if call.name == "add" and scale == 1 and _is_of_places(shift, signal) and not call.in_place:
            return self._add(call, signal, cast(Tensor, shift))
        producer, layer = layer_behind(signal)
        if layer is not None and not call.in_place:
            scales = per_channel(scale, signal, layer.channel)
            shifts = per_channel(0.0 if shift is None else shift, signal, layer.channel)
            if scales is not None and shifts is not None:
                fused = layer.followed_by(scales, shifts)
                return self._share(WeightedRelevance, call, producer.saved_tensors[0], producer.rule, fused)
        return self._share(PassedRelevance, call, signal, shift)

    def _add(self, call: Call, signal: Tensor, shift: Tensor) -> Tensor:
        """Add a constant that is another for each place, such as positions, and note what it receives."""
        term = shift.expand(signal.shape).clone().requires_grad_()
        self.added.append(term)
        return self._share(SumRelevance, call, signal, term, (term.detach(),))

    def _plain(self, call: Call, signals: list[Tensor]) -> Any:
        views = [(tensor, tensor._version) for tensor in signals if tensor._is_view()]
        result = call()
        # Behind a change of a view in place, the graph shows that something was written and not what.
        if call.function not in _WRITING and any(tensor._version != version for tensor, version in views):
            self.refused.add(call.function.__name__)
        return result


def _make_anew(call: Call) -> Tensor:
    """Make a call on a copy of what it writes into, if it writes into something."""
    target = written_by(call)
    output: Tensor = call.of(lambda tensor: tensor.clone() if tensor is target else tensor)
    return output


def _is_of_places(shift: Any, signal: Tensor) -> bool:
    """Tell whether a constant is more than a bias: as many axes as tokens, or places of its own."""
    if not isinstance(shift, Tensor) or shift.ndim != signal.ndim or shift.numel() == 1:
        return False
    return signal.ndim == 3 or (signal.ndim == 4 and min(shift.shape[-2:]) > 1)


def _axis_of(call: Call) -> int:
    """Return the axis along which a softmax is taken."""
    axis = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
    return -1 if axis is None else int(axis)


_PRODUCTS = ("matmul", "bmm", "einsum")
_JOINING = (torch.cat, torch.concat, torch.concatenate)


def _turns_sign(inputs: Tensor, outputs: Any) -> bool:
    """Tell whether outputs are not of the sign of the inputs in their places, or 0."""
    if not isinstance(outputs, Tensor) or inputs.shape != outputs.shape:
        return False
    turned = (inputs * outputs < 0) | ((inputs == 0) & (outputs != 0))
    return bool(turned.any())


_WRITING = (Tensor.copy_, Tensor.__setitem__, Tensor.fill_, Tensor.zero_, Tensor.masked_fill_, Tensor.index_put_)


def layer_behind(outputs: Tensor) -> tuple[Any, Layer | None]:
    """Return the node of the graph that made a tensor, and its layer if it is one."""
    node = outputs.grad_fn
    layer = getattr(node, "layer", None)
    return node, layer if isinstance(layer, Layer) else None
