"""Enhancement: the evidence for one class that is not evidence for another (Gu & Tresp 2019, sec. 2.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import strongest_other
from whyfooled.errors import ParameterError, one_of
from whyfooled.registry import Card
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.saliency.guided import GuidedBackprop
from whyfooled.types import Classes, Images, ManyClasses, ManyMaps, Maps

Norm = Literal["channel", "energy", "max"]
NORMS: tuple[Norm, ...] = ("channel", "energy", "max")


@runtime_checkable
class BaseMethod(Protocol):
    """Any saliency method that explains classes one by one."""

    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k)."""
        ...


def find_base(method: Any) -> Any:
    """Return the base of an enhanced method; of any other, the method itself."""
    return method.base if isinstance(method, Enhanced) else method


def base_maps(base: BaseMethod, create_graph: bool) -> BaseMethod:
    """Return the base method, or what computes its maps so that they can be differentiated."""
    return partial(check_differentiable(base), create_graph=True) if create_graph else base


def enhance(maps: Maps, contrast: Maps, norm: Norm = "channel") -> Maps:
    """Keep of a class's map what stands out against another class's: ``max(0, s/‖s‖ − m/‖m‖)`` of their positive parts.

    Parameters
    ----------
    maps, contrast
        (n,c,h,w) The maps `s` of the explained class and `m` of the contrast.
    norm
        ``"channel"``: each channel is divided by its own sum (the method the paper proposes); ``"energy"``: by the sum
        over all channels; ``"max"``: by the map's largest value.

    Returns
    -------
    Tensor
        (n,c,h,w), at least 0. A channel (or map) without a positive value counts as 0 everywhere.
    """
    one_of("norm", norm, NORMS)
    if maps.shape != contrast.shape:
        raise ParameterError(
            f"`contrast` must have the shape of `maps`, {tuple(maps.shape)}; got {tuple(contrast.shape)}."
        )
    return (_normalised(maps, norm) - _normalised(contrast, norm)).clamp_min(0).to(maps.dtype)


def _normalised(maps: Tensor, norm: Norm) -> Tensor:
    # In double precision: the maps of two classes are so alike that rounding would show in their difference, and the
    # sum of large maps must not overflow.
    positive = maps.clamp_min(0).double()
    if norm == "max":
        size = positive.amax((-3, -2, -1), keepdim=True)
    else:
        dimensions = (-2, -1) if norm == "channel" else (-3, -2, -1)
        size = positive.sum(dimensions, keepdim=True)
    # Nothing is divided by 0, not even where it is not used: a second backward pass would make it NaN.
    return positive / torch.where(size > 0, size, 1)


@final
@dataclass(frozen=True)
class Enhanced:
    """The enhancement of any saliency method; of guided backpropagation unless told otherwise (Gu & Tresp 2019).

    ``Dis(k, m) = max(0, s_k/‖s_k‖ − s_m/‖s_m‖)``: guided maps of two classes are nearly equal, and what tells the
    classes apart is in their difference.

    Parameters
    ----------
    base
        The saliency method whose maps are enhanced.
    norm
        ``"channel"``, ``"energy"`` or ``"max"``: see `enhance`.
    """

    base: BaseMethod = field(default_factory=GuidedBackprop)
    norm: Norm = "channel"

    card: ClassVar[Card] = Card(
        name="enhanced",
        title="Enhanced",
        summary="What speaks for one class and not for the other: the difference of two classes' normalised maps.",
        source="Gu & Tresp 2019, arXiv 1908.08413, sec. 2.2",
        cost="1 forward, 2 backwards (of its base method)",
        names_base=True,
    )

    def __post_init__(self) -> None:
        one_of("norm", self.norm, NORMS)

    @one_thread()
    def __call__(
        self,
        classifier: Classifier,
        images: Images,
        classes: Classes,
        *,
        contrast: Classes | None = None,
        create_graph: bool = False,
    ) -> Maps:
        """Compute the maps.

        Parameters
        ----------
        classifier
            The classifier.
        images
            (n,c,h,w), values in [0, 1].
        classes
            (n,) The class that each map speaks for.
        contrast
            (n,) The class that it is contrasted with; the strongest other one if None, which takes one more forward.
        create_graph
            Whether the maps can be differentiated with respect to the images; only if the base method's can.

        Returns
        -------
        Tensor
            (n,c,h,w), at least 0.

        Raises
        ------
        MethodError
            If `create_graph` is True and the base method's maps cannot be differentiated.
        """
        maps_of = base_maps(self.base, create_graph)
        if contrast is None:
            contrast = strongest_other(classifier.logits(images), classes)
        if classes.ndim != 1 or classes.shape != contrast.shape:
            raise ParameterError(f"`contrast` must have a class for each image; got shape {tuple(contrast.shape)}.")
        both = maps_of(classifier, images, torch.stack([classes, contrast], dim=1))
        return enhance(both[:, 0], both[:, 1], self.norm)


def EnhancedGuidedBackprop(norm: Norm = "channel") -> Enhanced:
    """Make the method that the paper proposes: guided backpropagation, `Enhanced`; 1 forward, 2 backwards an image."""
    return Enhanced(GuidedBackprop(), norm)
