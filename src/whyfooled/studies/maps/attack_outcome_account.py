"""How much maps change where an attack succeeds, and where it fails: the account of `attack_outcome`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import ALREADY_WRONG, FAILED, FOOLED, check_some_attacked
from whyfooled.studies.parts.over_images import Spread, group_rows, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, auroc, bootstrap_difference

NOISE = "noise"
MEASURES = {
    "cosine": "cosine similarity",
    "rank_correlation": "rank correlation",
    "top_overlap": "overlap of the top 5 %",
    "ssim": "SSIM",
}
"""Measures of similarity, by their columns."""
FIXED = ("true", "wrong")
"""The classes whose maps are compared before and after, beside those of the class that is given."""
_CLASSES = {"": "the class that is given", **{f"_{fixed}": f"the {fixed} class" for fixed in FIXED}}
_FIRST = "cosine"
"""The measure that sentences and contrasts are of."""


def summarise(table: Table, seed: int) -> Summary:
    """Means where attacks succeed and where they fail, their difference, what it tells, and which maps change most."""
    outcome = table.read(["index", "attack", "outcome"], [("attack", "!=", NOISE)]).drop_duplicates()
    check_some_attacked(outcome.drop_duplicates("index")["outcome"])
    rows = _read_measured(table)
    already = outcome[outcome["outcome"] == ALREADY_WRONG]["index"].nunique()
    contrasts = _Contrasts.of(rows, seed)
    sentences = [
        f"{outcome['index'].nunique()} images, {already} of them misclassified before any attack and left out. Maps of "
        "three classes are compared before and after: of the class that is given, which is another one where the "
        "attack succeeds; of the true class; and of the wrong class, the one that the perturbation promotes. Enhanced "
        "ones contrast the true and the wrong class with each other.",
        f"Images by outcome: {', '.join(_name_groups(rows))}.",
        "Attacks are compared with themselves, failed minus fooled, because a larger perturbation changes a map more "
        "whether it fools or not. AUROC is how often a map changes more on an image that the attack fools the "
        "classifier on than on one where it fails; 0.5 is chance (interval: DeLong; n: of the rarer outcome).",
        *_say_what_maps_tell(rows),
        *contrasts.say(),
    ]
    columns = [f"{_FIRST}{of}" for of in _CLASSES] + [measure for measure in MEASURES if measure != _FIRST]
    return Summary(tuple(sentences), (*(_tabulate(rows, column, seed) for column in columns), *contrasts.tabulate()))


def draw(table: Table, seed: int) -> Figure:
    """Draw each method's mean similarity to the clean map, by outcome; a panel for each class and measure."""
    rows = _read_measured(table)
    groups = _name_groups(rows)
    columns = {f"{_FIRST}{of}": f"{MEASURES[_FIRST]}, {name}" for of, name in _CLASSES.items()}
    columns["rank_correlation"] = f"{MEASURES['rank_correlation']}, {_CLASSES['']}"
    panels = {
        name: {method: _spread(group, column, groups, seed).means for (method,), group in group_rows(rows, "method")}
        for column, name in columns.items()
    }
    return intervals_figure(panels, x="similarity of the maps before and after")


def _read_measured(table: Table) -> pd.DataFrame:
    columns = [f"{measure}{of}" for of in _CLASSES for measure in MEASURES]
    return table.read(["index", "attack", "outcome", "method", *columns], [("outcome", "in", (FOOLED, FAILED))])


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
    measured, _, fixed = measure.rpartition("_") if measure.endswith(FIXED) else (measure, "", "")
    of = _CLASSES[f"_{fixed}" if fixed else ""]
    caption = f"Similarity of the maps before and after, of {of}, by {MEASURES[measured]}."
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
            method: _auroc(_failed_and_fooled(group, _FIRST, attack)) for (method,), group in group_rows(rows, "method")
        }
        few = min(value.count for value in told.values())
        if few < FEWEST:
            yield (
                f"{attack}: of {few} images of the rarer outcome nothing can be said about how well maps tell success "
                "from failure."
            )
            continue
        ranked = ", ".join(
            f"{method} {told[method].mean:.2f}" for method in sorted(told, key=lambda method: -told[method].mean)
        )
        yield (
            f"{attack}: how well the change of a map (by cosine similarity) tells success from failure, AUROC: "
            f"{ranked}."
        )


@final
@dataclass(frozen=True, eq=False)
class _Contrasts:
    """Which maps of the true class change most where the classifier is fooled, compared image by image.

    Parameters
    ----------
    first
        The first method.
    methods
        For each attack, each other method's similarity minus the first's, on the images that it fools on.
    attacks
        For each method, that under one attack minus that under another, on the images that both fool on.
    """

    first: str
    methods: Mapping[str, Spread]
    attacks: Mapping[str, Spread]

    @classmethod
    def of(cls, rows: pd.DataFrame, seed: int) -> _Contrasts:
        column = f"{_FIRST}_true"
        # Noise that happens to fool is no attack.
        fooled = rows[(rows["outcome"] == FOOLED) & (rows["attack"] != NOISE)]
        by_attack = {
            attack: Spread.of(group, "method", column, seed) for (attack,), group in group_rows(fooled, "attack")
        }
        first = str(rows["method"].iloc[0]) if len(rows) else ""
        methods = {attack: spread.less(first) for attack, spread in by_attack.items() if first in spread.entries}
        by_method = {
            method: Spread.of(group, "attack", column, seed) for (method,), group in group_rows(fooled, "method")
        }
        pairs = list(combinations((str(name) for name in rows["attack"].unique() if name != NOISE), 2))
        attacks = {
            method: spread.gaps(
                {f"{one} minus {other}": (one, other) for one, other in pairs if {one, other} <= set(spread.entries)}
            )
            for method, spread in by_method.items()
        }
        return cls(
            first,
            {attack: spread for attack, spread in methods.items() if spread.entries},
            {method: spread for method, spread in attacks.items() if spread.entries},
        )

    def say(self) -> Iterator[str]:
        """Say which methods' maps and which attacks' images differ, where enough images say it."""
        for family, what in ((self.methods, "methods"), (self.attacks, "attacks")):
            if not family:
                continue
            sides = judge(family)
            count = sum(len(spread.entries) for spread in family.values())
            known = [side for of_key in sides.values() for side in of_key.values()]
            if not known:
                yield f"Of fewer than {FEWEST} images nothing can be said about which {what} change maps more."
                continue
            clear = sum(side != "open" for side in known)
            few = f"; {count - len(known)} more are of fewer than {FEWEST} images" if len(known) < count else ""
            yield (
                f"Contrasts of {what}, on the maps of the true class where the classifier is fooled: {clear} of "
                f"{len(known)} differ, by {say_family(sides)}{few}."
            )

    def tabulate(self) -> Iterator[SummaryTable]:
        """List all contrasts."""
        what = "cosine similarity of the maps of the true class before and after"
        if self.methods:
            caption = f"Methods compared image by image: {what}, where the attack fools, less that of {self.first}."
            yield _list_contrasts(caption, "attack", self.methods)
        if self.attacks:
            caption = f"Attacks compared image by image: {what}, on the images that both fool the classifier on."
            yield _list_contrasts(caption, "method", self.attacks)


def _list_contrasts(caption: str, by: str, family: Mapping[str, Spread]) -> SummaryTable:
    headings = tuple(dict.fromkeys(entry for spread in family.values() for entry in spread.entries))
    lines = [(name, *(spread.means.get(heading) for heading in headings)) for name, spread in family.items()]
    return SummaryTable(caption, (by, *headings), lines, frozenset(headings))
