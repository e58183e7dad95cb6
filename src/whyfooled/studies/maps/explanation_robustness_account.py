"""Which explanations are the hardest to forge: the account of `explanation_robustness`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import quantile_test

from whyfooled.drawing.figures.curves import Curves, curves_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import ALREADY_WRONG, check_some_fooled
from whyfooled.studies.parts.over_images import Spread, check_some_method, group_rows, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST

NUMBERS = {
    "cosine": "cosine similarity to the clean map",
    "matched": "plain attack of the same margin",
    "chance": "clean maps of other images",
    "gain": "share of what the plain attack leaves open that is gained",
    "forged": "forged",
}
"""What is measured in each ball, by its column."""

ENOUGH_SUCCESS = 0.95
"""Share of the images that an attack must fool the classifier on, for its curve to have a point there."""


def summarise(table: Table, seed: int) -> Summary:
    """Rank the methods by the smallest radius at which half of the images are forged, and list every radius."""
    rows = _read_measured(table)
    outcomes = table.read(["index", "outcome"]).drop_duplicates()
    wrong = outcomes[outcomes["outcome"] == ALREADY_WRONG]["index"].nunique()
    smallest = _spread_smallest(rows)
    sentences = [
        f"{outcomes['index'].nunique()} images, {wrong} of them misclassified before any attack and left out. A map is "
        "forged where the classifier is fooled and half of what a plain attack of the same margin leaves open, between "
        "its cosine similarity to the clean map and 1, is gained.",
        f"Without a view to the map the classifier is fooled at {_write_median(_list_fooled(rows))}.",
        *_say_where_too_few_are_fooled(rows),
        "From the hardest to forge to the easiest, by the median of the smallest radius: "
        f"{'; '.join(f'{method} {_write_median(list(smallest[method]))}' for method in _rank(smallest))}.",
        *_say_which_differ(smallest, seed),
        "That an attack does not forge a map does not mean that no attack can: these are upper bounds.",
    ]
    return Summary(tuple(sentences), (_tabulate_board(rows, smallest, seed), *_tabulate_radii(rows, seed)))


def draw(table: Table, seed: int) -> Figure:
    """Draw each method's cosine similarity to the clean map over the radius, where enough images are fooled."""
    rows = _read_measured(table)
    panels: dict[str, Curves] = {
        "forged": _curves(rows, "cosine", seed),
        "plain attack of the same margin": _curves(rows, "matched", seed),
        "clean maps of other images (chance)": _curves(rows, "chance", seed),
    }
    return curves_figure(panels, x="radius (255ths)", y="cosine similarity to the clean map")


def _read_measured(table: Table) -> pd.DataFrame:
    columns = ["index", "outcome", "method", "epsilon", "reached", *NUMBERS, "smallest", "smallest_fooled"]
    check_some_fooled(table.read(["outcome"])["outcome"])
    check_some_method(table)
    rows = table.read(columns)
    return rows[rows["epsilon"].notna()]


def _say_where_too_few_are_fooled(rows: pd.DataFrame) -> Iterator[str]:
    methods_of: dict[str, list[str]] = {}
    for (method,), group in group_rows(rows, "method"):
        few = [_write_radius(epsilon) for epsilon in _list_radii(rows) if not _is_fooled(_at(group, epsilon))]
        if few:
            methods_of.setdefault(", ".join(few), []).append(method)
    for radii, methods in methods_of.items():
        yield f"Fewer than 95 % of the images are fooled at {radii}, where there is no point of: {', '.join(methods)}."


def _say_which_differ(smallest: pd.DataFrame, seed: int) -> Iterator[str]:
    """Say which methods are harder than which on more of the images than the other way round, by more than luck."""
    if len(smallest) < FEWEST:
        yield f"Of fewer than {FEWEST} images nothing can be said about this order."
        return
    pairs = list(combinations(_rank(smallest), 2))
    if not pairs:
        return
    # Only which of the two is larger: a radius beyond the largest has no number.
    signs = [(smallest[a] > smallest[b]).astype(float) - (smallest[a] < smallest[b]).astype(float) for a, b in pairs]
    values = torch.tensor(list(zip(*signs, strict=True)), dtype=torch.float64)
    names = [f"{a} than {b}" for a, b in pairs]
    sides = judge({"": Spread(tuple(names), values, seed, differences=True)})
    sure = [name for name, side in sides[""].items() if side == "above"]
    yield f"Harder on more images than easier, by more than luck: {'; '.join(sure) or 'none'} ({say_family(sides)})."


