"""How the maps of the true and of the promoted class change under attacks: the account of `cam_pairs`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image as PILImage

from whyfooled.drawing.figures.tiles import Line
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import CLEAN, FOOLED
from whyfooled.studies.parts.fooled import describe_outcomes
from whyfooled.studies.parts.over_images import Spread, check_some_method, group_rows
from whyfooled.studies.parts.pictures import choose_most_telling, draw_map, draw_shown, from_png, tabulate_shown
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST

KINDS = {
    f"{which}_{when}": f"{image} image, {which} class"
    for when, image in (("clean", "clean"), ("attacked", "adversarial"))
    for which in ("true", "promoted")
}
CHANGES = {
    f"{which}_{what}": f"{which}: {what}" for which in ("true", "promoted") for what in ("change", "cosine", "overlap")
}
OVERLAPS = {"overlap_clean": "clean image", "overlap_attacked": "adversarial image"}
_STRENGTH = 0.55
"""How strongly a map's colours cover the photograph under it, from 0 to 1. [ours]"""


def summarise(table: Table, seed: int) -> Summary:
    """Means of how the maps change where the attack fools the classifier, and a list of the images shown."""
    check_some_method(table)
    chosen = choose_most_telling(table)
    shown, pictures = f"Shown are {len(chosen)} of {table.images} images", tabulate_shown(table, chosen)
    rows = table.read(["index", "attack", "outcome", "method", "quantile", *KINDS, *CHANGES, *OVERLAPS])
    attacked = rows[rows["attack"] != CLEAN][["index", "attack", "outcome"]].drop_duplicates()
    fooled = rows[(rows["outcome"] == FOOLED) & rows["method"].notna()]
    if fooled.empty:
        said = f"No attack fooled the classifier on any image. {describe_outcomes(attacked)}"
        return Summary((f"{shown}.", said), (pictures,))
    sentences = (
        f"{shown}: where most attacks succeed and then maps change most.",
        f"The promoted class is the target, or the class reached. {describe_outcomes(attacked)}",
        *_say_how_maps_change(fooled, seed),
    )
    return Summary(sentences, (_tabulate_changes(fooled, seed), _tabulate_overlaps(fooled, seed), pictures))


def _say_how_maps_change(rows: pd.DataFrame, seed: int) -> Iterator[str]:
    for (attack, method), group in group_rows(rows, "attack", "method"):
        ratios = (group[f"{which}_attacked"] / group[f"{which}_clean"] for which in ("true", "promoted"))
        true, promoted = (say_ratio(ratio.median()) for ratio in ratios)
        text = (
            f"{attack}, {method}: the positive part of the true class's map becomes {true}, that of the promoted "
            f"class's {promoted} (medians of {len(group)} images)."
        )
        changes = Spread.of_columns(group, ("true_change", "promoted_change"), seed).means.values()
        if min(change.count for change in changes) >= FEWEST:
            first, second = (SAID[change.side()] for change in changes)
            text += f" The first {first}, the second {second}, by the interval of the mean relative change."
        yield text


SAID = {"above": "rises", "below": "falls", "open": "is not seen to change"}
"""How a change is said, by the side of 0 on which its interval lies."""


def say_ratio(ratio: float) -> str:
    """Say what a map's positive part is a multiple of."""
    # A Grad-CAM may be 0 everywhere, and nothing is a multiple of that.
    if math.isfinite(ratio):
        return f"{ratio:.3g} times what it was"
    return "0 as it was" if math.isnan(ratio) else "more than the 0 that it was"


def _tabulate_changes(rows: pd.DataFrame, seed: int) -> SummaryTable:
    size = float(rows["quantile"].iloc[0])
    caption = (
        "How the maps of the true and of the promoted class change from the clean to the adversarial image: relative "
        "change of the mean positive part, from −1 (gone) to 1 (new); cosine similarity; and overlap of the "
        f"discriminative regions, intersection over union. Two independent regions of {100 * size:g} % of the pixels "
        f"overlap by about {size / (2 - size):.2f}."
    )
    return _tabulate(caption, rows, CHANGES, seed)


def _tabulate_overlaps(rows: pd.DataFrame, seed: int) -> SummaryTable:
    caption = "Overlap of the true class's discriminative region with the promoted class's, in the same image."
    rows = rows.assign(difference=rows["overlap_attacked"] - rows["overlap_clean"])
    return _tabulate(caption, rows, {**OVERLAPS, "difference": "difference"}, seed)


def _tabulate(caption: str, rows: pd.DataFrame, columns: Mapping[str, str], seed: int) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = [
        (*labels, *Spread.of_columns(group, list(columns), seed).means.values())
        for labels, group in group_rows(rows, "attack", "method")
    ]
    signed = frozenset(heading for heading in columns.values() if heading.endswith(("change", "difference")))
    return SummaryTable(caption, ("attack", "method", *columns.values()), lines, signed)


def draw(table: Table, seed: int) -> Figure:
    """Draw the most telling images: a row for each attack and method, with both images and the four maps."""
    return draw_shown(table, _make_lines)


def _make_lines(rows: pd.DataFrame) -> list[Line]:
    pictures = {str(row["attack"]): row for row in rows[rows["method"].isna()].to_dict("records")}
    of_methods = rows[rows["method"].notna()].to_dict("records")
    return [_make_line(maps, pictures[CLEAN], pictures[maps["attack"]]) for maps in of_methods]


def _make_line(maps: Mapping[Any, Any], clean: Mapping[Any, Any], attacked: Mapping[Any, Any]) -> Line:
    """Turn what is known of one image under one attack, by one method, into pictures: both images, then four maps."""
    label = (
        f"{maps['attack']}\n{maps['method']}\n{maps['outcome']}: {attacked['prediction']} "
        f"{attacked['probability']:.0%}\ntrue: {maps['true_class']}\npromoted: {maps['promoted_class']}"
    )
    before, after = (from_png(row["picture"]).convert("RGB") for row in (clean, attacked))
    tiles = [("clean image", before), ("adversarial image", after)]
    for kind, heading in KINDS.items():
        under = (before if kind.endswith("clean") else after).convert("L").convert("RGB")
        tiles.append((heading, PILImage.blend(under, draw_map(maps, f"map_{kind}"), _STRENGTH)))
    return Line(label, tiles)
