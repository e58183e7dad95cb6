"""Maps of several methods for a class and the one to contrast it with; what is made of the same passes shares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.workers import are_taken_apart, share_out
from whyfooled.errors import MethodError
from whyfooled.registry import describe
from whyfooled.saliency.enhanced import BaseMethod, Enhanced, base_maps, enhance, find_base
from whyfooled.saliency.gradient import Gradient, InputXGradient, multiply_by_images
from whyfooled.types import Classes, Images, ManyClasses, ManyMaps


def pair_maps(
    methods: Sequence[Any],
    classifier: Classifier,
    images: Images,
    classes: Classes,
    contrast: Classes,
    *,
    both: bool = False,
    create_graph: bool = False,
) -> Iterator[tuple[Any, Tensor | MethodError]]:
    """Compute the map of every method, one after the other; those with the same base, or gradient, share its passes.

    Parameters
    ----------
    methods
        Saliency methods.
    classifier
        The classifier.
    images
        (n,c,h,w), values in [0, 1].
    classes
        (n,) The class that each map speaks for.
    contrast
        (n,) The class that enhanced maps contrast it with.
    both
        Whether to compute the maps of `contrast` too, enhanced ones contrasted with `classes`.
    create_graph
        Whether the maps can be differentiated with respect to the images; a method whose maps cannot yields an error.

    Yields
    ------
    tuple
        The method, and its maps, (n,1,d,h,w), or (n,2,d,h,w) with those of `contrast` second; or, where the method does
        not work on this model, the `MethodError` that says why.
    """
    pair = torch.stack([classes, contrast], dim=1)
    paired = {describe(_find_source(method)) for method in methods if isinstance(method, Enhanced)}
    computed: dict[str, Tensor | MethodError] = {}
    for method in methods:
        source = _find_source(method)
        key = describe(source)
        if key not in computed:
            wanted = pair if both or key in paired else pair[:, :1]
            try:
                computed[key] = _compute(base_maps(source, create_graph), classifier, images, wanted, create_graph)
            except MethodError as error:
                computed[key] = error
        maps = computed[key]
        if isinstance(maps, Tensor):
            if isinstance(find_base(method), InputXGradient):
                maps = multiply_by_images(maps, images, create_graph)
            if isinstance(method, Enhanced):
                first, second = maps.unbind(1)
                maps = torch.stack([enhance(first, second, method.norm), enhance(second, first, method.norm)], dim=1)
            maps = maps if both else maps[:, :1]
        yield method, maps


def _find_source(method: Any) -> Any:
    """Return the method whose passes a method's maps are made of."""
    base = find_base(method)
    return Gradient() if isinstance(base, InputXGradient) else base


def _compute(
    method: BaseMethod, classifier: Classifier, images: Images, classes: ManyClasses, create_graph: bool
) -> ManyMaps:
    """Compute a method's maps, (n,k,d,h,w), of large images one at a time, over the workers."""
    if create_graph or len(images) < 2 or not are_taken_apart(images):
        return method(classifier, images, classes)

    def compute_one(number: int) -> ManyMaps:
        return method(classifier, images[number, None], classes[number, None])

    return torch.cat(list(share_out(classifier, compute_one, range(len(images)))))
