"""How much maps change where an attack succeeds, and where it fails: the account of `attack_outcome`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import ALREADY_WRONG, FAILED, FOOLED, check_some_attacked
from whyfooled.studies.parts.over_images import Spread, group_rows
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import Interval, auroc, bootstrap_difference

NOISE = "noise"
MEASURES = {
    "cosine": "cosine",
    "rank_correlation": "rank correlation",
    "top_overlap": "overlap of the top 5 %",
    "ssim": "SSIM",
}
"""Measures of similarity, by their columns."""


def summarise(table: Table, seed: int) -> Summary:
    """Means where attacks succeed and where they fail, their difference, and what it tells, for every measure."""
    outcome = table.read(["index", "attack", "outcome"], [("attack", "!=", NOISE)]).drop_duplicates()
    check_some_attacked(outcome.drop_duplicates("index")["outcome"])
    rows = _read_measured(table)
    already = outcome[outcome["outcome"] == ALREADY_WRONG]["index"].nunique()
    sentences = [
        f"{outcome['index'].nunique()} images, {already} of them misclassified before any attack and left out. Maps "
        "explain the class that the classifier gives; enhanced ones contrast it with the true class, or with the "
        "strongest other one where the prediction is right.",
        f"Images by outcome: {', '.join(_name_groups(rows))}.",
        *_say_what_maps_tell(rows),
    ]
    return Summary(tuple(sentences), tuple(_tabulate(rows, measure, seed) for measure in MEASURES))


def draw(table: Table, seed: int) -> Figure:
    """Draw each method's mean similarity to the clean map, by outcome; a panel for each measure."""
    rows = _read_measured(table)
    groups = _name_groups(rows)
    panels = {
        name: {method: _spread(group, measure, groups, seed).means for (method,), group in group_rows(rows, "method")}
        for measure, name in MEASURES.items()
    }
    return intervals_figure(panels, x="similarity of the maps before and after")


def _read_measured(table: Table) -> pd.DataFrame:
    return table.read(["index", "attack", "outcome", "method", *MEASURES], [("outcome", "in", (FOOLED, FAILED))])


def _name_groups(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Name what there is, attack and outcome: each attack by its outcome, and noise that did not fool."""
    known = rows.drop_duplicates(["index", "attack"]).groupby(["attack", "outcome"], observed=True, sort=False).size()
    named = {}
    for attack in rows["attack"].unique():
        for outcome in (FOOLED, FAILED) if attack != NOISE else (FAILED,):
            count = int(known.get((attack, outcome), 0))
            name = f"{attack} {outcome}" if attack != NOISE else "random noise"
            if count:
                named[f"{name} (n = {count})"] = (str(attack), outcome)
    return named


def _attacks_with_both_outcomes(rows: pd.DataFrame) -> list[str]:
    groups = set(_name_groups(rows).values())
    return [str(attack) for attack in rows["attack"].unique() if {(attack, FOOLED), (attack, FAILED)} <= groups]


def _spread(rows: pd.DataFrame, measure: str, groups: Mapping[str, tuple[str, str]], seed: int = 0) -> Spread:
    """Spread out each image's similarity in each of some groups."""
    by_image = [
        rows[(rows["attack"] == attack) & (rows["outcome"] == outcome)].set_index("index")[measure]
        for attack, outcome in groups.values()
    ]
    return Spread(tuple(groups), torch.tensor(pd.concat(by_image, axis=1).to_numpy(dtype="float64", copy=True)), seed)


def _failed_and_fooled(rows: pd.DataFrame, measure: str, attack: str) -> Tensor:
    return _spread(rows, measure, {outcome: (attack, outcome) for outcome in (FAILED, FOOLED)}).values


def _tabulate(rows: pd.DataFrame, measure: str, seed: int) -> SummaryTable:
    groups, attacks = _name_groups(rows), _attacks_with_both_outcomes(rows)
    differences = [f"{attack}: failed minus fooled" for attack in attacks]
    lines: list[tuple[Cell, ...]] = []
    for (method,), group in group_rows(rows, "method"):
        pairs = [_failed_and_fooled(group, measure, attack) for attack in attacks]
        means = _spread(group, measure, groups, seed).means.values()
        lines.append((method, *means, *(bootstrap_difference(pair, seed=seed) for pair in pairs), *map(_auroc, pairs)))
    caption = (
        f"Similarity of the maps of the clean and of the attacked image, by {MEASURES[measure]}. Attacks are compared "
        "with themselves, because a larger perturbation changes a map more whether it fools or not. AUROC: how often "
        "the map changes more on an image that the attack fools the classifier on than on one where it fails; 0.5 is "
        "chance (interval: DeLong)."
    )
    headings = ("method", *groups, *differences, *(f"{attack}: AUROC" for attack in attacks))
    return SummaryTable(caption, headings, lines, frozenset(differences))


def _auroc(pair: Tensor) -> Interval:
    """Tell how well the change of a map tells the second column's images from the first's."""
    scores, positive = -pair.T.flatten(), torch.arange(2).repeat_interleave(len(pair)) == 1
    known = ~scores.isnan()
    return auroc(scores[known], positive[known])


def _say_what_maps_tell(rows: pd.DataFrame) -> Iterator[str]:
    attacks = _attacks_with_both_outcomes(rows)
    if not attacks:
        yield "No attack both fooled the classifier and failed, so nothing can be said of how maps tell outcomes apart."
    for attack in attacks:
        told = {
            method: _auroc(_failed_and_fooled(group, "cosine", attack)).mean
            for (method,), group in group_rows(rows, "method")
        }
        ranked = ", ".join(f"{method} {told[method]:.2f}" for method in sorted(told, key=lambda method: -told[method]))
        yield f"{attack}: how well the change of a map (by cosine) tells success from failure, AUROC: {ranked}."
