"""Class activation maps of an image and of what attacks make of it, for two classes (Xu et al. 2019, fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.curves import Line, tiles_figure
from whyfooled.drawing.pictures import Scale, scale_of, scaled_picture
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import MethodError, bad_parameter
from whyfooled.perturbation import discriminative_region
from whyfooled.registry import Card
from whyfooled.saliency import GradCAM
from whyfooled.studies.parts.attacked import FOOLED, attacked, check_attacks, check_target, outcomes, promoted
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import counted_outcomes
from whyfooled.studies.parts.maps import compute_pairs
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
from whyfooled.tensors.statistics import FEWEST, Interval, bootstrap_means
from whyfooled.types import Classes, PerImage

_KINDS = ("true_clean", "promoted_clean", "true_attacked", "promoted_attacked")
_KIND_TITLES = (
    "clean image, true class",
    "clean image, promoted class",
    "adversarial image, true class",
    "adversarial image, promoted class",
)
_CHANGES = (
    *("true_change", "true_cosine", "true_overlap"),
    *("promoted_change", "promoted_cosine", "promoted_overlap"),
)
_OVERLAPS = ("overlap_clean", "overlap_attacked")
_STRENGTH = 0.55
"""How strongly a map's colours cover the photograph under it, from 0 to 1. [ours]"""


