"""Every method's map of an image and of what attacks make of it, side by side (Gu & Tresp 2019, fig. 3 and 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.curves import Line, tiles_figure
from whyfooled.drawing.pictures import Scale, scale_of, scaled_picture
from whyfooled.drawing.summary import Summary
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import FOOLED, attacked, check_attacks, check_target, explained, outcomes
from whyfooled.studies.parts.defaults import ATTACKS, METHODS
from whyfooled.studies.parts.maps import compute_maps
from whyfooled.studies.parts.over_images import check_some_method
from whyfooled.studies.parts.pictures import (
    CLEAN,
    PICTURE_COLUMNS,
    SHOWN,
    from_levels,
    from_png,
    most_telling,
    picture_rows,
    shown_table,
    to_levels,
)
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.tensors.measures import cosine


@final
@dataclass(frozen=True)
class SaliencyGrid(Study):
    """Show each method's map of the class that the classifier gives, for the clean image and each attacked one.

    Enhanced methods hold it against the true class or, where the prediction is right, against the strongest other one.
    All maps of one method and image have one colour scale. The figure shows the images on which most attacks succeed
    and, among these, those on which the first method's map moves furthest.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
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
        "scale": "real",
        "signed": "flag",
        "height": "whole",
        "map": "bytes",
    }
    headline: ClassVar[str] = "fooled"

    def __post_init__(self) -> None:
        check_methods(self.methods)
        check_target(self.target)
        check_attacks(self.attacks)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and draw every method's maps."""
        logits = classifier.logits(batch.images)
        true = batch.true_classes(logits.argmax(1))
        lines = [_Round(CLEAN, batch.images, logits, true, [""] * len(true), torch.zeros_like(batch.images))]
        for attack, result in attacked(classifier, batch, self.attacks, self.target):
            delta = result.attempted - result.clean
            lines.append(_Round(attack, result.attempted, result.logits, true, outcomes(batch, result), delta))
        rows = [row for line in lines for row in line.rows(classifier)]
        maps: dict[str, Tensor] = {}
        for name, found in self._maps(classifier, lines).items():
            if isinstance(found, MethodError):
                rows += [{"place": place, "method": name, "error": f"{name}: {found}"} for place in range(len(true))]
                continue
            rows += _map_rows(lines, name, found)
            maps |= {f"{line.attack}/{name}": found[:, number] for number, line in enumerate(lines)}
        return Measured(rows, maps)

    def _maps(self, classifier: Classifier, lines: Sequence[_Round]) -> dict[str, Tensor | MethodError]:
        """Return (n,lines,d,h,w) maps of every method."""
        found: dict[str, list[Tensor] | MethodError] = {}
        for line in lines:
            for name, maps in compute_maps(self.methods, classifier, line.images, *explained(line.logits, line.true)):
                known = found.setdefault(name, [])
                if isinstance(maps, MethodError):
                    found[name] = maps
                elif not isinstance(known, MethodError):
                    known.append(maps)
        return {
            name: maps if isinstance(maps, MethodError) else torch.stack(maps, dim=1) for name, maps in found.items()
        }

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier."""
        return [float(row["outcome"] == FOOLED) for row in rows if "method" not in row and row["attack"] != CLEAN]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """List what the classifier makes of the images that are shown."""
        check_some_method(table)
        chosen = most_telling(table, SHOWN)
        columns = ["index", "image", "method", "attack", "outcome", "prediction", "probability", "l2", "linf"]
        rows = table.read(columns, [("index", "in", chosen)])
        shown = shown_table(rows[rows["method"].isna()], chosen)
        sentence = (
            f"Shown are {len(chosen)} of {table.images} images: those on which most attacks succeed and maps move most."
        )
        return Summary((sentence,), (shown,))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw the grid of the most telling images: a row for clean and each attack, a column for each method."""
        blocks = []
        for index in most_telling(table, SHOWN):
            rows = table.read(where=[("index", "==", index)])
            attacks = rows["attack"].dropna().unique()
            blocks.append((str(rows["image"].iloc[0]), [_line(rows[rows["attack"] == attack]) for attack in attacks]))
        return tiles_figure(blocks)


@dataclass(frozen=True, eq=False)
class _Round:
    """The batch before attacks, or after one of them."""

    attack: str
    images: Tensor
    logits: Tensor
    true: Tensor
    outcomes: Sequence[str]
    delta: Tensor

    def rows(self, classifier: Classifier) -> Iterator[dict[str, Any]]:
        """Give what is known of each image, and the image itself."""
        for place, facts in enumerate(picture_rows(classifier, self.images, self.logits, self.delta)):
            yield self.common(place) | facts

    def common(self, place: int) -> dict[str, Any]:
        return {"place": place, "attack": self.attack, "outcome": self.outcomes[place]}


def _map_rows(lines: Sequence[_Round], name: str, maps: Tensor) -> Iterator[dict[str, Any]]:
    for place, own in enumerate(maps):
        scale = scale_of(own)
        moved = 1 - cosine(own, own[:1].expand_as(own))
        for line, one, distance in zip(lines, own, moved.tolist(), strict=True):
            yield line.common(place) | {
                "method": name,
                "moved": distance,
                "scale": scale.end,
                "signed": scale.signed,
                "height": one.shape[-2],
                "map": to_levels(one, scale),
            }


def _line(rows: pd.DataFrame) -> Line:
    """Turn what is known of one image under one attack into pictures: the image, then the maps."""
    image = rows[rows["method"].isna()].iloc[0]
    label = f"{image['attack']}\n{image['outcome']}\n{image['prediction']} {image['probability']:.0%}"
    pictures = [("", from_png(image["picture"]))]
    maps = rows[rows["method"].notna()].to_dict("records")
    return Line(label, [*pictures, *((str(row["method"]), _picture(row)) for row in maps)])


def _picture(row: Mapping[Any, Any]) -> PILImage.Image:
    return scaled_picture(from_levels(row["map"], int(row["height"])), Scale(1.0, bool(row["signed"])))
