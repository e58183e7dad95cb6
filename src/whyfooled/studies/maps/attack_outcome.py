"""Whether a map reacts to an attack's success: how far it moves on images that fool the classifier, and on others.

Gu & Tresp (2019, sec. 4) hold that plain methods show nearly the same on clean images, on successful adversarial images
and on unsuccessful ones, and that enhanced ones tell them apart. Here that is a number for every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.curves import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import MethodError, at_least
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import (
    ALREADY_WRONG,
    FAILED,
    FOOLED,
    attacked,
    check_attacks,
    check_some_attacked,
    check_target,
    explained,
    outcomes,
)
from whyfooled.studies.parts.defaults import ATTACKS, METHODS
from whyfooled.studies.parts.maps import compute_maps
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.tensors.measures import cosine, rank_correlation, structural_similarity, top_overlap
from whyfooled.tensors.randomness import image_generators, uniform
from whyfooled.tensors.statistics import Interval, auroc, bootstrap_difference, bootstrap_means
from whyfooled.types import Classes

NOISE = "noise"
_MEASURES = {
    "cosine": cosine,
    "rank_correlation": rank_correlation,
    "top_overlap": top_overlap,
    "ssim": structural_similarity,
}
_TITLES = {
    "cosine": "cosine",
    "rank_correlation": "rank correlation",
    "top_overlap": "overlap of the top 5 %",
    "ssim": "SSIM",
}


@final
@dataclass(frozen=True)
class AttackOutcome(Study):
    """Compare each method's map of the clean image with its map of the attacked one, by whether the attack succeeded.

    A map is made for the class that the classifier gives the image. Enhanced methods hold it against the strongest
    other class or, where the classifier is fooled, against the true one. Random noise of a given size, which hardly
    ever fools a classifier, is the control.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    methods
        Saliency methods.
    noise
        Size of the control: every value of an image moves up or down by this much, at random (the image stays in [0,
        1]). [ours]
    """

    attacks: tuple[Any, ...] = ATTACKS
    target: str | None = None
    methods: tuple[Any, ...] = METHODS
    noise: float = 4 / 255

    card: ClassVar[Card] = Card(
        name="attack-outcome",
        title="Maps and the outcome of an attack",
        summary="How far a map moves when an attack succeeds, and when it fails.",
        source="Gu & Tresp 2019, arXiv 1908.08413, sec. 4 and fig. 5",
        cost="the attacks, and the methods' maps of the clean and of every attacked image",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "method": "text",
        "class_clean": "whole",
        "class_attacked": "whole",
        **dict.fromkeys(_MEASURES, "real"),
    }
    headline: ClassVar[str] = "fooled"

    def __post_init__(self) -> None:
        at_least("noise", self.noise, 0)
        check_methods(self.methods)
        check_target(self.target)
        check_attacks(self.attacks)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and compare every method's maps before and after."""
        logits = classifier.logits(batch.images)
        true = batch.true_classes(logits.argmax(1))
        seen, against = explained(logits, true)
        before = self._maps(classifier, batch.images, seen, against)
        rows: list[dict[str, Any]] = []
        maps = {f"clean/{name}": found for name, found in before.items() if isinstance(found, Tensor)}
        for attack, result in self._attacks(classifier, batch):
            now, against = explained(result.logits, true)
            kinds = outcomes(batch, result)
            after = self._maps(classifier, result.attempted, now, against)
            maps |= {f"{attack}/{name}": found for name, found in after.items() if isinstance(found, Tensor)}
            for name, found in after.items():
                rows += _compared(attack, name, kinds, seen, now, before[name], found)
        return Measured(rows, maps)

    def _attacks(self, classifier: Classifier, batch: Batch) -> Iterator[tuple[str, AttackResult]]:
        yield from attacked(classifier, batch, self.attacks, self.target)
        if self.noise:
            signs = torch.sign(uniform(batch.images, image_generators(batch.images, batch.seed)) - 0.5)
            noisy = (batch.images + self.noise * signs).clamp(0, 1)
            yield NOISE, AttackResult.from_images(classifier, batch.images, noisy)

    def _maps(
        self, classifier: Classifier, images: Tensor, classes: Classes, contrast: Classes
    ) -> dict[str, Tensor | MethodError]:
        return dict(compute_maps(self.methods, classifier, images, classes, contrast))

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier."""
        outcomes = {(row["index"], row["attack"]): row["outcome"] for row in rows if row["attack"] != NOISE}
        return [float(outcome == FOOLED) for outcome in outcomes.values() if outcome != ALREADY_WRONG]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means where attacks succeed and where they fail, their difference, and how they part, for every measure."""
        outcome = table.read(["index", "attack", "outcome"], [("attack", "!=", NOISE)]).drop_duplicates()
        check_some_attacked(outcome.drop_duplicates("index")["outcome"])
        rows = _measured(table)
        already = outcome[outcome["outcome"] == ALREADY_WRONG]["index"].nunique()
        sentences = [
            f"{outcome['index'].nunique()} images, {already} of them taken for a wrong class before any attack and "
            "left out. Maps explain the class that the classifier gives; enhanced ones hold it against the true class, "
            "or against the strongest other one where the prediction is right.",
            f"Images by outcome: {', '.join(_groups(rows))}.",
        ]
        tables = []
        for column, name in _TITLES.items():
            tables.append(_outcome_table(rows, column, name, seed))
        sentences += _verdicts(rows)
        return Summary(tuple(sentences), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw each method's mean similarity to the clean map, by outcome; a panel for each measure."""
        rows = _measured(table)
        groups, panels = _groups(rows), {}
        for column, name in _TITLES.items():
            panels[name] = {
                method: dict(
                    zip(groups, bootstrap_means(_values(own, column, list(groups.values())), seed=seed), strict=True)
                )
                for method, own in _by_method(rows)
            }
        return intervals_figure(panels, x="similarity of the maps before and after")


def _compared(
    attack: str,
    name: str,
    kinds: Sequence[str],
    seen: Classes,
    now: Classes,
    before: Tensor | MethodError,
    after: Tensor | MethodError,
) -> Iterator[dict[str, Any]]:
    common = [{"place": place, "attack": attack, "outcome": kind, "method": name} for place, kind in enumerate(kinds)]
    if isinstance(before, MethodError) or isinstance(after, MethodError):
        error = before if isinstance(before, MethodError) else after
        yield from ({**one, "error": f"{name}: {error}"} for one in common)
        return
    numbers = {column: measure(before, after).tolist() for column, measure in _MEASURES.items()}
    for place, one in enumerate(common):
        yield {
            **one,
            "class_clean": int(seen[place]),
            "class_attacked": int(now[place]),
            **{column: values[place] for column, values in numbers.items()},
        }


def _measured(table: Table) -> pd.DataFrame:
    return table.read(["index", "attack", "outcome", "method", *_MEASURES], [("outcome", "in", (FOOLED, FAILED))])


def _by_method(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    return ((str(name), group) for name, group in rows.groupby("method", observed=True, sort=False))


def _groups(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Name what there is: each attack by its outcome, and noise that did not fool; with attack and outcome."""
    known = rows.drop_duplicates(["index", "attack"]).groupby(["attack", "outcome"], observed=True, sort=False).size()
    found = {}
    for attack in rows["attack"].unique():
        for outcome in (FOOLED, FAILED) if attack != NOISE else (FAILED,):
            count = int(known.get((attack, outcome), 0))
            if count:
                name = f"{attack} {outcome}" if attack != NOISE else "random noise"
                found[f"{name} (n = {count})"] = (str(attack), outcome)
    return found


def _both_outcomes(rows: pd.DataFrame) -> list[str]:
    """Name the attacks that fooled the classifier on some images and failed on others."""
    known = set(_groups(rows).values())
    attacks = [str(attack) for attack in rows["attack"].unique() if attack != NOISE]
    return [attack for attack in attacks if {(attack, FOOLED), (attack, FAILED)} <= known]


def _values(rows: pd.DataFrame, column: str, groups: Sequence[tuple[str, str]]) -> Tensor:
    """Return (n,g) each image's similarity in each group; NaN where it is not in it."""
    parts = [
        rows[(rows["attack"] == attack) & (rows["outcome"] == outcome)].set_index("index")[column]
        for attack, outcome in groups
    ]
    return torch.tensor(pd.concat(parts, axis=1).to_numpy(dtype="float64", copy=True))


def _outcome_table(rows: pd.DataFrame, column: str, name: str, seed: int) -> SummaryTable:
    groups, both = _groups(rows), _both_outcomes(rows)
    differences = [f"{attack}: failed minus fooled" for attack in both]
    lines: list[tuple[Cell, ...]] = []
    for method, own in _by_method(rows):
        pairs = [_values(own, column, [(attack, FAILED), (attack, FOOLED)]) for attack in both]
        lines.append(
            (
                method,
                *bootstrap_means(_values(own, column, list(groups.values())), seed=seed),
                *(bootstrap_difference(pair, seed=seed) for pair in pairs),
                *map(_parting, pairs),
            )
        )
    headings = ("method", *groups, *differences, *(f"{attack}: AUROC" for attack in both))
    caption = (
        f"Similarity of the maps of the clean and of the attacked image, by {name}. Attacks are compared with "
        "themselves, because a larger perturbation moves a map further whether it fools or not. AUROC: how often the "
        "map moves further on an image that the attack fools the classifier on than on one where it fails; 0.5 is "
        "chance (interval: DeLong)."
    )
    return SummaryTable(caption, headings, lines, signed=frozenset(differences))


def _parting(pair: Tensor) -> Interval:
    """Tell how well the move of a map tells the second column's images from the first's."""
    scores, positive = -pair.T.flatten(), torch.arange(2).repeat_interleave(len(pair)) == 1
    known = ~scores.isnan()
    return auroc(scores[known], positive[known])


def _verdicts(rows: pd.DataFrame) -> Iterator[str]:
    both = _both_outcomes(rows)
    if not both:
        yield "No attack both fooled the classifier and failed, so nothing can be said of how maps tell outcomes apart."
    for attack in both:
        parting = {
            method: _parting(_values(own, "cosine", [(attack, FAILED), (attack, FOOLED)]))
            for method, own in _by_method(rows)
        }
        ranked = sorted(parting.items(), key=lambda pair: -pair[1].mean)
        yield (
            f"{attack}: how well the move of a map (by cosine) tells success from failure, AUROC: "
            f"{', '.join(f'{method} {value.mean:.2f}' for method, value in ranked)}."
        )
