"""Which maps stay when the model forgets what it learned: the account of `sanity_checks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.saliency.alikeness import ALIKENESS_TITLES
from whyfooled.studies.parts.over_images import Spread, check_some_method, group_rows, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import Interval, Side

OTHERS, LABELS = "other images", "labels"
"""What stands in the column ``randomised`` beside the two orders: nothing was, or what the model was trained on."""
CASCADING, INDEPENDENT = "cascading", "independent"
_CHANCE = "chance"
_TOO_FEW = "too few images"
_SHOWN = ("rank_correlation", "size_correlation", "ssim")
"""The measures of the paper, which are tabulated for every part."""
_DRAWN = ("rank_correlation", "ssim")


def summarise(table: Table, seed: int) -> Summary:
    """Similarity of the maps before and after, for every part and method, beside chance; and which methods pass."""
    check_some_method(table)
    rows = _read(table)
    compared = _compare(rows, seed)
    sentences = [
        f"{rows['index'].nunique()} images. Maps are of the class that the model sees in an image; chance is the "
        "similarity of its map to maps of other images by the same method.",
        f"Weights are those of one random draw, from the head down: {'; '.join(_name_parts(rows))}.",
        *_say_verdicts(compared),
        *_say_empty(rows),
        _say_labels(compared),
    ]
    stages = [str(stage) for stage in rows["stage"].unique() if stage != _CHANCE]
    tables = [_tabulate_verdicts(compared), *(_tabulate_stages(compared, measure, stages) for measure in _SHOWN)]
    return Summary(tuple(sentences), tuple(tables))


def draw(table: Table, seed: int) -> Figure:
    """Draw each method's similarity after each step, less chance; a panel for each measure and order."""
    rows = _read(table)
    compared = _compare(rows, seed)
    panels: dict[str, dict[str, dict[str, Interval]]] = {}
    for measure in _DRAWN:
        for order in (CASCADING, INDEPENDENT):
            parts = {f"part {stage.rpartition(' ')[2]}": stage for stage in _list_of_order(rows, order)}
            pairs = {part: (stage, _CHANCE) for part, stage in parts.items()}
            panels[f"{order}, {ALIKENESS_TITLES[measure]}"] = {
                method: compared.spreads[method, measure].gaps(pairs).means for method in compared.methods
            }
    return intervals_figure(panels, x="similarity of the maps before and after, less chance", line=0.0)


def _read(table: Table) -> pd.DataFrame:
    columns = ["index", "method", "randomised", "step", "layers", *ALIKENESS_TITLES]
    rows = table.read(columns)
    order, step = rows["randomised"].astype(str), rows["step"].astype("Float64")
    named = order + " " + step.map(lambda number: f"{number:.0f}", na_action="ignore").astype(object).fillna("")
    rows["stage"] = named.str.strip().replace(OTHERS, _CHANCE)
    return rows


def _list_of_order(rows: pd.DataFrame, order: str) -> list[str]:
    """List the stages of an order; the head alone stands in both."""
    first = f"{CASCADING} 1"
    stages = [str(stage) for stage in rows[rows["randomised"] == order]["stage"].unique()]
    return stages if first in stages else [first, *stages]


def _name_parts(rows: pd.DataFrame) -> Iterator[str]:
    steps = rows[rows["randomised"] == CASCADING].drop_duplicates("step").sort_values("step")
    return (f"{row.step:.0f} {row.layers}" for row in steps.itertuples())


@final
@dataclass(frozen=True, eq=False)
class _Compared:
    """Each method's similarity under every stage, and how it compares with chance once all weights are random.

    Parameters
    ----------
    last
        The stage in which they are.
    spreads
        For each method and measure, the similarity of each image's maps under every stage.
    gaps
        The similarity in the last stage less chance.
    sides
        On which side of chance that is.
    """

    last: str
    spreads: Mapping[tuple[str, str], Spread]
    gaps: Mapping[tuple[str, str], Spread]
    sides: Mapping[tuple[str, str], Mapping[str, Side]]

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _ in self.spreads))

    def find_verdict(self, method: str) -> str:
        """Say in a word whether a method passes: no measure finds its maps more alike than by chance."""
        known = [side for measure in ALIKENESS_TITLES for side in self.sides[method, measure].values()]
        if not known:
            return _TOO_FEW
        return "fails" if "above" in known else "passes"

    def find_gap(self, method: str, measure: str) -> Interval:
        return self.gaps[method, measure].means[self.last]

    def describe(self, method: str) -> str:
        """Give a method with its similarity and chance, by the measure that is farthest above it."""
        measure = max(ALIKENESS_TITLES, key=lambda measure: _known(self.find_gap(method, measure)))
        means = self.spreads[method, measure].means
        numbers = f"{means[self.last].mean:.2f}, by chance {means[_CHANCE].mean:.2f}"
        return f"{method} ({ALIKENESS_TITLES[measure]} {numbers})"


