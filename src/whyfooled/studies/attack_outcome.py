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
from whyfooled.errors import MethodError, ParameterError, at_least
from whyfooled.measures import cosine, rank_correlation, structural_similarity, top_overlap
from whyfooled.randomness import image_generators, uniform
from whyfooled.registry import Card
from whyfooled.statistics import auroc, bootstrap_difference, bootstrap_means
from whyfooled.studies._attacked import (
    ALREADY_WRONG,
    FAILED,
    FOOLED,
    attacked,
    check_some_attacked,
    check_target,
    explained,
    outcomes,
)
from whyfooled.studies._defaults import ATTACKS, METHODS
from whyfooled.studies._figure import intervals_figure
from whyfooled.studies._maps import titled_maps
from whyfooled.studies._study import Batch, Measured, Study, check_methods
from whyfooled.studies._summary import Cell, Summary, SummaryTable
from whyfooled.studies._table import Columns, Table
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
        if not self.attacks:
            raise ParameterError("`attacks` must have at least one entry.")

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and compare every method's maps before and after."""
        logits = classifier.logits(batch.images)
        seen, against = explained(logits, batch.true_classes(logits.argmax(1)))
        before = self._maps(classifier, batch.images, seen, against)
        rows: list[dict[str, Any]] = []
        maps = {f"clean/{name}": found for name, found in before.items() if isinstance(found, Tensor)}
        for attack, result in self._attacks(classifier, batch):
            now, against = explained(result.logits, batch.true_classes(result.clean_logits.argmax(1)))
            after = self._maps(classifier, result.attempted, now, against)
            maps |= {f"{attack}/{name}": found for name, found in after.items() if isinstance(found, Tensor)}
            for name, found in after.items():
                rows += _compared(attack, name, outcomes(batch, result), seen, now, before[name], found)
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
        return dict(titled_maps(self.methods, classifier, images, classes, contrast))

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier."""
        outcomes = {(row["index"], row["attack"]): row["outcome"] for row in rows if row["attack"] != NOISE}
        return [float(outcome == FOOLED) for outcome in outcomes.values() if outcome != ALREADY_WRONG]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means where attacks succeed and where they fail, their difference, and how they part, for every measure."""
        check_some_attacked(table.read(["outcome"], [("attack", "!=", NOISE)])["outcome"])
        rows = _measured(table)
        counts = rows.drop_duplicates(["index", "attack"]).groupby("attack", observed=True, sort=False)["outcome"]
        sentences = [
            f"{attack}: {(group == FOOLED).sum()} images fool the classifier, {(group == FAILED).sum()} do not."
            for attack, group in counts
        ]
        tables = []
        for column, name in _TITLES.items():
            tables.append(_outcome_table(rows, column, name, seed))
        sentences += _verdicts(rows, seed)
        return Summary(tuple(sentences), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw each method's mean similarity to the clean map, by outcome; a panel for each measure."""
        rows = _measured(table)
        panels = {}
        for column, name in _TITLES.items():
            panels[name] = {
                method: dict(zip(_GROUPS, bootstrap_means(_values(own, column), seed=seed), strict=True))
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


_GROUPS = ("attack fooled the classifier", "attack failed", "random noise")


def _groups(rows: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """Part rows by what became of the image: fooled or not by an attack, or noise that did not fool."""
    noise, attack = rows["attack"] == NOISE, rows["attack"] != NOISE
    fooled, failed = rows["outcome"] == FOOLED, rows["outcome"] == FAILED
    return rows[attack & fooled], rows[attack & failed], rows[noise & failed]


def _values(rows: pd.DataFrame, column: str) -> Tensor:
    """Return (n,3) each image's mean where attacks fooled, where they failed, and under noise; NaN if there is none."""
    parts = [group.groupby("index")[column].mean() for group in _groups(rows)]
    return torch.tensor(pd.concat(parts, axis=1).to_numpy(dtype="float64", copy=True))


def _outcome_table(rows: pd.DataFrame, column: str, name: str, seed: int) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for method, own in _by_method(rows):
        values = _values(own, column)
        lines.append(
            (
                method,
                *bootstrap_means(values, seed=seed),
                bootstrap_difference(values[:, [1, 0]], seed=seed),
                _parting(values),
            )
        )
    headings = ("method", "fooled", "failed", "noise", "failed minus fooled", "AUROC")
    caption = (
        f"Similarity of the map before and after, by {name}: where an attack fools the classifier, where it fails, and "
        "under random noise. AUROC: how often the map moves further on an image that fools the classifier than on one "
        "that does not (failed or noise); 0.5 is chance."
    )
    return SummaryTable(caption, headings, lines, signed=frozenset({"failed minus fooled"}))


def _parting(values: Tensor) -> float:
    fooled, others = values[:, 0], values[:, 1:].flatten()
    scores = -torch.cat([fooled, others])
    positive = torch.arange(len(scores)) < len(fooled)
    known = ~scores.isnan()
    return auroc(scores[known], positive[known])


def _verdicts(rows: pd.DataFrame, seed: int) -> Iterator[str]:
    parting = {}
    for method, own in _by_method(rows):
        parting[method] = _parting(_values(own, "cosine"))
    known = {method: value for method, value in parting.items() if value == value}
    if not known:
        yield "All images have the same outcome, so nothing can be said about how maps tell outcomes apart."
        return
    ranked = ", ".join(f"{method} {value:.2f}" for method, value in sorted(known.items(), key=lambda pair: -pair[1]))
    yield f"How well the map's move (by cosine) tells a fooled classifier from one that is not, AUROC: {ranked}."
