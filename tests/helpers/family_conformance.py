"""Whether every saliency method works on a model, and why not where it does not."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from whyfooled import Classifier, Enhanced, explain
from whyfooled.attacks import FGSM
from whyfooled.classifier.axes import Axes
from whyfooled.classifier.layers import LAST_STAGE, choose_layers
from whyfooled.errors import MethodError, ModelError
from whyfooled.explanations import of_image
from whyfooled.perturbation import Grid, effect
from whyfooled.saliency import METHODS

# Parameters that keep methods of many passes quick.
CHEAP: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"steps": 2},
    "smoothgrad": {"samples": 2},
    "lime": {"samples": 12, "superpixels": 6},
    "prediction-difference": {"window": 0.5, "samples": 1},
    "meaningful-perturbation": {"steps": 2, "fill": "zero", "l1": 0.0, "tv": 0.1},
}
EXPLAIN = "explain"
CONTRASTED = torch.tensor([1, 3])


def try_methods(classifier: Classifier, names: Iterable[str]) -> dict[str, str]:
    """Compute the maps of two classes by methods, or an explanation; "" for what works, else why not."""
    methods = {method.card.name: method for method in METHODS}
    return {
        name: _try_explain(classifier) if name == EXPLAIN else _try_method(methods[name], classifier) for name in names
    }


def _try_method(method: Any, classifier: Classifier) -> str:
    made = method(**CHEAP.get(method.card.name, {}))
    image = picture(classifier)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(made, Enhanced):
                maps = made(classifier, image, CONTRASTED[:1], contrast=CONTRASTED[1:])
            else:
                maps = made(classifier, image, CONTRASTED[None])
    except MethodError as error:
        return shorten(str(error))
    return _find_fault(maps, image)


@contextmanager
def _few_passes(classifier: Classifier) -> Iterator[None]:
    """Make an explanation a small one: few regions, one random order, one fill; every part of it runs."""
    grid = partial(Grid, cell=min(classifier.size) // 3)
    with (
        patch.multiple(of_image, RANDOM_ORDERS=1, FILLS=("zero",)),
        patch.object(effect, "Grid", grid),
    ):
        yield


def _find_fault(maps: Tensor, image: Tensor) -> str:
    if maps.shape[-2:] != image.shape[-2:] or not torch.isfinite(maps).all():
        return f"gives maps of the shape {tuple(maps.shape)}, or such as are not finite"
    return ""


def _try_explain(classifier: Classifier) -> str:
    try:
        with warnings.catch_warnings(), _few_passes(classifier):
            warnings.simplefilter("ignore")
            explanation = explain(classifier, picture(classifier), attack=FGSM(epsilon=0.1))
    except (MethodError, ModelError) as error:
        return shorten(str(error))
    return "" if explanation.summary() else "says nothing"


def picture(classifier: Classifier) -> Tensor:
    """Make a smooth image of the classifier's size."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=classifier.size, mode="bicubic").clamp(0, 1)


def describe_layer(classifier: Classifier) -> str:
    """Say which layer `last-stage` is, and how its output is laid out."""
    try:
        (layer,) = choose_layers(classifier, LAST_STAGE)
    except ModelError as error:
        return shorten(str(error))
    return f"`{layer.name}`: {describe_layout(layer.known_axes, layer.shape)}"


def describe_layout(axes: Axes, shape: tuple[int, ...]) -> str:
    """Say where channels and places are."""
    size = " × ".join(map(str, axes.size(shape)))
    if not axes.tokens:
        return f"{size}, channels {'first' if axes.channels == 1 else 'last'}"
    rows, columns = axes.size(shape)
    others = shape[axes.rows - 1] - rows * columns
    return f"{size} tokens{f' and {others} without a place' if others else ''}"


_KNOWN = {
    "are not the output of a linear layer": "the logits are not the output of a linear layer",
    "the logits come from": "the logits are no linear layer of the mean of a layer's places",
    "needs attention; this model has none": "no attention",
    "weights its values by a softmax as it is": "attention whose weights are no plain softmax",
    "needs attention between all tokens": "attention in windows, or between fewer tokens",
    "needs tokens that stand for patches": "tokens that are no patches",
    "neither linear nor a ReLU nor 2d max pooling": "a step that is neither linear nor a ReLU, such as a gate",
}


def shorten(message: str) -> str:
    """Say of an error what is particular to the model."""
    for pattern in (r"this one uses (.*?)\. [A-Z]", r"has no rule for (.*?), which this model uses"):
        match = re.search(pattern, message)
        if match:
            return match[1]
    for words, known in _KNOWN.items():
        if words in message:
            return known
    sentence = re.split(r"(?<=[a-z)'])\. |: any |; take ", message)[0]
    return re.sub(r"^[\w\- +×]+ does not work on this model: ", "", sentence).rstrip(".")
