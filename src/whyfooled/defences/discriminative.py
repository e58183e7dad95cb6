"""A penalty on discriminative maps: how much they change under a small perturbation, or how concentrated they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.dependence import differentiate
from whyfooled.defences.penalty import Penalty, check_weight
from whyfooled.errors import bad_parameter, one_of
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import ruled_logits
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.saliency.enhanced import Enhanced
from whyfooled.saliency.interpretations import Interpretations, check_beta, interpretation, smoothed
from whyfooled.tensors.balls import check_epsilon
from whyfooled.types import Classes, Images, PerImage

Form = Literal["stability", "concentration"]
FORMS: tuple[Form, ...] = ("stability", "concentration")


@final
@dataclass(frozen=True)
class DiscriminativePenalty(Penalty):
    """Penalise a network by its discriminative maps, those of the true class against its strongest rival.

    Gu & Tresp 2019 (sec. 5) propose such maps for training, "so that the rank of logits is not easily changed", and say
    no more. Both forms are [ours]. ``I(x)`` is the enhanced map ``Dis`` of the true class against the largest other
    logit, its channels summed and divided by the sum over the pixels.

    ``"stability"``: ``1 − cos(I(x), I(x'))``, from 0 for the same map to 1 for maps that have no pixel in common. x' is
    one step away: each value moves by ε to the side on which the true class loses its lead over the rival, as an
    attack's first step does. It is that and not noise, because noise hardly moves a map (on a ResNet-20 for CIFAR-10 at
    2/255, by .07 against .42), and because nothing is drawn then: a run is the same again without any seed. x' is held
    where the penalty is differentiated.

    ``"concentration"``: ``1 + log(Σ I²) / log(h·w)``, 1 less the Rényi entropy of order 2 as a share of its largest:
    0 for an even map, 1 for one of a single pixel. What hangs on few pixels is changed by changing few.

    An empty map is not concentrated; it is stable beside another empty one, and as far as can be from any other.

    Parameters
    ----------
    form
        ``"stability"`` or ``"concentration"``.
    weight
        What the penalty is multiplied by, at least 0; at 0 nothing is computed.
    epsilon
        How far each value moves, for values in [0, 1]; ``"stability"`` alone has use for it.
    method
        The enhanced method whose map is taken; its base method must take ``create_graph``.
    beta
        Sharpness of the smooth activations, see `whyfooled.saliency.smooth_activations`; None for the true ones. The
        map of a network of ReLUs jumps wherever one opens, and its slope knows nothing of that.
    """

    form: Form = "stability"
    weight: float = 1.0
    epsilon: float = 4 / 255
    method: Enhanced = field(default_factory=Enhanced)
    beta: float | None = 30.0

    card: ClassVar[Card] = Card(
        name="discriminative",
        title="Discriminative penalty",
        summary="How much the map of the true class against its rival changes under a step, or how concentrated it is.",
        source="after Gu & Tresp 2019, arXiv 1908.08413, sec. 5",
        cost="4 forwards, 5 backwards (concentration: 2 and 2), of which the maps' are differentiated",
    )

    def __post_init__(self) -> None:
        one_of("form", self.form, FORMS)
        check_weight(self.weight)
        check_epsilon(self.epsilon, "linf")
        if not isinstance(self.method, Enhanced):
            raise bad_parameter("method", "must be an Enhanced method, such as Enhanced()", repr(self.method))
        check_differentiable(self.method)
        check_beta(self.beta)

    @one_thread()
    def measure(
        self, classifier: Classifier, images: Images, labels: Classes, *, create_graph: bool = True
    ) -> PerImage:
        """Compute (n,) the penalty of each image, without the weight, from 0 to 1."""
        rival = strongest_other(classifier.logits(images), labels)

        def show(seen: Images) -> Interpretations:
            inputs = seen.clone().requires_grad_() if create_graph else seen
            with smoothed(self.beta):
                return interpretation(
                    self.method(classifier, inputs, labels, contrast=rival, create_graph=create_graph)
                )

        if self.form == "concentration":
            return concentration(show(images))
        moved = step_to_rival(classifier, images, labels, rival, self.epsilon)
        return change(show(images), show(moved))


def step_to_rival(classifier: Classifier, images: Images, labels: Classes, rival: Classes, epsilon: float) -> Images:
    """Move each value by epsilon to where the true class loses its lead over the rival, as far as [0, 1] goes."""
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        logits = ruled_logits(classifier, inputs, None)
        leading, following = (logits.gather(1, classes.long().unsqueeze(1)) for classes in (labels, rival))
        slope = differentiate((leading - following).sum(), inputs)
    return (images - epsilon * slope.sign()).clamp(0, 1)


def change(maps: Interpretations, others: Interpretations) -> PerImage:
    """Return (n,) 1 minus the cosine of two maps: 0 where both are empty, 1 where one of them is. Differentiable."""
    first, second = maps.flatten(1), others.flatten(1)
    empty, also = ~first.any(1), ~second.any(1)
    # An empty map has no cosine, and what is computed of one must not reach the slope of the others as NaN.
    there = ~(empty | also).unsqueeze(1)
    cosine = F.cosine_similarity(first.where(there, 1), second.where(there, 1), dim=1)
    return torch.where(there[:, 0], 1 - cosine, (empty ^ also).to(first))


def concentration(maps: Interpretations) -> PerImage:
    """Return (n,) 1 minus the Rényi entropy of order 2 of maps, as a share of an even one's; 0 for an empty map."""
    shares = maps.flatten(1)
    there = shares.any(1)
    together = shares.square().sum(1).where(there, 1)
    # A map of one pixel is concentrated, whatever it holds.
    return torch.where(there, 1 + together.log() / math.log(max(shares.shape[1], 2)), 0)
