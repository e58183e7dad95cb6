"""Maps of several methods for a class and the one to contrast it with; methods with the same base share its passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError
from whyfooled.registry import describe
from whyfooled.saliency.enhanced import Enhanced, base_maps, enhance
from whyfooled.types import Classes, Images


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
    """Compute the map of every method, one after the other; an enhanced one shares the passes of its base.

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
    enhanced_bases = {describe(method.base) for method in methods if isinstance(method, Enhanced)}
    computed: dict[str, Tensor | MethodError] = {}
    for method in methods:
        base = method.base if isinstance(method, Enhanced) else method
        key = describe(base)
        if key not in computed:
            wanted = pair if both or key in enhanced_bases else pair[:, :1]
            try:
                computed[key] = base_maps(base, create_graph)(classifier, images, wanted)
            except MethodError as error:
                computed[key] = error
        maps = computed[key]
        if isinstance(maps, Tensor):
            if isinstance(method, Enhanced):
                first, second = maps.unbind(1)
                maps = torch.stack([enhance(first, second, method.norm), enhance(second, first, method.norm)], dim=1)
            maps = maps if both else maps[:, :1]
        yield method, maps
