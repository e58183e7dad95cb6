"""What someone who looks at an explanation sees: maps by several methods, of the image and of other views of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, bad_parameter, did_you_mean
from whyfooled.registry import describe_value
from whyfooled.saliency.interpretations import interpretation, quiet
from whyfooled.saliency.pairs import pair_maps
from whyfooled.tensors.medians import median_of_four
from whyfooled.types import Classes, Images

View = str | Callable[[Tensor], Tensor]
"""What is explained: the name of one of `VIEWS`, or a function of images, one by one, that can be differentiated."""

Shown = Float[Tensor, "n v k h w"]
"""Normalised maps of n images, by v views and k methods."""

PerMap = Float[Tensor, "n v k"]
"""One number for each map."""


def _same(images: Images) -> Images:
    return images


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {"identity": _same, "median": median_of_four}
"""The image itself, and its median of 2 × 2 pixels."""


def check_views(views: Sequence[View]) -> None:
    """Raise `ParameterError` unless there are views, each a known name or a function."""
    if not views or isinstance(views, str):
        raise bad_parameter("views", "must be a list of views, one at least", repr(views), "Take identity.")
    for view in views:
        if not callable(view) and view not in VIEWS:
            rule = f"must be functions of images, or any of {', '.join(VIEWS)}"
            raise bad_parameter("views", rule, repr(view), did_you_mean(str(view), VIEWS))


def name_views(views: Sequence[View]) -> tuple[str, ...]:
    """Write each view as on the command line."""
    return tuple(map(describe_value, views))


def show(
    methods: Sequence[Any],
    views: Sequence[View],
    classifier: Classifier,
    images: Images,
    classes: Classes,
    contrast: Classes,
    *,
    create_graph: bool = False,
) -> Shown:
    """Compute the normalised maps by every method, of every view of the images; an empty map is 0 everywhere.

    Parameters
    ----------
    classes
        (n,) The class that each map explains.
    contrast
        (n,) The class that enhanced maps contrast it with.
    create_graph
        Whether the maps can be differentiated with respect to the images.

    Raises
    ------
    MethodError
        If a method does not work on this model.
    """
    rows = []
    with quiet():
        for view in views:
            seen = _look(view, images)
            row = []
            for _, maps in pair_maps(methods, classifier, seen, classes, contrast, create_graph=create_graph):
                if isinstance(maps, MethodError):
                    raise maps
                row.append(interpretation(maps[:, 0]))
            rows.append(torch.stack(row, dim=1))
    return torch.stack(rows, dim=1)


def _look(view: View, images: Images) -> Images:
    seen: Tensor = (VIEWS[view] if isinstance(view, str) else view)(images)
    if seen.shape[:2] != images.shape[:2] or seen.shape != images.shape:
        given = f"{tuple(seen.shape)} from {describe_value(view)}"
        raise bad_parameter("views", f"must give images of the shape that they take, {tuple(images.shape)}", given)
    return seen


def likeness(maps: Shown, others: Shown) -> PerMap:
    """Return (n,v,k) the cosine between maps, from 0 to 1; 0 where one is empty. Differentiable."""
    tiny = torch.finfo(maps.dtype).tiny
    cosines: Tensor = F.cosine_similarity(maps.flatten(3), others.flatten(3), dim=3, eps=tiny)
    return cosines


def top_pixels_shared(maps: Shown, others: Shown, share: float) -> PerMap:
    """Return (n,v,k) how much of the most salient pixels, a share of all, maps have in common; chance is `share`."""
    first, second = maps.flatten(3), others.flatten(3)
    count = max(1, round(share * first.shape[3]))
    chosen = [torch.zeros_like(one).scatter_(3, one.topk(count, dim=3).indices, 1) for one in (first, second)]
    return (chosen[0] * chosen[1]).sum(3) / count


def mass_within(maps: Shown, others: Shown) -> PerMap:
    """Return (n,v,k) how much of a map lies where another has half of its largest value or more, from 0 to 1."""
    # Where it has less, a map of a network is small change; of a square it is the square. [ours]
    strong = others >= others.amax((3, 4), keepdim=True) / 2
    return (maps * strong).sum((3, 4))
