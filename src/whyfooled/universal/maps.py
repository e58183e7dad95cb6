"""Maps and their slopes: what every attack on interpretations is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, first_line, leaving_unsaid, positive
from whyfooled.saliency.backward.gradients import EMPTY
from whyfooled.saliency.backward.smooth import smooth_activations
from whyfooled.saliency.differentiable import DifferentiableMethod
from whyfooled.types import Classes, Images, PerImage
from whyfooled.universal.dissimilarity import Interpretations, distance, interpretation

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
    gradients = _differentiate(apart.sum(), inputs)
    there = gradients.flatten(1).isfinite().all(1)
    return gradients.nan_to_num(0) * there.view(-1, 1, 1, 1), apart.detach()


def _differentiate(total: Tensor, inputs: Images) -> Images:
    try:
        (gradients,) = torch.autograd.grad(total, inputs)
    except RuntimeError as error:
        # PyTorch has no class of error for what an operation, or a function of the model's own, lacks.
        if re.search("is not implemented|once_differentiable", str(error)) is None:
            raise
        raise MethodError(
            "The maps of this model cannot be differentiated with respect to the image, because a part of it can be "
            f"differentiated only once: {first_line(error)}."
        ) from None
    return gradients


def smoothed(beta: float | None) -> AbstractContextManager[None]:
    """Put smooth activations in place of ReLUs inside a ``with`` block, or leave them if None."""
    return nullcontext() if beta is None else smooth_activations(beta)


def check_beta(beta: float | None) -> None:
    """Raise `ParameterError` unless it is None or a finite number above 0."""
    if beta is not None:
        positive("beta", beta)


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of empty maps: who goes over many images counts them, and says so once."""
    with leaving_unsaid(EMPTY):
        yield
