"""How relevance is shared among the inputs of one operation: the rules of layer-wise relevance propagation.

Every rule has one form. The output of a layer is a sum of terms, ``z = Σ v w (+ b)``, with values `v` and weights `w`
made of the layer's own; an input receives the part of the relevance that its terms have in that sum,
``v Σ_j w_j R_j / z_j``. The sum over `j` is the layer's transposed linear map, so automatic differentiation of the
layer computes it, for convolutions of any stride, padding, dilation and groups.

In a backward pass that is differentiated again (where PyTorch leaves gradients switched on), what a rule computes keeps
its graph, to the values and to the relevance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

STABILISER = 1e-9
"""What keeps a denominator from 0 where a rule has no ε of its own, relative to the outputs' root mean square."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or a linear layer, with any batch norm after it fused into its weights.

    Parameters
    ----------
    apply
        The layer as a function of input and weights, without its bias.
    weight, bias
        The weights, output channels first, and one number for each output channel, or None.
    channel
        The dimension of the channels in the output, counted from the last (−3 for images, −1 for features).
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None
    channel: int

    def followed_by(self, scale: Tensor, shift: Tensor) -> Layer:
        """Return the layer that gives ``scale · z + shift``, one number of each for each output channel."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias * scale + shift)

    def biased(self, outputs: Tensor, bias: Tensor | None) -> Tensor:
        """Add one number for each channel to outputs."""
        return outputs if bias is None else outputs + bias.view(-1, *[1] * (-1 - self.channel))


Rule = Callable[[Layer, Tensor, Tensor], Tensor]
"""(layer, its inputs, relevance of its outputs) -> relevance of its inputs."""

FirstRule = Callable[[Layer, Tensor, Tensor, Tensor, Tensor], Tensor]
"""The same, with the lowest and the highest values that the inputs can have."""


def epsilon_rule(layer: Layer, inputs: Tensor, relevance: Tensor, *, epsilon: float) -> Tensor:
    """Share by the terms of the output, the bias among them, and let ε take a part (Bach et al. 2015, eq. 58)."""
    return _share(layer, [(inputs, layer.weight)], layer.bias, relevance, epsilon)


def alpha_beta_rule(layer: Layer, inputs: Tensor, relevance: Tensor, *, alpha: float, bias: bool) -> Tensor:
    """Share α among the positive terms and 1 − α among the negative ones (Bach et al. 2015, eq. 60)."""
    positive, negative = layer.weight.clamp_min(0), layer.weight.clamp_max(0)
    above = below = None
    if bias and layer.bias is not None:
        above, below = layer.bias.clamp_min(0), layer.bias.clamp_max(0)
    shared = alpha * _share(layer, _signed_terms(inputs, positive, negative), above, relevance)
    if alpha != 1:
        shared -= (alpha - 1) * _share(layer, _signed_terms(inputs, negative, positive), below, relevance)
    return shared


def _signed_terms(inputs: Tensor, positive: Tensor, negative: Tensor) -> list[tuple[Tensor, Tensor]]:
    # After a ReLU the terms of negative inputs are all 0, and half of the work.
    if not bool((inputs < 0).any()):
        return [(inputs, positive)]
    return [(inputs.clamp_min(0), positive), (inputs.clamp_max(0), negative)]


def box_rule(layer: Layer, inputs: Tensor, relevance: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Share by what the inputs add to the lowest output possible in their box (the z^B-rule, Montavon et al. 2017)."""
    terms = [(inputs, layer.weight), (low, -layer.weight.clamp_min(0)), (high, -layer.weight.clamp_max(0))]
    return _share(layer, terms, None, relevance)


def flat_rule(layer: Layer, inputs: Tensor, relevance: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Share equally among the inputs that an output is computed from (Lapuschkin et al. 2019)."""
    return _share(layer, [(torch.ones_like(inputs), torch.ones_like(layer.weight))], None, relevance)


def mixture_rule(mix: Callable[[Tensor], Tensor], values: Tensor, relevance: Tensor) -> Tensor:
    """Share by the terms of a sum or mean of values, with the weights that it gives them."""
    return held_rule(mix, values, 0.0, relevance, STABILISER)


def held_rule(
    linear: Callable[[Tensor], Tensor], values: Tensor, bias: Tensor | float, relevance: Tensor, epsilon: float
) -> Tensor:
    """Share by the terms of what is linear in the values while everything else in it is held, the bias among them."""
    outputs, pull = _linearised(lambda inputs: linear(*inputs), [values])
    (gradient,) = pull(divide(relevance, stabilised(outputs + bias, epsilon)))
    return gradient * values


def _share(
    layer: Layer,
    terms: list[tuple[Tensor, Tensor]],
    bias: Tensor | None,
    relevance: Tensor,
    epsilon: float = STABILISER,
) -> Tensor:
    def weigh(inputs: Sequence[Tensor]) -> Tensor:
        outputs = layer.apply(inputs[0], terms[0][1])
        for values, (_, weight) in zip(inputs[1:], terms[1:], strict=True):
            outputs = outputs + layer.apply(values, weight)
        return outputs

    outputs, pull = _linearised(weigh, [values for values, _ in terms])
    gradients = pull(divide(relevance, stabilised(layer.biased(outputs, bias), epsilon)))
    shared = gradients[0] * terms[0][0]
    for gradient, (values, _) in zip(gradients[1:], terms[1:], strict=True):
        shared += gradient * values
    return shared


def _linearised(
    linear: Callable[[Sequence[Tensor]], Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """Compute what is linear in values; return it, and what takes weights of the outputs back to the values."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Others in name at least: what is held may be made of the same values.
        leaves = [
            each.view_as(each) if again and each.requires_grad else each.detach().requires_grad_() for each in values
        ]
        outputs = linear(leaves)

    def pull(weights: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs, leaves, weights, create_graph=again)

    return outputs if again else outputs.detach(), pull


def stabilised(outputs: Tensor, epsilon: float) -> Tensor:
    """Move outputs away from 0 by ε times the root mean square of the outputs for the same image."""
    if epsilon == 0:
        return outputs
    size = torch.linalg.vector_norm(outputs.flatten(1), dim=1) / outputs[0].numel() ** 0.5
    step = (epsilon * size).view(-1, *[1] * (outputs.ndim - 1))
    return outputs + torch.where(outputs < 0, -step, step)


def divide(relevance: Tensor, whole: Tensor) -> Tensor:
    """Divide; where there is nothing to share among, the relevance is lost."""
    nothing = whole == 0
    # Never by 0, not even where the quotient is not taken: its derivative would be no number.
    return torch.where(nothing, 0, relevance / torch.where(nothing, 1, whole))
