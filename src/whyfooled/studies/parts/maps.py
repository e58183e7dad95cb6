"""The maps of a batch for a study, where a method may not work on the model, or not on some of the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, bad_parameter
from whyfooled.registry import title
from whyfooled.saliency.enhanced import find_base
from whyfooled.saliency.pairs import pair_maps
from whyfooled.types import Classes, Images, ManyClasses

TitledMaps = Iterator[tuple[str, Tensor | MethodError]]
"""For each method, its name in reports and its maps; where it works on none of the images, the error that says why."""


def compute_maps(
    methods: Sequence[Any],
    classifier: Classifier,
    images: Images,
    classes: Classes,
    contrast: Classes,
    *,
    both: bool = False,
) -> TitledMaps:
    """Compute (n,d,h,w) the maps of `classes`, or (n,2,d,h,w) those of `classes` and of `contrast` if `both`.

    Enhanced methods contrast the maps of `classes` with those of `contrast`.

    Raises
    ------
    MethodError
        If a method works on some of the images only: the runner then measures each on its own.
    """
    for method, maps in pair_maps(methods, classifier, images, classes, contrast, both=both):
        if isinstance(maps, MethodError):
            base = find_base(method)
            check_none_works(maps, base, classifier, images, classes)
        yield title(method), maps if both or isinstance(maps, MethodError) else maps[:, 0]


def check_none_works(
    error: MethodError, method: Any, classifier: Classifier, images: Images, classes: ManyClasses
) -> None:
    """Raise a method's error on a batch again, unless it fails on each of the images alone too."""
    if len(images) == 1:
        return
    for number in range(len(images)):
        try:
            method(classifier, images[number : number + 1], classes[number : number + 1])
        except MethodError:
            continue
        raise error


def sort_out(results: Iterable[Tensor | MethodError]) -> tuple[list[Tensor], MethodError | None]:
    """Tell the maps that a method has from the first reason why it does not work."""
    results = list(results)
    errors = [result for result in results if isinstance(result, MethodError)]
    return [result for result in results if isinstance(result, Tensor)], errors[0] if errors else None


def make_error_rows(rows: Iterable[Mapping[str, Any]], method: str, error: MethodError) -> Iterator[dict[str, Any]]:
    """Say in each image's row that a method does not work, and why."""
    return ({**row, "method": method, "error": f"{method}: {error}"} for row in rows)


def scatter_maps(maps: Tensor, places: Sequence[int], count: int) -> Tensor:
    """Put maps of some images of a batch of `count` at their places; 0 for the others."""
    whole = maps.new_zeros(count, *maps.shape[1:])
    return whole.index_copy_(0, torch.tensor(places, device=maps.device), maps)


def check_quantiles(argument: str, *quantiles: float) -> None:
    """Raise `ParameterError` unless each is a share of a map's pixels."""
    for quantile in quantiles:
        if not 0 < quantile <= 1:
            raise bad_parameter(argument, "must be a share of the pixels, above 0 and at most 1", quantile)
