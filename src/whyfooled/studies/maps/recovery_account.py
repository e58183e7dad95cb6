"""Which order of the pixels brings the true class back: the account of `recovery`."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.curves import Curves, curves_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import ALREADY_WRONG, FAILED, FOOLED, check_some_fooled
from whyfooled.studies.parts.over_images import Spread, check_some_method, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Side

RANDOM, SIZE = "Random order", "Size of the perturbation"
_REFERENCES = (RANDOM, SIZE)
_FILL_TITLES = {"zero": "black", "mean": "the image's mean", "noise": "uniform noise", "blur": "blurred"}


def summarise(table: Table, seed: int) -> Summary:
    """Means over the shares of pixels, for every fill; areas under the curves; paired differences to the best."""
    sentences, tables = [_count_fooled(table)], []
    check_some_method(table, _REFERENCES)
    fills = _read_fills(table)
    spreads = {fill: Spread.of(rows, "method", "recovered", seed) for fill, rows in fills.items()}
    sides = judge({fill: _minus_random(recovered) for fill, recovered in spreads.items()})
    for fill, rows in fills.items():
        recovered = spreads[fill]
        sentences.append(_say_highest(fill, recovered, [*sides[fill].values()], say_family(sides)))
        tables.append(_tabulate(fill, recovered, Spread.of(integrate(rows), "method", "area", seed), rows))
    return Summary(tuple(sentences), tuple(tables))


def draw(table: Table, seed: int) -> Figure:
    """Draw the curves with their intervals, a panel for each fill."""
    return curves_figure(
        {f"pixels become {_FILL_TITLES[fill]}": _curves(rows, seed) for fill, rows in _read_fills(table).items()},
        x="perturbed pixels, most salient first (%)",
        y="given the true class again",
        references=_REFERENCES,
    )


def _read_fills(table: Table) -> dict[str, pd.DataFrame]:
    columns = ["index", "method", "fraction", "recovered"]
    fills = table.read(["fill"])["fill"].dropna().unique()
    return {str(fill): table.read(columns, [("fill", "==", fill)]) for fill in fills}


def _count_fooled(table: Table) -> str:
    outcome = table.read(["index", "outcome"]).drop_duplicates("index")["outcome"]
    check_some_fooled(outcome)
    fooled, already, failed = (int((outcome == kind).sum()) for kind in (FOOLED, ALREADY_WRONG, FAILED))
    return (
        f"{fooled} of {len(outcome)} images fool the classifier and are measured; {already} were misclassified before "
        f"the attack, on {failed} it failed."
    )


def _minus_random(recovered: Spread) -> Spread:
    """Compare every method with a random order."""
    return recovered.gaps({name: (name, RANDOM) for name in recovered.entries if name not in _REFERENCES})


def _say_highest(fill: str, recovered: Spread, sides: Sequence[Side], judged: str) -> str:
    """Say which method is the highest, and how many are better than a random order."""
    means, best = recovered.means, recovered.best(_REFERENCES)
    text = (
        f"When pixels become {_FILL_TITLES[fill]}: the highest is {best}, {means[best]} (random order {means[RANDOM]})."
    )
    if means[best].count < FEWEST:
        count = means[best].count
        return f"{text} Of {count} images nothing can be said about which methods are better than a random order."
    better, worse = sides.count("above"), sides.count("below")
    are = "is" if better == 1 else "are"
    return f"{text} Of {len(sides)} methods {better} {are} better than a random order and {worse} worse, by {judged}."


def _tabulate(fill: str, recovered: Spread, area: Spread, rows: pd.DataFrame) -> SummaryTable:
    best = recovered.best(_REFERENCES)
    to_best, to_random = recovered.minus(best), recovered.minus(RANDOM)
    lines: list[tuple[Cell, ...]] = [
        (name, mean, to_best.get(name), to_random.get(name), area.means[name])
        for name, mean in sorted(recovered.means.items(), key=lambda pair: -pair[1].mean)
    ]
    caption = (
        f"Pixels become {_FILL_TITLES[fill]}. Recovered: the share of the adversarial images that are given their true "
        "class again, averaged over the shares of perturbed pixels; its paired differences; and the area under the "
        f"curve from 0 to {100 * rows['fraction'].max():g} % of the pixels (trapezoids; 1 if every image recovered at "
        "once)."
    )
    differences = (f"minus {best}", f"minus {RANDOM.lower()}")
    headings = ("order of the pixels", "recovered", *differences, "area")
    return SummaryTable(caption, headings, lines, frozenset(differences))


def integrate(rows: pd.DataFrame) -> pd.DataFrame:
    """Integrate each image's curve over the share of pixels, from 0 (where nothing has recovered)."""
    rows = rows.sort_values(["index", "fraction"], kind="stable")
    curves = rows.groupby(["index", "method"], observed=True, sort=False)
    width = rows["fraction"] - curves["fraction"].shift(fill_value=0)
    middle = (rows["recovered"] + curves["recovered"].shift(fill_value=0)) / 2
    rows["area"] = width * middle / rows["fraction"].max()
    return rows.groupby(["index", "method"], observed=True, sort=False)["area"].sum().reset_index()


def _curves(rows: pd.DataFrame, seed: int) -> Curves:
    """Return each method's curve: the share of perturbed pixels in per cent, and the share that recovers."""
    points = {
        fraction: Spread.of(rows[rows["fraction"] == fraction], "method", "recovered", seed).means
        for fraction in sorted(rows["fraction"].unique())
    }
    return {
        str(name): [(100 * fraction, means[name]) for fraction, means in points.items()]
        for name in rows["method"].unique()
    }