def _list_radii(rows: pd.DataFrame) -> list[float]:
    return sorted(map(float, rows["epsilon"].unique()))


def _at(rows: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    return rows[rows["epsilon"] == epsilon]


def _is_fooled(rows: pd.DataFrame) -> bool:
    return bool(rows["reached"].mean() >= ENOUGH_SUCCESS)


def _spread_smallest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest radius of each image (rows) and method (columns); infinite where it is forged at none."""
    each = rows.drop_duplicates(["index", "method"]).astype({"method": str})
    return each.pivot(index="index", columns="method", values="smallest").astype(float).fillna(math.inf)


def _list_fooled(rows: pd.DataFrame) -> list[float]:
    return list(rows.drop_duplicates("index")["smallest_fooled"].astype(float).fillna(math.inf))


def _rank(smallest: pd.DataFrame) -> list[str]:
    """Name the methods, the hardest to forge first."""
    medians = smallest.median()
    return sorted(map(str, smallest.columns), key=lambda method: -medians[method])


def _write_median(radii: Sequence[float]) -> str:
    """Write the median with its 95 % interval, between two of the values (as the binomial distribution has them)."""
    median = _write_radius(float(pd.Series(radii).median()))
    ends = quantile_test(radii, p=0.5).confidence_interval(0.95)
    if math.isnan(ends.low) or math.isnan(ends.high):
        return median
    return f"{median} [{_write_radius(ends.low)}, {_write_radius(ends.high)}]"


def _write_radius(radius: float) -> str:
    return f"{255 * radius:.3g}/255" if math.isfinite(radius) else "beyond the largest"


def _write_times(times: float) -> str:
    return f"{times:.2g}" if math.isfinite(times) else "–"


def _tabulate_board(rows: pd.DataFrame, smallest: pd.DataFrame, seed: int) -> SummaryTable:
    radii = _list_radii(rows)
    lines: list[tuple[Cell, ...]] = []
    for method in _rank(smallest):
        group = rows[rows["method"] == method]
        shares = [Spread.of(_at(group, epsilon), "method", "forged", seed).means[method] for epsilon in radii]
        times = smallest[method] / group.drop_duplicates("index").set_index("index")["smallest_fooled"].astype(float)
        lines.append((method, _write_median(list(smallest[method])), _write_times(float(times.median())), *shares))
    caption = (
        "The smallest radius at which a map is forged, its median over images with a 95 % interval; how many times as "
        "large it is as the smallest that fools the classifier alone, the median; the share forged at each radius."
    )
    return SummaryTable(caption, ("method", "smallest", "times", *map(_write_radius, radii)), lines)


def _tabulate_radii(rows: pd.DataFrame, seed: int) -> Iterator[SummaryTable]:
    for epsilon in _list_radii(rows):
        columns = [Spread.of(_at(rows, epsilon), "method", column, seed).means for column in ("reached", *NUMBERS)]
        lines: list[tuple[Cell, ...]] = [(method, *(means[method] for means in columns)) for method in columns[0]]
        yield SummaryTable(f"Radius {_write_radius(epsilon)}.", ("method", "fooled", *NUMBERS.values()), lines)


def _curves(rows: pd.DataFrame, column: str, seed: int) -> Curves:
    """Return each method's points (radius in 255ths, mean), where enough images are fooled."""
    return {
        method: [
            (255 * epsilon, Spread.of(_at(group, epsilon), "method", column, seed).means[method])
            for epsilon in _list_radii(rows)
            if _is_fooled(_at(group, epsilon))
        ]
        for (method,), group in group_rows(rows, "method")
    }