@final
@dataclass(frozen=True)
class CAMPairs(Study):
    """Show four maps of each image and attack: of the true and of the promoted class, before and after.

    The promoted class is the target; without one, the class that was reached, or the strongest other. All four maps
    have one colour scale. The figure shows the images on which most attacks succeed and, among these, those on which
    the first method's maps move furthest.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
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
        **dict.fromkeys(_KINDS, "real"),
        **dict.fromkeys(_CHANGES, "real"),
        **dict.fromkeys(_OVERLAPS, "real"),
        "quantile": "real",
        "scale": "real",
        "signed": "flag",
        "height": "whole",
        **{f"map_{kind}": "bytes" for kind in _KINDS},
    }
    headline: ClassVar[str] = "fooled"

    def __post_init__(self) -> None:
        check_methods(self.methods)
        check_target(self.target)
        check_attacks(self.attacks)
        if not 0 < self.quantile <= 1:
            raise bad_parameter("quantile", "must be a share of the pixels, above 0 and at most 1", self.quantile)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and compare the maps of both classes before and after."""
        logits = classifier.logits(batch.images)
        true = batch.true_classes(logits.argmax(1))
        rows: list[dict[str, Any]] = []
        kept: dict[str, Tensor] = {}
        unchanged = torch.zeros_like(batch.images)
        for place, facts in enumerate(picture_rows(classifier, batch.images, logits, unchanged)):
            rows.append({"place": place, "attack": CLEAN, "outcome": ""} | facts)
        for attack, result in attacked(classifier, batch, self.attacks, self.target):
            common = _common(classifier, attack, outcomes(batch, result), true, promoted(result, true))
            pictures = picture_rows(classifier, result.attempted, result.logits, result.attempted - result.clean)
            rows += (one | facts for one, facts in zip(common, pictures, strict=True))
            for name, maps in self._maps(classifier, result, true):
                if isinstance(maps, MethodError):
                    rows += ({**one, "method": name, "error": f"{name}: {maps}"} for one in common)
                    continue
                rows += ({**one, "method": name} | facts for one, facts in zip(common, self._facts(maps), strict=True))
                kept |= {f"{attack}/{name}/{kind}": maps[:, number] for number, kind in enumerate(_KIND_TITLES)}
        return Measured(rows, kept)

    def _maps(
        self, classifier: Classifier, result: AttackResult, true: Classes
    ) -> Iterator[tuple[str, Tensor | MethodError]]:
        """Compute (n,4,d,h,w) the four maps of every method; enhanced ones hold the two classes against each other."""
        towards = promoted(result, true)
        before = dict(compute_pairs(self.methods, classifier, result.clean, true, towards))
        for name, after in compute_pairs(self.methods, classifier, result.attempted, true, towards):
            parts = [before[name], after]
            errors = [part for part in parts if isinstance(part, MethodError)]
            yield name, errors[0] if errors else torch.cat([part for part in parts if isinstance(part, Tensor)], dim=1)

    def _facts(self, maps: Tensor) -> Iterator[dict[str, Any]]:
        """Give for each image how its four maps differ, and the maps themselves."""
        numbers = {name: values.tolist() for name, values in _compared(maps, self.quantile).items()}
        for place, four in enumerate(maps):
            scale = scale_of(four)
            yield {
                **{name: values[place] for name, values in numbers.items()},
                "quantile": self.quantile,
                "scale": scale.end,
                "signed": scale.signed,
                "height": four.shape[-2],
                **{f"map_{kind}": to_levels(one, scale) for kind, one in zip(_KINDS, four, strict=True)},
            }

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier."""
        return [float(row["outcome"] == FOOLED) for row in rows if "method" not in row and row["attack"] != CLEAN]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means of how the maps change where the attack fools the classifier, and a list of the images shown."""
        check_some_method(table)
        chosen = most_telling(table, SHOWN)
        pictures = ["index", "image", "method", "attack", "outcome", "prediction", "probability", "l2", "linf"]
        listed = table.read(pictures, [("index", "in", chosen)])
        names = ["index", "attack", "outcome", "method", "quantile", *_KINDS, *_CHANGES, *_OVERLAPS]
        rows = table.read(names)
        measured = rows[rows["attack"] != CLEAN][["index", "attack", "outcome"]].drop_duplicates()
        rows = rows[(rows["outcome"] == FOOLED) & rows["method"].notna()]
        sentences = [
            f"Shown are {len(chosen)} of {table.images} images: where most attacks succeed and then maps move most.",
            f"The promoted class is the target, or the class reached. {counted_outcomes(measured)}",
            *_verdicts(rows, seed),
        ]
        shown = shown_table(listed[listed["method"].isna()], chosen)
        if not len(rows):
            said = f"No attack fooled the classifier on any image. {counted_outcomes(measured)}"
            return Summary((f"Shown are {len(chosen)} of {table.images} images.", said), (shown,))
        return Summary(tuple(sentences), (_change_table(rows, seed), _overlap_table(rows, seed), shown))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw the most telling images: a row for each attack and method, with both images and the four maps."""
        blocks = []
        for index in most_telling(table, SHOWN):
            rows = table.read(where=[("index", "==", index)])
            pictures = {str(row["attack"]): row for row in rows[rows["method"].isna()].to_dict("records")}
            lines = [_line(pictures, row) for row in rows[rows["method"].notna()].to_dict("records")]
            blocks.append((str(rows["image"].iloc[0]), lines))
        return tiles_figure(blocks)


def _common(
    classifier: Classifier, attack: str, kinds: Sequence[str], true: Classes, towards: Classes
) -> list[dict[str, Any]]:
    return [
        {
            "place": place,
            "attack": attack,
            "outcome": kind,
            "true_class": classifier.class_name(own),
            "promoted_class": classifier.class_name(other),
        }
        for place, (kind, own, other) in enumerate(zip(kinds, true.tolist(), towards.tolist(), strict=True))
    ]


def _compared(maps: Tensor, quantile: float) -> dict[str, PerImage]:
    """Compare (n,4,d,h,w) the maps of `_KINDS`; (n,) for each number."""
    four = dict(zip(_KINDS, maps.unbind(1), strict=True))
    sizes = {kind: one.sum(1).double().clamp_min(0).mean((1, 2)) for kind, one in four.items()}
    found: dict[str, PerImage] = {"moved": 1 - cosine(maps[:, :2].flatten(1, 2), maps[:, 2:].flatten(1, 2)), **sizes}
    for which in ("true", "promoted"):
        clean, after = (f"{which}_{when}" for when in ("clean", "attacked"))
        found[f"{which}_change"] = (sizes[after] - sizes[clean]) / torch.maximum(sizes[after], sizes[clean])
        found[f"{which}_cosine"] = cosine(four[clean], four[after])
        found[f"{which}_overlap"] = _overlap(four[clean], four[after], quantile)
    for when in ("clean", "attacked"):
        found[f"overlap_{when}"] = _overlap(four[f"true_{when}"], four[f"promoted_{when}"], quantile)
    return found


def _overlap(maps: Tensor, others: Tensor, quantile: float) -> PerImage:
    """Return (n,) the intersection over the union of two discriminative regions; NaN where a map is constant."""
    first, second = (discriminative_region(one, quantile) for one in (maps, others))
    shared, either = (both.sum((1, 2)).double() for both in (first & second, first | second))
    flat = [(one.sum(1).flatten(1).amax(1) == one.sum(1).flatten(1).amin(1)) for one in (maps, others)]
    return torch.where(flat[0] | flat[1], torch.nan, shared / either)


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Go through the rows of each attack and method, in the order in which the table has them first."""
    for (attack, method), own in rows.groupby(["attack", "method"], observed=True):
        yield str(attack), str(method), own


