"""Saliency as attacks see it: one normalised value for each pixel, and its slope through smooth activations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.errors import MethodError, first_line, leaving_unsaid, positive
from whyfooled.saliency.backward.gradients import EMPTY
from whyfooled.saliency.backward.smooth import smooth_activations
from whyfooled.types import Images, Maps

Interpretations = Float[Tensor, "n h w"]
"""Normalised saliency: one value for each pixel, none negative, with the sum 1 over an image."""


def interpretation(maps: Maps) -> Interpretations:
    """Normalise saliency maps: the sum of absolute values over channels, divided by its sum over the pixels.

    ``I(x)`` of Ehsani Oskouie & Farnia 2022, sec. 3. Differentiable.

    Parameters
    ----------
    maps
        (n,d,h,w) Saliency maps with their signs, such as gradients.

    Returns
    -------
    Tensor
        (n,h,w), none negative; each adds up to 1, or is 0 where the map is 0 everywhere.
    """
    sizes = maps.abs().sum(1)
    total = sizes.sum((1, 2), keepdim=True)
    return sizes / total.masked_fill(total == 0, 1)


def differentiate_maps(total: Tensor, inputs: Images) -> Images:
    """Differentiate a number that was computed from maps, made with ``create_graph``, with respect to the images.

    Returns
    -------
    Tensor
        (n,c,h,w) The slopes; 0 in an image where they are not finite, as those of a map that is empty.

    Raises
    ------
    MethodError
        If the model has an operation that PyTorch cannot differentiate twice.
    """
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
    there = gradients.flatten(1).isfinite().all(1)
    return gradients.nan_to_num(0) * there.view(-1, 1, 1, 1)


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