def _known(gap: Interval) -> float:
    return gap.mean if gap.count else float("-inf")


def _compare(rows: pd.DataFrame, seed: int) -> _Compared:
    last = f"{CASCADING} {rows[rows['randomised'] == CASCADING]['step'].max():.0f}"
    spreads = {
        (method, measure): Spread.of(group, "stage", measure, seed)
        for (method,), group in group_rows(rows, "method")
        for measure in ALIKENESS_TITLES
    }
    gaps = {key: spread.gaps({last: (last, _CHANCE)}) for key, spread in spreads.items()}
    return _Compared(last, spreads, gaps, judge(gaps))


def _say_verdicts(compared: _Compared) -> Iterator[str]:
    named: dict[str, list[str]] = {}
    for method in compared.methods:
        named.setdefault(compared.find_verdict(method), []).append(method)
    if _TOO_FEW in named:
        few = max(compared.find_gap(named[_TOO_FEW][0], measure).count for measure in ALIKENESS_TITLES)
        yield (
            f"Of {few} images nothing can be said about whether the maps of {', '.join(named[_TOO_FEW])} change once "
            "all weights are random."
        )
    if "fails" in named or "passes" in named:
        yield (
            "A method fails where its maps before and after all weights are random are more alike than maps of two "
            f"images are, by any of the measures ({say_family(compared.sides)}). To pass is not to be right: it says "
            "that a map depends on the weights, and no more."
        )
    for word, title in {"fails": "Failing", "passes": "Passing"}.items():
        if word in named:
            yield f"{title}: {', '.join(map(compared.describe, named[word]))}."


def _say_empty(rows: pd.DataFrame) -> Iterator[str]:
    """Say which maps are empty, and so like no other."""
    for (method,), group in group_rows(rows[rows["stage"] != _CHANCE], "method"):
        empty = int(group["cosine"].isna().sum())
        if empty:
            yield (
                f"{method}: {empty} of {len(group)} maps are 0 everywhere, before or after, and so are compared with "
                "nothing."
            )


def _say_labels(compared: _Compared) -> str:
    stage, measure = f"{LABELS} 1", _SHOWN[0]
    means = {method: compared.spreads[method, measure].means for method in compared.methods}
    texts = [
        f"{method} {of_method[stage].mean:.2f} (by chance {of_method[_CHANCE].mean:.2f})"
        for method, of_method in means.items()
        if stage in of_method
    ]
    if not texts:
        return (
            "Labels were not randomised: that takes a model that was trained on shuffled labels, which "
            "randomised_labels=MODEL names."
        )
    by = ALIKENESS_TITLES[measure]
    return f"Similarity to maps of the model that was trained on shuffled labels, by {by}: {', '.join(texts)}."


def _tabulate_verdicts(compared: _Compared) -> SummaryTable:
    headings = [f"{title}, less chance" for title in ALIKENESS_TITLES.values()]
    lines: list[tuple[Cell, ...]] = [
        (method, compared.find_verdict(method), *(compared.find_gap(method, measure) for measure in ALIKENESS_TITLES))
        for method in compared.methods
    ]
    caption = (
        "All weights random: how much more alike the maps before and after are than maps of two images; 0 is chance, "
        "and below it they are less alike than those."
    )
    return SummaryTable(caption, ("method", "verdict", *headings), lines, frozenset(headings))


def _tabulate_stages(compared: _Compared, measure: str, stages: Sequence[str]) -> SummaryTable:
    means = {method: compared.spreads[method, measure].means for method in compared.methods}
    lines: list[tuple[Cell, ...]] = [
        (method, of_method[_CHANCE], *(of_method.get(stage) for stage in stages)) for method, of_method in means.items()
    ]
    caption = (
        f"Similarity of the maps before and after by {ALIKENESS_TITLES[measure]}, with random weights in all parts "
        f"down to a number ({CASCADING}) or in that part alone ({INDEPENDENT}; the head alone is {CASCADING} 1)."
    )
    return SummaryTable(caption, ("method", _CHANCE, *stages), lines)
