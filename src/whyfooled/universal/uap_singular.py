"""UAP by singular vectors: the direction that changes a layer's values most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.dependence import is_differentiable
from whyfooled.classifier.layers import find_layers, watch_layers
from whyfooled.errors import MethodError, at_least
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import plain_logits
from whyfooled.saliency.backward.graph import plain_attention
from whyfooled.types import Image, Images
from whyfooled.universal._choice import Doubt, choose_best
from whyfooled.universal._fitting import Fitting, Part
from whyfooled.universal._method import UniversalMethod


@final
@dataclass(frozen=True)
class SingularUAP(UniversalMethod):
    """The (p,q)-singular vector of a layer's Jacobians (Khrulkov & Oseledets 2018, sec. 3, algorithm 1).

    With the Jacobian J_i of a layer's values at image i, it is the v with ``‖v‖_p = 1`` that makes ``Σ ‖J_i v‖_q^q``
    large: what changes the layer most, to first order. p is 2 in the l2 ball and ∞ in the l-infinity ball. A power
    method finds it, with ``ψ_r(a) = sign(a) |a|^(r−1)`` and 1/p + 1/p' = 1:

        v ← ψ_{p'}(Σ J_iᵀ ψ_q(J_i v)), brought to ‖v‖_p = 1.

    No Jacobian is ever kept: the products cost a few passes. The sums go over all fitting images, where the paper takes
    64 of them. It uses no classes; the sign, which a singular vector has none of, is the one of the two under which
    the fitting images' classes are less probable [ours].

    Parameters
    ----------
    q
        The norm that measures the layer's values, at least 1; the paper finds 10 better than 2.
    layer
        Name of the layer (as in ``module.named_modules()``), its last output if it runs more than once; "" takes the
        logits. In the paper, early layers are better than late ones.
    passes
        Passes over the images, one for each turn of the power method. [ours]
    """

    q: float = 10.0
    layer: str = ""
    passes: int = 20

    card: ClassVar[Card] = Card(
        name="uap-singular",
        title="UAP by singular vectors",
        summary="The direction along which the values of a layer change most, to first order.",
        source="Khrulkov & Oseledets 2018, arXiv 1709.03582, sec. 3, algorithm 1",
        cost="3 forwards, then for each of `passes`: 1 forward and 2 backwards, the first of which is differentiated",
    )
    breaks_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("q", self.q, 1)
        at_least("passes", self.passes, 1)

    def find(self, fit: Fitting) -> Image:
        """Turn a random vector towards a singular one, and choose its sign."""
        vector = self._unit(fit.start().double())
        for number in range(self.passes):
            step = JacobianStep(vector.float(), self.layer, self.q)
            sums = fit.total(step, doing=f"pass {number + 1} of {self.passes}")
            if not sums["turned"].any():
                raise MethodError(
                    f"The values of {self._place()} do not change with any image, to first order, or so little that "
                    f"q={self.q:g} loses them: there is no singular vector. Name another layer, or take a smaller q."
                )
            if not sums["turned"].isfinite().all():
                raise MethodError(f"The values of {self._place()} are too large for q={self.q:g}. Take a smaller q.")
            before, vector = vector, self._unit(sums["turned"])
            agreement = float(F.cosine_similarity(before.flatten(), vector.flatten(), dim=0))
            fit.history.append({"size": float(sums["size"]) ** (1 / self.q), "agreement": agreement})
        return choose_best(fit, [self.largest(vector.float())], Doubt(), "probability of other classes")

    def _unit(self, direction: Tensor) -> Tensor:
        return direction.sign() if self.ball == "linf" else direction / direction.norm()

    def _place(self) -> str:
        return f"the layer {self.layer!r}" if self.layer else "the logits"


@final
@dataclass(frozen=True, eq=False)
class JacobianStep:
    """One turn of the power method on a part: ``Σ Jᵀ ψ_q(J v)``, and ``Σ ‖J v‖_q^q``."""

    vector: Image
    layer: str
    q: float

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add them up."""
        inputs = part.images.clone().requires_grad_()
        with plain_attention():
            values = run_to_layer(classifier, inputs, self.layer)
        pushed = _push(values, inputs, self.vector.to(inputs).expand_as(inputs))
        # Powers of 9 leave single precision soon; only their ratios are in it.
        largest = pushed.abs().max().clamp_min(torch.finfo(pushed.dtype).tiny)
        powers = (pushed / largest).abs() ** (self.q - 1) * pushed.sign()
        (turned,) = torch.autograd.grad(values, inputs, powers)
        factor = largest.double() ** (self.q - 1)
        return {
            "turned": turned.sum(0).double() * factor,
            "size": (powers * pushed).sum().double() * factor,
        }


def _push(values: Tensor, inputs: Images, vectors: Images) -> Tensor:
    """Multiply the Jacobian of values with vectors: the pull-back ``u -> Jᵀ u`` is linear, and this its transpose."""
    probe = torch.zeros_like(values, requires_grad=True)
    (pulled,) = torch.autograd.grad(values, inputs, probe, create_graph=True)
    (pushed,) = torch.autograd.grad(pulled, probe, vectors)
    return pushed


def run_to_layer(classifier: Classifier, images: Images, layer: str) -> Tensor:
    """Run the classifier, and return (n,…) the values of a layer, or the logits if its name is "", with their graph.

    Raises
    ------
    ParameterError
        If there is no such layer.
    MethodError
        If the layer does not run, or gives anything but a tensor with one row for each image, from the images.
    """
    if not layer:
        return plain_logits(classifier, images)
    seen: list[Tensor] = []
    # Copied, because what follows may work on it in place.
    with watch_layers(
        find_layers(classifier.module, layer), lambda name, part, given, output: seen.append(output.clone())
    ):
        plain_logits(classifier, images)
    if not seen or not is_differentiable(seen[-1], images) or seen[-1].ndim < 2 or len(seen[-1]) != len(images):
        raise MethodError(
            f"The layer {layer!r} must give a tensor that has a row for each image and depends on the images."
        )
    return seen[-1]
