"""How the dissimilarity under universal perturbations is written up: each beside chance, and which is the largest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from matplotlib.figure import Figure

from whyfooled.drawing.figures.bands import tradeoff_figure
from whyfooled.drawing.summary import Summary, SummaryTable
from whyfooled.studies.parts.over_images import Spread, check_some_method, group_rows, judge, say_family
from whyfooled.studies.parts.right_images import TESTED
from whyfooled.studies.table import Table
from whyfooled.studies.universal.comparison import CHANCE, Compared, compare, tabulate
from whyfooled.studies.universal.sentences import ball_text, first_measured, who_was_tested
from whyfooled.tensors.statistics import FEWEST, Interval, Side
from whyfooled.universal.evaluation import MEASURES

ALONE = "Attack on each image by itself"
BORROWED = "Attack on another image by itself"
REFERENCES = (CHANCE, ALONE, BORROWED)
"""What universal perturbations are compared with."""


def summarise(table: Table, seed: int) -> Summary:
    """Means of all measures for every perturbation, and what they are beside chance."""
    rows = table.read()
    who = who_was_tested(rows, table.images)
    check_some_method(table, REFERENCES)
    first = first_measured(rows)
    what = (
        "D is how far the normalised map of an image moves, relative to the map; 0 is not at all. "
        f"Epsilon is the {ball_text(first)}. “{CHANCE}” are {rows['direction'].nunique()}, as long, and what every "
        "perturbation is compared with: differences to them are as uncertain as one more random direction makes them."
    )
    measured = {clipped: _spread(rows, clipped, seed) for clipped in (False, True)}
    sides = judge({place: _less_chance(compared) for place, compared in _flatten(measured[False])})
    verdicts = [
        f"Maps of {place[0]}, epsilon {place[1]}: {_verdict(compared, sides[place], say_family(sides))}"
        for place, compared in _flatten(measured[False])
    ]
    tables = [
        _table(saliency, by_epsilon, float(first["share"]), clipped)
        for clipped, by_saliency in measured.items()
        for saliency, by_epsilon in by_saliency.items()
    ]
    return Summary((who, what, *verdicts), tuple(tables))


def draw(table: Table, seed: int) -> Figure:
    """Draw D over the radius, and against the fooling rate, a row for each saliency method."""
    panels = {}
    for saliency, by_epsilon in _spread(table.read(), False, seed).items():
        curves: dict[str, list[tuple[float, Interval]]] = {}
        lines: dict[str, list[tuple[Interval, Interval]]] = {}
        for epsilon, compared in by_epsilon.items():
            for method, d in compared.d.means.items():
                curves.setdefault(method, []).append((float(epsilon), d))
                # An attack on one image keeps the class by its making, and would press the others together.
                if method != ALONE:
                    lines.setdefault(method, []).append((compared.measures["fooled"].means[method], d))
        panels[f"maps of {saliency}"] = curves, lines
    return tradeoff_figure(
        panels, x="epsilon", y="dissimilarity D of the maps", other="fooling rate", references=REFERENCES
    )


def _spread(rows: pd.DataFrame, clipped: bool, seed: int) -> dict[str, dict[str, Compared]]:
    """Spread out, for each saliency method and radius, what perturbations do, brought back to [0, 1] or not."""
    measured: dict[str, dict[str, Compared]] = {}
    rows = rows[(rows["outcome"] == TESTED) & (rows["clipped"] == clipped)]
    for (saliency, epsilon), group in group_rows(rows, "saliency", "epsilon"):
        measured.setdefault(saliency, {})[f"{float(epsilon):g}"] = compare(group, "method", MEASURES, seed)
    return measured


def _flatten(measured: Mapping[str, Mapping[str, Compared]]) -> Iterator[tuple[tuple[str, str], Compared]]:
    return (
        ((saliency, epsilon), compared)
        for saliency, by_epsilon in measured.items()
        for epsilon, compared in by_epsilon.items()
    )


def _less_chance(compared: Compared) -> Spread:
    """Compare every universal perturbation with chance."""
    less = compared.less_chance
    methods = tuple(method for method in less.entries if method not in REFERENCES)
    values = [less.column(method) for method in methods]
    return replace(less, entries=methods, values=torch.stack(values, dim=1) if values else less.values[:, :0])


def _verdict(compared: Compared, sides: Mapping[str, Side], judged: str) -> str:
    """Say which perturbation moves the maps most, and how each stands to chance."""
    d = compared.d.means
    universal = [method for method in d if method not in REFERENCES]
    ranked = sorted(universal, key=lambda method: d[method].mean, reverse=True)
    if not ranked:
        return "no perturbation was measured."
    best = ranked[0]
    if d[best].count < FEWEST:
        return f"of fewer than {FEWEST} images nothing can be said."
    text = f"the largest D is {d[best]} ({best}), {compared.over_chance[best]} times chance's {d[CHANCE].mean:.3f}"
    if len(ranked) > 1:
        lead = compared.d.minus(ranked[1])[best]
        sure = "more" if lead.side() == "above" else "not surely more"
        text += f", and {sure} than that of {ranked[1]} (by {lead.format(sign=True)})"
    text = f"{text}. {_beside_chance(sides, ranked, judged)} {_predictions(compared.measures['fooled'], ranked)}"
    if ALONE in d:
        text += f" An attack on each image by itself that keeps its class reaches {d[ALONE]}."
    if BORROWED in d:
        beyond = compared.less_chance.means[BORROWED].format(sign=True)
        text += f" Added to other images, such a perturbation reaches {d[BORROWED]} (difference to chance {beyond})."
    return text


_SIDES = {"above": "above chance", "below": "below it", "open": "not to be told from it"}


def _beside_chance(sides: Mapping[str, Side], methods: Sequence[str], judged: str) -> str:
    told = (
        f"{words}: {', '.join(method for method in methods if sides.get(method) == side) or 'none'}"
        for side, words in _SIDES.items()
    )
    return f"By {judged}, {'; '.join(told)}."


def _predictions(fooled: Spread, methods: Sequence[str]) -> str:
    rates = {method: f"{rate.mean:.0%}" for method, rate in fooled.means.items()}
    told = ", ".join(f"{rates[method]} ({method})" for method in methods)
    return f"Of the predictions change {told}, by chance {rates[CHANCE]}."


def _table(saliency: str, by_epsilon: Mapping[str, Compared], share: float, clipped: bool) -> SummaryTable:
    values = "brought back to [0, 1]" if clipped else "as they are, outside of [0, 1] too"
    caption = (
        f"What perturbations do to the maps of {saliency}, and to predictions; the images' values {values}. Minus "
        f"chance: the paired difference of D. Top pixels: {share:.0%}, as many as maps have in common by chance."
    )
    return tabulate(caption, ("epsilon", "perturbation"), by_epsilon, [*MEASURES.values()][1:])
