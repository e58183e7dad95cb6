"""Input-gradient regularisation: the penalty that others are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.dependence import differentiate
from whyfooled.defences.penalty import Penalty, check_weight
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import ruled_logits
from whyfooled.saliency.backward.graph import plain_attention
from whyfooled.types import Classes, Images, PerImage


@final
@dataclass(frozen=True)
class InputGradientPenalty(Penalty):
    """Penalise a network by how steeply its loss changes with the image: ``‖∂/∂x cross-entropy(z(x), label)‖²``.

    Double backpropagation (Drucker & LeCun 1992), as Ross & Doshi-Velez (2018) use it against adversarial images. It is
    the sum over all values of an image. Rectifiers stay as they are: their slope is a product of weights, and has a
    derivative of its own.

    Parameters
    ----------
    weight
        What the penalty is multiplied by, at least 0; at 0 nothing is computed.
    """

    weight: float = 1.0

    card: ClassVar[Card] = Card(
        name="input-gradient",
        title="Input-gradient penalty",
        summary="The squared length of the gradient of the loss with respect to the image.",
        source="Ross & Doshi-Velez 2018, arXiv 1711.09404, sec. 3",
        cost="1 forward, 1 backward, differentiated",
    )

    def __post_init__(self) -> None:
        check_weight(self.weight)

    @one_thread()
    def measure(
        self, classifier: Classifier, images: Images, labels: Classes, *, create_graph: bool = True
    ) -> PerImage:
        """Compute (n,) the squared length of each image's gradient."""
        with torch.enable_grad(), plain_attention():
            inputs = images.detach().clone().requires_grad_()
            logits = ruled_logits(classifier, inputs, None)
            check_classes(labels, logits)
            loss = F.cross_entropy(logits, labels.long(), reduction="sum")
            slopes = differentiate(loss, inputs, create_graph=create_graph)
            return slopes.square().sum((1, 2, 3))
