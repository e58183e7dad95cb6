"""The adversarial images of a study: saved ones, or those of its own attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import pandas as pd
import torch

from whyfooled.attacks import AttackResult, adapt, run_attack
from whyfooled.attacks.targets import TARGET_CHOICES, choose_targets
from whyfooled.classifier import Classifier
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.goals import Goal, Targeted, Untargeted
from whyfooled.errors import ImageError, one_of
from whyfooled.registry import describe_value, parse
from whyfooled.studies.study import Batch, check_entries
from whyfooled.types import Classes, Images, Logits

CLEAN = "clean"
FOOLED, FAILED, ALREADY_WRONG = "fooled", "failed", "already wrong"


def run_or_load_attacks(
    classifier: Classifier, batch: Batch, attacks: Sequence[Any], target: str | None
) -> Iterator[tuple[str, AttackResult]]:
    """Attack a batch with each attack; or, where it brings its adversarial images, verify those instead.

    Yields
    ------
    tuple
        The attack, as on the command line, and its result.
    """
    for attack, saved in batch.adversaries.items():
        goal = saved.goal.to(batch.images.device)
        yield attack, AttackResult.from_images(classifier, batch.images, saved.attempted.to(batch.images), goal)
    if batch.adversaries:
        return
    true = batch.true_classes(classifier.predict(batch.images))
    for attack in attacks:
        goal = _choose_goal(classifier, batch, true, target)
        yield describe_value(attack), run_attack(attack, classifier, batch.images, goal)


def find_attack(name: str, attacks: Sequence[Any]) -> Any:
    """Return the attack of a name, as `run_or_load_attacks` gives it: one of these, or that of saved images.

    Raises
    ------
    ParameterError
        If it is not known here, and cannot be run again.
    """
    by_name = {describe_value(attack): attack for attack in attacks}
    # Behind a blank stands the folder, where several have saved images of one attack.
    return by_name[name] if name in by_name else parse("attacks", name.partition(" (")[0])


def _choose_goal(classifier: Classifier, batch: Batch, true: Classes, target: str | None) -> Goal:
    if target is None:
        return Untargeted(true)
    return choose_targets(classifier, batch.images, target, labels=true, seed=batch.seed)


def outcomes_of(batch: Batch, result: AttackResult) -> list[str]:
    """Say of each image whether it fools the classifier: whether it is given a class now that it does not show.

    That is about the true class, whatever the attack aimed at: ``"fooled"``, ``"failed"`` or ``"already wrong"``.
    """
    seen = result.clean_logits.argmax(1)
    before, after = batch.right(seen, seen), batch.right(result.predictions, seen)
    return [ALREADY_WRONG if not was else FAILED if still else FOOLED for was, still in zip(before, after, strict=True)]


def check_attacks(attacks: Sequence[Any]) -> None:
    """Raise `ParameterError` unless there are attacks, all of which can be run."""
    check_entries("attacks", attacks)
    for attack in attacks:
        adapt(attack)


def check_target(target: str | None) -> None:
    """Raise `ParameterError` unless a target is a way to choose one."""
    if target is not None:
        one_of("target", target, TARGET_CHOICES)


def check_some_attacked(outcome: pd.Series) -> None:
    """Raise `ImageError` if every image (each with its outcome) was misclassified before."""
    if (outcome == ALREADY_WRONG).all():
        raise ImageError(
            f"None of the {len(outcome)} images is given its true class by the classifier: there is nothing to attack. "
            "Do the labels fit the model?"
        )


def check_some_fooled(outcome: pd.Series) -> None:
    """Raise `ImageError` if no image (each with its outcome) was attacked at all, or none with success."""
    check_some_attacked(outcome)
    if not (outcome == FOOLED).any():
        raise ImageError(
            f"No attack fooled the classifier on any of the {len(outcome)} images, so there is nothing to explain. "
            "Take a stronger one."
        )


def take_best_outcomes(rows: pd.DataFrame) -> pd.Series:
    """Say of each image whether any attack fooled the classifier on it, from rows with ``index`` and ``outcome``."""
    ranks = {FOOLED: 2, FAILED: 1, ALREADY_WRONG: 0}
    best = rows["outcome"].astype(object).map(ranks).groupby(rows["index"]).max()
    return best.map({rank: outcome for outcome, rank in ranks.items()})


def choose_promoted(result: AttackResult, true: Classes) -> Classes:
    """Return (n,) the class that each perturbation promotes at the cost of the true one, (n,).

    The target of a targeted attack, whether it was reached or not; else the class that is given now or, where that is
    still the true one, the strongest other.
    """
    if isinstance(result.goal, Targeted):
        return result.goal.classes
    return strongest_other(result.logits, true)


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
        delta, towards = result.attempted - result.clean, choose_promoted(result, true)
        return cls(attack, outcomes_of(batch, result), result.attempted, result.logits, delta, true, towards)

    @property
    def explained(self) -> tuple[Classes, Classes]:
        """Choose which classes maps explain, and which they are contrasted with (Gu & Tresp 2019, sec. 3).

        The class that the classifier gives; contrasted with the true class where it is another one, else with the
        strongest other.
        """
        predicted = self.logits.argmax(1)
        return predicted, torch.where(predicted == self.true, strongest_other(self.logits, predicted), self.true)

    def keys(self) -> Iterator[dict[str, Any]]:
        """Give for each image what its rows begin with."""
        for place, outcome in enumerate(self.outcomes):
            yield {"place": place, "attack": self.attack, "outcome": outcome}


def run_stages(classifier: Classifier, batch: Batch, attacks: Sequence[Any], target: str | None) -> Iterator[Stage]:
    """Give the batch before any attack, and after each, as `run_or_load_attacks` gives them."""
    logits = classifier.logits(batch.images)
    true = batch.true_classes(logits.argmax(1))
    yield Stage(CLEAN, [""] * len(true), batch.images, logits, torch.zeros_like(batch.images), true, true)
    for attack, result in run_or_load_attacks(classifier, batch, attacks, target):
        yield Stage.after(attack, batch, result, true)
