"""Maps and their slopes: what every attack on interpretations is made of."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.saliency.differentiable import DifferentiableMethod
from whyfooled.saliency.interpretations import Interpretations, differentiate_maps, interpretation, quiet, smoothed
from whyfooled.types import Classes, Images, PerImage
from whyfooled.universal.dissimilarity import distance

Saliency = Callable[..., Tensor]
"""A saliency method."""

Measure = Callable[[Interpretations, Interpretations], PerImage]
"""What is measured of clean interpretations and those now."""


def interpret(saliency: Saliency, classifier: Classifier, images: Images, classes: Classes) -> Interpretations:
    """Compute the normalised maps, without a graph; one that is empty is 0 everywhere, without a warning."""
    with quiet():
        return interpretation(saliency(classifier, images, classes)).detach()


def slopes(
    saliency: DifferentiableMethod,
    classifier: Classifier,
    images: Images,
    classes: Classes,
    clean: Interpretations,
    beta: float | None,
    measure: Measure = distance,
) -> tuple[Images, PerImage]:
    """Differentiate each image's dissimilarity to a clean map, or another measure, with respect to the image.

    Parameters
    ----------
    saliency
        A method whose maps can be differentiated.
    images
        (n,c,h,w) Where the slopes are taken; their values may lie outside [0, 1].
    clean
        (n,h,w) The clean images' interpretations, with the same activations.
    beta
        Sharpness of the activations that take the place of ReLUs; the ReLUs themselves if None.
    measure
        What is differentiated, of the clean interpretations and those now.

    Returns
    -------
    tuple
        (n,c,h,w) The slopes, 0 where a map is empty; (n,) the dissimilarities, or what is measured.

    Raises
    ------
    MethodError
        If the model has an operation that PyTorch cannot differentiate twice.
    """
    inputs = images.detach().requires_grad_()
    with smoothed(beta), quiet():
        maps = saliency(classifier, inputs, classes, create_graph=True)
    apart = measure(clean, interpretation(maps))
    return differentiate_maps(apart.sum(), inputs), apart.detach()
