"""A batch before any attack and after each: the images, what the classifier makes of them, and rows with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.studies.parts.attacked import attacked, explained, outcomes, promoted
from whyfooled.studies.parts.pictures import CLEAN, to_png
from whyfooled.studies.study import Batch
from whyfooled.studies.table import Columns
from whyfooled.types import Classes, Images, Logits

PICTURE_COLUMNS: Columns = {
    "prediction": "text",
    "probability": "real",
    "l2": "real",
    "linf": "real",
    "picture": "bytes",
}
"""The columns of `Stage.rows`, beside the attack and its outcome."""


@final
@dataclass(frozen=True, eq=False)
class Stage:
    """A batch of n images before any attack, or after one.

    Parameters
    ----------
    attack
        The attack, as on the command line, or `CLEAN`.
    outcomes
        Of each image; "" before any attack.
    images, logits
        The images now, and what the classifier gives them.
    delta
        What was added to the clean ones.
    true, promoted
        (n,) The true classes, and those that the perturbation promotes: the true ones before any attack.
    """

    attack: str
    outcomes: Sequence[str]
    images: Images
    logits: Logits
    delta: Images
    true: Classes
    promoted: Classes

    @classmethod
    def after(cls, attack: str, batch: Batch, result: AttackResult, true: Classes) -> Stage:
        """Make the one after an attack."""
        delta, towards = result.attempted - result.clean, promoted(result, true)
        return cls(attack, outcomes(batch, result), result.attempted, result.logits, delta, true, towards)

    @property
    def explained(self) -> tuple[Classes, Classes]:
        """The classes that maps explain, and those that they are contrasted with: see `parts.attacked`."""
        return explained(self.logits, self.true)

    def keys(self) -> Iterator[dict[str, Any]]:
        """Give for each image what its rows begin with."""
        for place, outcome in enumerate(self.outcomes):
            yield {"place": place, "attack": self.attack, "outcome": outcome}

    def rows(self, classifier: Classifier) -> Iterator[dict[str, Any]]:
        """Give for each image what the classifier makes of it, and a picture."""
        whole = zip(self.keys(), self.images, self.logits.softmax(1), self.delta, strict=True)
        for key, image, probabilities, added in whole:
            seen = int(probabilities.argmax())
            yield key | {
                "prediction": classifier.class_name(seen),
                "probability": float(probabilities[seen]),
                "l2": float(added.norm()),
                "linf": float(added.abs().max()),
                "picture": to_png(image),
            }


def run_stages(classifier: Classifier, batch: Batch, attacks: Sequence[Any], target: str | None) -> Iterator[Stage]:
    """Give the batch before any attack, and after each; see `parts.attacked`."""
    logits = classifier.logits(batch.images)
    true = batch.true_classes(logits.argmax(1))
    yield Stage(CLEAN, [""] * len(true), batch.images, logits, torch.zeros_like(batch.images), true, true)
    for attack, result in attacked(classifier, batch, attacks, target):
        yield Stage.after(attack, batch, result, true)
