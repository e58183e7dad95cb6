"""Class activation maps of an image and of what attacks make of it, for two classes (Xu et al. 2019, fig. 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.pictures import scale_of
from whyfooled.errors import MethodError
from whyfooled.perturbation import discriminative_region
from whyfooled.registry import Card
from whyfooled.saliency import GradCAM
from whyfooled.studies.effects import cam_pairs_account
from whyfooled.studies.effects.cam_pairs_account import CHANGES, KINDS, OVERLAPS
from whyfooled.studies.parts.attacked import CLEAN, Stage, run_stages
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.maps import TitledMaps, check_quantiles, compute_maps, make_error_rows, sort_out
from whyfooled.studies.parts.pictures import PICTURE_COLUMNS, SCALE_COLUMNS, make_picture_rows, pack_maps
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import cosine
from whyfooled.types import Images, PerImage


@final
@dataclass(frozen=True)
class CAMPairs(AttackedStudy):
    """Show four maps of each image and attack: of the true and of the promoted class, before and after.

    The promoted class is the target; without one, the class that was reached, or the strongest other. All four maps
    have one colour scale. The figure shows the images on which most attacks succeed and, among these, those on which
    the first method's maps change most.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
    methods
        Saliency methods. Grad-CAM, unless told otherwise, works on networks that CAM does not work on; where both do,
        it is the positive part of CAM up to a factor.
    quantile
        Which share of a map's pixels is its discriminative region. [ours]
    """

    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    methods: tuple[Any, ...] = (GradCAM(),)
    quantile: float = 0.3

    card: ClassVar[Card] = Card(
        name="cam-pairs",
        title="Class activation maps before and after attacks",
        summary="Four maps of each pair of images, of the true and of the promoted class, and how they change.",
        source="Xu et al. 2019, arXiv 1904.02057, fig. 4",
        cost="the attacks, and the methods' maps of two classes, of the clean image and of the attacked one",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "true_class": "text",
        "promoted_class": "text",
        **PICTURE_COLUMNS,
        "method": "text",
        "moved": "real",
        **dict.fromkeys((*KINDS, *CHANGES, *OVERLAPS, "quantile"), "real"),
        **SCALE_COLUMNS,
        **{f"map_{kind}": "bytes" for kind in KINDS},
    }
    controls: ClassVar[tuple[str, ...]] = (CLEAN,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quantiles("quantile", self.quantile)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and compare the maps of both classes before and after."""
        stages = run_stages(classifier, batch, self.attacks, self.target)
        clean = next(stages)
        rows = list(make_picture_rows(classifier, clean))
        kept: dict[str, Tensor] = {}
        for stage in stages:
            keys = list(_add_classes(classifier, stage))
            rows += (row | key for row, key in zip(make_picture_rows(classifier, stage), keys, strict=True))
            for name, maps in self._maps(classifier, clean.images, stage):
                if isinstance(maps, MethodError):
                    rows += make_error_rows(keys, name, maps)
                    continue
                rows += (key | {"method": name} | facts for key, facts in zip(keys, self._facts(maps), strict=True))
                kept |= {f"{stage.attack}/{name}/{kind}": maps[:, place] for place, kind in enumerate(KINDS.values())}
        return Measured(rows, kept)

    def _maps(self, classifier: Classifier, clean: Images, stage: Stage) -> TitledMaps:
        """Compute (n,4,d,h,w) the four maps of every method; enhanced ones contrast the two classes with each other."""
        classes = (stage.true, stage.promoted)
        before = dict(compute_maps(self.methods, classifier, clean, *classes, both=True))
        for name, after in compute_maps(self.methods, classifier, stage.images, *classes, both=True):
            maps, error = sort_out((before[name], after))
            yield name, error or torch.cat(maps, dim=1)

    def _facts(self, maps: Tensor) -> Iterator[dict[str, Any]]:
        """Give for each image how its four maps differ, and the maps themselves."""
        numbers = {name: values.tolist() for name, values in compare_maps(maps, self.quantile).items()}
        for place, four in enumerate(maps):
            columns = {f"map_{kind}": saliency for kind, saliency in zip(KINDS, four, strict=True)}
            yield {
                **{name: values[place] for name, values in numbers.items()},
                "quantile": self.quantile,
                **pack_maps(columns, scale_of(four)),
            }

    summarise = staticmethod(cam_pairs_account.summarise)
    draw = staticmethod(cam_pairs_account.draw)


def _add_classes(classifier: Classifier, stage: Stage) -> Iterator[dict[str, Any]]:
    for key, *classes in zip(stage.keys(), stage.true.tolist(), stage.promoted.tolist(), strict=True):
        true, promoted = map(classifier.class_name, classes)
        yield key | {"true_class": true, "promoted_class": promoted}


def compare_maps(maps: Tensor, quantile: float) -> dict[str, PerImage]:
    """Compare (n,4,d,h,w) the maps of `KINDS`; (n,) for each number."""
    four = dict(zip(KINDS, maps.unbind(1), strict=True))
    sizes = {kind: saliency.sum(1).double().clamp_min(0).mean((1, 2)) for kind, saliency in four.items()}
    numbers: dict[str, PerImage] = {"moved": 1 - cosine(maps[:, :2].flatten(1, 2), maps[:, 2:].flatten(1, 2)), **sizes}
    for which in ("true", "promoted"):
        clean, after = (f"{which}_{when}" for when in ("clean", "attacked"))
        numbers[f"{which}_change"] = (sizes[after] - sizes[clean]) / torch.maximum(sizes[after], sizes[clean])
        numbers[f"{which}_cosine"] = cosine(four[clean], four[after])
        numbers[f"{which}_overlap"] = _overlap(four[clean], four[after], quantile=quantile)
    for when in ("clean", "attacked"):
        numbers[f"overlap_{when}"] = _overlap(four[f"true_{when}"], four[f"promoted_{when}"], quantile=quantile)
    return numbers


def _overlap(*pair: Tensor, quantile: float) -> PerImage:
    """Return (n,) the intersection over the union of two discriminative regions; NaN where a map is constant."""
    first, second = (discriminative_region(maps, quantile) for maps in pair)
    shared, either = (both.sum((1, 2)).double() for both in (first & second, first | second))
    flat = [maps.sum(1).flatten(1).amax(1) == maps.sum(1).flatten(1).amin(1) for maps in pair]
    return torch.where(flat[0] | flat[1], torch.nan, shared / either)
