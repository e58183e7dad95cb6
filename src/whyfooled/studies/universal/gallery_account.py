"""How the gallery of universal perturbations is written up: pictures of typical images, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image as PILImage

from whyfooled.drawing.figures.tiles import Line, tiles_figure
from whyfooled.drawing.pictures import Scale, scaled_picture
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import CLEAN
from whyfooled.studies.parts.over_images import check_some_method
from whyfooled.studies.parts.pictures import SHOWN, from_levels, from_png
from whyfooled.studies.parts.right_images import TESTED
from whyfooled.studies.table import Table
from whyfooled.studies.universal.comparison import D
from whyfooled.studies.universal.sentences import ball_text, first_measured, who_was_tested

_FACTS = (D, "prediction", "probability")


def summarise(table: Table, seed: int) -> Summary:
    """List D and what the classifier makes of the images that are shown."""
    rows = table.read(["index", "outcome", "fit", "fit_images", "method", "saliency", "ball", "scale", "epsilon"])
    who = who_was_tested(rows, table.images)
    check_some_method(table, [CLEAN])
    chosen = typical(table, SHOWN)
    first = first_measured(rows)
    what = (
        f"Shown are {len(chosen)} typical images: those whose D under the first perturbation is nearest to its "
        f"quartiles. Maps are those of {first['saliency']}, normalised, of the class that the image shows. Epsilon is "
        f"{first['epsilon']:g}, the {ball_text(first)}."
    )
    shown = table.read(["index", "image", "method", *_FACTS], [("index", "in", chosen)])
    lines: list[tuple[Cell, ...]] = [
        (row["image"], row["method"], *(row[name] for name in _FACTS))
        for index in chosen
        for row in shown[shown["index"] == index].to_dict("records")
    ]
    caption = "D, and what the classifier makes of the images shown."
    columns = ("image", "perturbation", "D", "prediction", "probability")
    return Summary((who, what), (SummaryTable(caption, columns, lines),))


def draw(table: Table, seed: int) -> Figure:
    """Draw the perturbations; below, for each image, a row of images and one of maps, a column for each."""
    blocks: list[tuple[str, list[Line]]] = []
    for index in typical(table, SHOWN):
        rows = table.read(where=[("index", "==", index)])
        if not blocks:
            blocks.append(("Perturbations, magnified around grey", [_perturbations(rows)]))
        blocks.append((str(rows["image"].iloc[0]), _pictures(rows)))
    return tiles_figure(blocks)


def typical(table: Table, count: int) -> list[int]:
    """Choose images whose D under the first method is nearest to evenly spread quantiles, smallest first.

    If every map is empty, so that there is no D, they are spread evenly over all images.
    """
    rows = table.read(["index", "method", "dissimilarity", "outcome"])
    rows = rows[(rows["outcome"] == TESTED) & (rows["method"] != CLEAN)]
    known = rows[rows["dissimilarity"].notna()]
    rows = rows if known.empty else known
    first = rows[rows["method"] == rows["method"].iloc[0]].sort_values("dissimilarity", kind="stable")
    places = {(number + 1) * len(first) // (count + 1) for number in range(count)}
    return [int(index) for index in first["index"].iloc[sorted(places)]]


def _perturbations(rows: pd.DataFrame) -> Line:
    tiles = [
        (f"{row['method']}, ×{row['magnified']:g}", from_png(row["delta"]))
        for row in rows[rows["method"] != CLEAN].to_dict("records")
    ]
    # Nothing above the clean images.
    return Line("", [("", PILImage.new("RGB", tiles[0][1].size, "white")), *tiles])


def _pictures(rows: pd.DataFrame) -> list[Line]:
    """Turn what is known of one image into a line of images and one of maps."""
    views = rows.to_dict("records")
    images = [(_heading(row), from_png(row["picture"])) for row in views]
    return [Line("image", images), Line("map", [("", _map(row)) for row in views])]


def _heading(row: Mapping[Any, Any]) -> str:
    seen = f"{row['prediction']} {row['probability']:.0%}"
    if row["method"] == CLEAN:
        return f"clean: {seen}"
    return seen if isnan(row["dissimilarity"]) else f"D {row['dissimilarity']:.2f}, {seen}"


def _map(row: Mapping[Any, Any]) -> PILImage.Image:
    return scaled_picture(from_levels(row["map"], int(row["height"])), Scale(1.0, signed=False))
