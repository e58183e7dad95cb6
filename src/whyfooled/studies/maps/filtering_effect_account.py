"""How alike the maps of two classes are, by method: the account of `filtering_effect`."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.histograms import histograms_figure
from whyfooled.drawing.summary import Summary, SummaryTable
from whyfooled.studies.parts.over_images import Spread, group_rows
from whyfooled.studies.table import Table

NUMBERS = ("similarity", "chance", "avg_diff")


def summarise(table: Table, seed: int) -> Summary:
    """Means over images of the similarity, its chance level and Avg-Diff, and how wide the latter spreads."""
    rows = table.read(["index", "classes", "method", "class_a", "class_b", *NUMBERS])
    means = [Spread.of(rows, "method", column, seed).means for column in NUMBERS]
    lines, sentences = [], [_say_where_classes_come_from(rows)]
    for (method,), pairs in group_rows(rows, "method"):
        similarity, chance, difference = (of_column[method] for of_column in means)
        low, middle, high = pairs["avg_diff"].quantile([0.05, 0.5, 0.95])
        lines.append((method, similarity, chance, difference, f"{low:.2f} – {middle:.2f} – {high:.2f}"))
        spread = f"Avg-Diff is {middle:.2f} in the middle, and from {low:.2f} to {high:.2f} for 90 % of the pairs"
        sentences.append(
            f"{method}: maps of two classes have the same sign on {similarity.mean:.1%} of the elements (by chance "
            f"{chance.mean:.1%}); {'no map has a positive part' if math.isnan(middle) else spread}."
        )
    caption = (
        "Pairs of classes of one image: similarity of the binarised maps; what it would be for independent maps with "
        "as many positive elements; and Avg-Diff, the relative difference of the maps' mean positive part. Means over "
        "images."
    )
    headings = ("method", "similarity", "chance", "Avg-Diff", "Avg-Diff of pairs: 5 % – 50 % – 95 %")
    return Summary(tuple(sentences), (SummaryTable(caption, headings, lines),))


def _say_where_classes_come_from(rows: pd.DataFrame) -> str:
    counts = rows.drop_duplicates("index")["classes"].value_counts()
    parts = [f"on {count} images the classes are {origin}" for origin, count in counts.items() if count]
    pairs = len(rows.drop_duplicates(["index", "class_a", "class_b"]))
    return f"{pairs} pairs of classes; {', '.join(parts)}."


def draw(table: Table, seed: int) -> Figure:
    """Draw histograms of both numbers over the pairs of classes, a row for each method."""
    panels = {
        method: {
            "similarity of binarised maps": (pairs["similarity"].to_numpy(), float(pairs["chance"].mean())),
            "Avg-Diff": (pairs["avg_diff"].dropna().to_numpy(), None),
        }
        for (method,), pairs in group_rows(table.read(["method", *NUMBERS]), "method")
    }
    return histograms_figure(panels, y="pairs of classes", marked="chance")
