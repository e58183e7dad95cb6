"""How the number of images that are fitted to is written up: D over it, and whether more images help."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.bands import bands_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.over_images import check_some_method, judge, say_family
from whyfooled.studies.parts.right_images import TESTED
from whyfooled.studies.table import Table
from whyfooled.studies.universal.comparison import CHANCE, D_AND_FOOLED, Compared, D, compare
from whyfooled.studies.universal.sentences import ball_text, first_measured, who_was_tested
from whyfooled.tensors.statistics import FEWEST, Interval, Side


def summarise(table: Table, seed: int) -> Summary:
    """Means of D for every number of images, and whether more images help."""
    rows = table.read()
    who = who_was_tested(rows, table.images)
    check_some_method(table, [CHANCE])
    first = first_measured(rows)
    what = (
        f"D is the mean over test images, and over the draws of the fitting images ({rows['repeat'].nunique()}). "
        f"Epsilon is {first['epsilon']:g}, the {ball_text(first)}. Intervals are over test images; how far single "
        "draws lie apart says how much it matters which images are fitted to."
    )
    by_method = _spread(rows, seed)
    sides = judge({method: compared.less_chance for method, compared in by_method.items()})
    verdicts = [
        f"{method}: {_verdict(compared, sides[method], say_family(sides))}" for method, compared in by_method.items()
    ]
    return Summary((who, what, *verdicts), (_table(by_method, _draws(rows)),))


def draw(table: Table, seed: int) -> Figure:
    """Draw D over the number of images, with the draws beside the means."""
    rows = table.read()
    by_method, draws = _spread(rows, seed), _draws(rows)
    curves: dict[str, list[tuple[float, Interval]]] = {}
    points: dict[str, list[tuple[float, float]]] = {}
    for method, compared in by_method.items():
        d, sizes = compared.d.means, _sizes(compared)
        curves[method] = [(int(size), d[size]) for size in sizes]
        points[method] = [(int(size), mean) for size in sizes for mean in draws[method, size][D]]
    every = {size for curve in curves.values() for size, _ in curve}
    curves[CHANCE] = [(size, d[CHANCE]) for size in sorted(every)]
    y = "dissimilarity D of the maps"
    return bands_figure(curves, x="images to fit to", y=y, references=[CHANCE], points=points)


def _spread(rows: pd.DataFrame, seed: int) -> dict[str, Compared]:
    """Spread out, for each method, the numbers of images that it was fitted to, smallest first; all draws of each."""
    rows = rows[rows["outcome"] == TESTED]
    rows = rows.assign(fitted_to=rows["size"].map("{:.0f}".format).where(rows["size"].notna(), CHANCE))
    return {
        str(method): compare(rows[rows["method"].isin([method, CHANCE])], "fitted_to", D_AND_FOOLED, seed)
        for method in rows["method"].unique()
        if method != CHANCE
    }


def _sizes(compared: Compared) -> list[str]:
    return [size for size in compared.d.entries if size != CHANCE]


def _draws(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Take, for each method and size, the mean D of each draw and how many images were fitted to."""
    by_draw = rows.groupby(["method", "size", "repeat"], observed=True)[[D, "fit_images"]].mean()
    by_size = by_draw.groupby(["method", "size"], observed=True)
    return {(str(part.index[0][0]), f"{part.index[0][1]:.0f}"): part for _, part in by_size}


def _verdict(compared: Compared, sides: Mapping[str, Side], judged: str) -> str:
    """Say from how many images on a method is above chance, and whether more images help."""
    sizes = _sizes(compared)
    least, most = sizes[0], sizes[-1]
    if compared.d.means[most].count < FEWEST:
        return f"of fewer than {FEWEST} test images nothing can be said."
    enough = [size for place, size in enumerate(sizes) if {sides.get(larger) for larger in sizes[place:]} == {"above"}]
    above = f"D is above chance from {enough[0]} images on" if enough else "D is not surely above chance"
    above = f"{above} (by {judged})."
    if least == most:
        return above
    gain = compared.d.minus(least)[most]
    sure = {"above": "larger", "below": "smaller", "open": "not surely another"}[gain.side()]
    return f"{above} Fitted to {most} images, it is {sure} than fitted to {least} (by {gain.format(sign=True)})."


def _table(by_method: Mapping[str, Compared], draws: Mapping[tuple[str, str], pd.DataFrame]) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for method, compared in by_method.items():
        d, fooled = (spread.means for spread in compared.measures.values())
        minus_chance = compared.less_chance.means
        for size in _sizes(compared):
            of_size = draws[method, size]
            known = of_size[D].dropna()
            span = f"{known.min():.3f} to {known.max():.3f}" if len(known) else None
            right = f"{of_size['fit_images'].mean():.3g}"
            lines.append((method, int(size), right, d[size], span, minus_chance[size], fooled[size]))
    lines.append((CHANCE, None, None, d[CHANCE], None, None, fooled[CHANCE]))
    columns = ("perturbation", "images drawn", "of them right", "D", "of single draws", "minus chance", "fooling rate")
    caption = "D on test images over the number of images to fit to, and the paired difference to chance."
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