def _means(rows: pd.DataFrame, columns: Sequence[str], seed: int) -> list[Interval]:
    return bootstrap_means(torch.tensor(rows[list(columns)].to_numpy(dtype="float64")), seed=seed)


def _verdicts(rows: pd.DataFrame, seed: int) -> Iterator[str]:
    for attack, method, own in _groups(rows):
        true, towards = _means(own, ("true_change", "promoted_change"), seed)
        ratios = (own[f"{which}_attacked"] / own[f"{which}_clean"] for which in ("true", "promoted"))
        fall, rise = (_times(ratio.median()) for ratio in ratios)
        text = (
            f"{attack}, {method}: the positive part of the true class's map becomes {fall}, that of the promoted "
            f"class's {rise} (medians of {len(own)} images)."
        )
        if min(true.count, towards.count) >= FEWEST:
            text += f" The first {_way(true)}, the second {_way(towards)}, by the interval of the mean relative change."
        yield text


def _times(ratio: float) -> str:
    # A Grad-CAM may be 0 everywhere, and nothing is a multiple of that.
    if math.isfinite(ratio):
        return f"{ratio:.3g} times what it was"
    return "0 as it was" if math.isnan(ratio) else "more than the 0 that it was"


def _way(change: Interval) -> str:
    if change.low <= 0 <= change.high:
        return "is not seen to change"
    return "rises" if change.low > 0 else "falls"


def _change_table(rows: pd.DataFrame, seed: int) -> SummaryTable:
    headings = tuple(f"{which}: {what}" for which in ("true", "promoted") for what in ("change", "cosine", "overlap"))
    size = float(rows["quantile"].iloc[0])
    return SummaryTable(
        "How the maps of the true and of the promoted class change from the clean to the adversarial image: relative "
        "change of the mean positive part, from −1 (gone) to 1 (new); cosine; and overlap of the discriminative "
        f"regions, intersection over union. Two independent regions of {100 * size:g} % of the pixels overlap by about "
        f"{size / (2 - size):.2f}.",
        ("attack", "method", *headings),
        [(attack, method, *_means(own, _CHANGES, seed)) for attack, method, own in _groups(rows)],
        frozenset(heading for heading in headings if heading.endswith("change")),
    )


def _overlap_table(rows: pd.DataFrame, seed: int) -> SummaryTable:
    rows = rows.assign(difference=rows["overlap_attacked"] - rows["overlap_clean"])
    lines: list[tuple[Cell, ...]] = [
        (attack, method, *_means(own, (*_OVERLAPS, "difference"), seed)) for attack, method, own in _groups(rows)
    ]
    return SummaryTable(
        "Overlap of the true class's discriminative region with the promoted class's, in the same image.",
        ("attack", "method", "clean image", "adversarial image", "difference"),
        lines,
        frozenset({"difference"}),
    )


def _line(pictures: Mapping[str, Mapping[Any, Any]], row: Mapping[Any, Any]) -> Line:
    """Turn what is known of one image under one attack, by one method, into pictures: both images, then four maps."""
    after = pictures[str(row["attack"])]
    label = (
        f"{row['attack']}\n{row['method']}\n{row['outcome']}: {after['prediction']} {after['probability']:.0%}\n"
        f"true: {row['true_class']}\npromoted: {row['promoted_class']}"
    )
    clean, adversarial = (from_png(one["picture"]).convert("RGB") for one in (pictures[CLEAN], after))
    tiles = [("clean image", clean), ("adversarial image", adversarial)]
    for kind, heading in zip(_KINDS, _KIND_TITLES, strict=True):
        values = from_levels(row[f"map_{kind}"], int(row["height"]))
        colours = scaled_picture(values, Scale(1.0, bool(row["signed"])))
        under = (clean if kind.endswith("clean") else adversarial).convert("L").convert("RGB")
        tiles.append((heading, PILImage.blend(under, colours, _STRENGTH)))
    return Line(label, tiles)
