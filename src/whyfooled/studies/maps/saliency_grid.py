"""Every method's map of an image and of what attacks make of it, side by side (Gu & Tresp 2019, fig. 3 and 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.pictures import scale_of
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.studies.maps import saliency_grid_account
from whyfooled.studies.parts.attacked import CLEAN, Stage, run_stages
from whyfooled.studies.parts.defaults import ATTACKS, METHODS
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.maps import TitledMaps, compute_maps, make_error_rows, sort_out
from whyfooled.studies.parts.pictures import PICTURE_COLUMNS, SCALE_COLUMNS, make_picture_rows, pack_maps
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import cosine


@final
@dataclass(frozen=True)
class SaliencyGrid(AttackedStudy):
    """Show each method's map of the class that the classifier gives, for the clean image and each attacked one.

    Enhanced methods contrast it with the true class or, where the prediction is right, with the strongest other one.
    All maps of one method and image have one colour scale. The figure shows the images on which most attacks succeed
    and, among these, those on which the first method's map changes most.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
    methods
        Saliency methods.
    """

    attacks: tuple[Any, ...] = ATTACKS
    target: str | None = None
    methods: tuple[Any, ...] = METHODS

    card: ClassVar[Card] = Card(
        name="saliency-grid",
        title="Maps before and after attacks",
        summary="A grid of pictures: the clean and the attacked images by the saliency methods.",
        source="Gu & Tresp 2019, arXiv 1908.08413, fig. 3 and 5",
        cost="the attacks, and the methods' maps of the clean and of every attacked image",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        **PICTURE_COLUMNS,
        "method": "text",
        "moved": "real",
        **SCALE_COLUMNS,
        "map": "bytes",
    }
    controls: ClassVar[tuple[str, ...]] = (CLEAN,)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and draw every method's maps."""
        stages = list(run_stages(classifier, batch, self.attacks, self.target))
        rows = [row for stage in stages for row in make_picture_rows(classifier, stage)]
        kept: dict[str, Tensor] = {}
        for name, maps in self._maps(classifier, stages):
            if isinstance(maps, MethodError):
                rows += make_error_rows(({"place": place} for place in range(len(batch.images))), name, maps)
                continue
            rows += _make_map_rows(stages, name, maps)
            kept |= {f"{stage.attack}/{name}": maps[:, number] for number, stage in enumerate(stages)}
        return Measured(rows, kept)

    def _maps(self, classifier: Classifier, stages: Sequence[Stage]) -> TitledMaps:
        """Compute (n,r,d,h,w) the maps of every method in each of r stages."""
        by_stage = [dict(compute_maps(self.methods, classifier, stage.images, *stage.explained)) for stage in stages]
        for name in by_stage[0]:
            maps, error = sort_out(of_stage[name] for of_stage in by_stage)
            yield name, error or torch.stack(maps, dim=1)

    summarise = staticmethod(saliency_grid_account.summarise)
    draw = staticmethod(saliency_grid_account.draw)


def _make_map_rows(stages: Sequence[Stage], name: str, maps: Tensor) -> Iterator[dict[str, Any]]:
    keys = zip(*(stage.keys() for stage in stages), strict=True)
    for of_image, in_stages in zip(keys, maps, strict=True):
        scale = scale_of(in_stages)
        moved = 1 - cosine(in_stages, in_stages[:1].expand_as(in_stages))
        for key, saliency, distance in zip(of_image, in_stages, moved.tolist(), strict=True):
            yield key | {"method": name, "moved": distance, **pack_maps({"map": saliency}, scale)}
