"""The gradient of a logit, and the gradient times the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.errors import one_of
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import OUTPUTS, Output, class_gradients
from whyfooled.types import Images, ManyClasses, ManyMaps


@final
@dataclass(frozen=True)
class Gradient:
    """The gradient of the class's logit with respect to the image, with its sign (Simonyan et al. 2014).

    Parameters
    ----------
    output
        ``"logit"``, or ``"probability"``: the softmax of the logits (of several labels, each one's sigmoid), whose
        gradient depends on all classes, and vanishes where the classifier is sure. The authors of universal
        perturbations of interpretations took it.
    """

    output: Output = "logit"

    card: ClassVar[Card] = Card(
        name="gradient",
        title="Gradient",
        summary="How the class's logit changes with each pixel.",
        source="Simonyan, Vedaldi, Zisserman 2014, arXiv 1312.6034, sec. 3",
        cost="1 forward, 1 backward for each class",
    )

    def __post_init__(self) -> None:
        one_of("output", self.output, OUTPUTS)

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.
        """
        return class_gradients(classifier, images, classes, output=self.output, create_graph=create_graph)


@final
@dataclass(frozen=True)
class InputXGradient:
    """The gradient times the image: to first order, what each pixel adds to the logit (Shrikumar et al. 2016).

    The image is taken as it is, with values in [0, 1], so a black pixel has no attribution.
    """

    card: ClassVar[Card] = Card(
        name="input-x-gradient",
        title="Input × gradient",
        summary="To first order, what each pixel adds to the class's logit, compared with black.",
        source="Shrikumar, Greenside, Shcherbina, Kundaje 2016, arXiv 1605.01713",
        cost="1 forward, 1 backward for each class",
    )

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.
        """
        gradients = class_gradients(classifier, images, classes, create_graph=create_graph)
        return multiply_by_images(gradients, images, create_graph)


def multiply_by_images(gradients: ManyMaps, images: Images, create_graph: bool) -> ManyMaps:
    """Multiply gradients (n,c,h,w), or (n,k,c,h,w) of several classes, by the images (n,c,h,w) they are taken at."""
    factors = images if create_graph else images.detach()
    return gradients * (factors if gradients.ndim == images.ndim else factors.unsqueeze(1))
