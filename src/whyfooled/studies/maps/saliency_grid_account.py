"""The most telling images with every method's maps: the account of `saliency_grid`."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.tiles import Line
from whyfooled.drawing.summary import Summary
from whyfooled.studies.parts.over_images import check_some_method
from whyfooled.studies.parts.pictures import choose_most_telling, draw_map, draw_shown, from_png, tabulate_shown
from whyfooled.studies.table import Table


def summarise(table: Table, seed: int) -> Summary:
    """List what the classifier makes of the images that are shown."""
    check_some_method(table)
    chosen = choose_most_telling(table)
    count = f"{len(chosen)} of {table.images} images"
    said = f"Shown are {count}: those on which most attacks succeed and maps change most."
    return Summary((said,), (tabulate_shown(table, chosen),))


def draw(table: Table, seed: int) -> Figure:
    """Draw the grid of the most telling images: a row for clean and each attack, a column for each method."""
    return draw_shown(table, _make_lines)


def _make_lines(rows: pd.DataFrame) -> list[Line]:
    """Turn what is known of one image into lines of pictures: the image under one attack, then its maps."""
    lines = []
    for attack in rows["attack"].dropna().unique():
        image, *maps = rows[rows["attack"] == attack].to_dict("records")
        label = f"{attack}\n{image['outcome']}\n{image['prediction']} {image['probability']:.0%}"
        lines.append(Line(label, [("", from_png(image["picture"])), *((row["method"], draw_map(row)) for row in maps)]))
    return lines
