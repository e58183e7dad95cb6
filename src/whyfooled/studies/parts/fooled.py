"""The images that attacks fool the classifier on, which is where their perturbations can be told apart by effect."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.studies.parts.attacked import (
    ALREADY_WRONG,
    FAILED,
    FOOLED,
    check_attacks,
    check_some_fooled,
    check_target,
    choose_promoted,
    outcomes_of,
    run_or_load_attacks,
    take_best_outcomes,
)
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Table
from whyfooled.types import Classes, Images


@dataclass(frozen=True, eq=False)
class Fooled:
    """What one attack made of a batch: every image's outcome, and the images that fool the classifier.

    Parameters
    ----------
    attack
        The attack, as on the command line.
    outcomes
        Of every image of the batch.
    places
        Where in the batch those are that fool the classifier, m of them.
    result
        The attack's result on these m, if there are any.
    true, target
        (m,) Their true classes, and the classes that the perturbation promotes.
    """

    attack: str
    outcomes: Sequence[str]
    places: Sequence[int]
    result: AttackResult
    true: Classes
    target: Classes

    @property
    def delta(self) -> Images:
        """What was added to these m."""
        return self.result.attempted - self.result.clean

    def others(self) -> Iterator[dict[str, Any]]:
        """Give a row for each image that does not fool the classifier, with nothing but its outcome."""
        for place, outcome in enumerate(self.outcomes):
            if outcome != FOOLED:
                yield {"place": place, "attack": self.attack, "outcome": outcome}

    def rows(self, numbers: Mapping[str, Tensor], **more: object) -> Iterator[dict[str, Any]]:
        """Give a row for each image that fools the classifier, with its entry of each of the numbers (m,)."""
        columns = {name: values.tolist() for name, values in numbers.items()}
        for number, place in enumerate(self.places):
            row = {"place": place, "attack": self.attack, "outcome": FOOLED, **more}
            yield row | {name: values[number] for name, values in columns.items()}


def find_fooled(classifier: Classifier, batch: Batch, attacks: Sequence[Any], target: str | None) -> Iterator[Fooled]:
    """Attack a batch with each attack, or take its saved adversarial images, and pick out those that fool."""
    for attack, result in run_or_load_attacks(classifier, batch, attacks, target):
        by_image = outcomes_of(batch, result)
        places = [place for place, outcome in enumerate(by_image) if outcome == FOOLED]
        chosen = torch.tensor(places, dtype=torch.int64, device=batch.images.device)
        true = batch.true_classes(result.clean_logits.argmax(1))
        target_or_reached = choose_promoted(result, true)
        yield Fooled(attack, by_image, places, result.select(chosen), true[chosen], target_or_reached[chosen])


def read_fooled(table: Table) -> pd.DataFrame:
    """Read the rows of the images that fool the classifier."""
    rows = table.read()
    return rows[rows["outcome"] == FOOLED]


def describe_fooled(table: Table) -> str:
    """Say in a sentence how many images each attack fools the classifier on; raise `ImageError` if there is none."""
    rows = table.read(["index", "attack", "outcome"]).drop_duplicates()
    check_some_fooled(take_best_outcomes(rows))
    return describe_outcomes(rows)


def describe_outcomes(rows: pd.DataFrame) -> str:
    """Say in a sentence how many images each attack fools the classifier on, from a row for each image and attack."""
    images, already = rows["index"].nunique(), rows[rows["outcome"] == ALREADY_WRONG]["index"].nunique()
    parts = []
    for attack in rows["attack"].unique():
        outcome = rows.loc[rows["attack"] == attack, "outcome"]
        fooled, failed = (int((outcome == kind).sum()) for kind in (FOOLED, FAILED))
        parts.append(f"{attack} {fooled} of {fooled + failed}")
    text = f"Measured are the images that fool the classifier: {', '.join(parts)}."
    return f"{text} Of {images} images {already} were misclassified before any attack." if already else text


class AttackedStudy(Study):
    """A study of what attacks do: it has attacks and a target, and shows while it runs how many images are fooled.

    A dataclass that derives from it declares the fields ``attacks`` and ``target``, and ``methods`` if it has some.

    Parameters
    ----------
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    """

    attacks: tuple[Any, ...]
    target: str | None
    methods: tuple[Any, ...] | None = None

    headline: ClassVar[str] = "fooled"
    controls: ClassVar[tuple[str, ...]] = ()
    """What stands in the column ``attack`` and is none."""

    def __post_init__(self) -> None:
        check_attacks(self.attacks)
        check_target(self.target)
        if self.methods is not None:
            check_methods(self.methods)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier; those misclassified before do not count."""
        outcome = {(row["index"], row["attack"]): row["outcome"] for row in rows if row["attack"] not in cls.controls}
        return [float(one == FOOLED) for one in outcome.values() if one != ALREADY_WRONG]


class FooledStudy(AttackedStudy):
    """One of the images that fool the classifier; of the others, the table has the outcome alone."""

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and measure the images that fool the classifier."""
        rows: list[Mapping[str, Any]] = []
        maps: dict[str, Tensor] = {}
        for fooled in find_fooled(classifier, batch, self.attacks, self.target):
            rows += fooled.others()
            if fooled.places:
                measured = self.measure_fooled(classifier, batch, fooled)
                rows += measured.rows
                maps |= measured.maps
        return Measured(rows, maps)

    @abstractmethod
    def measure_fooled(self, classifier: Classifier, batch: Batch, fooled: Fooled) -> Measured:
        """Measure the images of a batch that one attack fools the classifier on."""
