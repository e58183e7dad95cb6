"""Checks of what users give: a classifier, images, a pair of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whyfooled.classifier.classifier import Classifier, check_one_answer, find_precision
from whyfooled.errors import ImageError, ModelError, bad_parameter

SLACK = 1e-6
"""How far a value may lie outside its bounds: rounding. [ours]"""


def check_classifier(classifier: object, *, several_labels: bool = False) -> None:
    """Raise `ParameterError` for anything but a `Classifier`, `ModelError` for one of several labels unless allowed."""
    if not isinstance(classifier, Classifier):
        fix = "Wrap the model: Classifier(module, mean=..., std=...)." if isinstance(classifier, nn.Module) else ""
        raise bad_parameter("classifier", "must be a Classifier", type(classifier).__name__, fix)
    if not several_labels:
        check_one_answer(classifier)


def check_single_precision(classifier: Classifier) -> None:
    """Raise `ModelError` for a model whose parameters are not in single precision."""
    precision = find_precision(classifier.module) or torch.float32
    if precision != torch.float32:
        raise ModelError(f"The model must be in single precision for this; its parameters are {precision}. {FLOAT32}")


FLOAT32 = "Run a copy of it: classifier.float32(), on the command line --float32."


def check_digits(classifier: Classifier) -> None:
    """Raise `ModelError` for a model in half precision, whose maps of two classes would differ by rounding alone."""
    if classifier.is_half:
        precision = find_precision(classifier.module)
        raise ModelError(
            f"The model must be in single or double precision for maps; its parameters are {precision}. {FLOAT32}"
        )


def check_saliency(saliency: object) -> None:
    """Raise `ParameterError` for anything that cannot be called as a saliency method, such as its name or its class."""
    if isinstance(saliency, type) or not callable(saliency):
        given = saliency.__name__ if isinstance(saliency, type) else repr(saliency)
        raise bad_parameter("saliency", "must be a saliency method, such as Gradient()", given)


def check_images(images: Tensor, low: float = 0.0, high: float = 1.0) -> None:
    """Raise `ImageError` unless the images are a float32 batch of finite values in the box."""
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        given = f"a tensor of {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        fix = "Give torch.as_tensor(images).float()."
        if isinstance(images, Tensor):
            fix = "Give images.float()." if images.is_floating_point() else "Give images.float() / 255."
        raise ImageError(f"Images must be a tensor of torch.float32; got {given}. {fix}")
    if images.ndim != 4:
        raise ImageError(f"Images must be a batch (n, channels, height, width); got the shape {tuple(images.shape)}.")
    if not images.numel():
        return
    least, most = (float(extreme.detach()) for extreme in images.aminmax())
    if not torch.isfinite(images).all() or least < low - SLACK or most > high + SLACK:
        fix = " Divide them by 255." if least >= 0 and 2 < most <= 255 else ""
        raise ImageError(
            f"Images must have finite values in [{low:g}, {high:g}]; got values from {least:.4g} to {most:.4g}.{fix}"
        )


def check_attempted(clean: Tensor, attempted: Tensor) -> None:
    """Raise `ImageError` unless adversarial images have the shape of the clean ones, and values in [0, 1]."""
    if clean.shape != attempted.shape:
        raise ImageError(
            f"Adversarial images must have the shape of the clean ones, {tuple(clean.shape)}; "
            f"got {tuple(attempted.shape)}."
        )
    check_images(attempted)


def name_images(numbers: list[int]) -> str:
    """Write which images of the batch are meant, the first few by number."""
    most = 5
    listed = ", ".join(map(str, numbers[:most]))
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"image{'s' if len(numbers) > 1 else ''} {listed}{more} of the batch (counted from 0)"
