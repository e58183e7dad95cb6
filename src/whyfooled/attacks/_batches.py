"""One batch of photographs, from reading the files to what an attack made of each: the same code on every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import ClassKeeper
from whyfooled.attacks._result import AttackResult, run_attack
from whyfooled.attacks.targets import TARGET_CHOICES, choose_targets
from whyfooled.classifier import Classifier
from whyfooled.classifier.goals import Goal, Targeted, Untargeted
from whyfooled.errors import ImageError, ParameterError, WhyfooledError, bad_parameter, warn
from whyfooled.images import read_photograph
from whyfooled.images.seals import digest_file
from whyfooled.running.publishing import hide_folders
from whyfooled.types import Classes, Progress, silent


def say_nothing(count: int) -> Progress:
    """Make what tells nobody how far a batch of so many photographs is."""
    return silent


@final
@dataclass(frozen=True, eq=False)
class AttackedBatch:
    """What became of a batch.

    Parameters
    ----------
    results
        For each photograph that was attacked, its result (a batch of one, on the CPU) and what it shows.
    errors
        The reasons of those that could not be.
    photographs
        A digest of each photograph's content, as it was when it was read.
    """

    results: Mapping[str, tuple[AttackResult, int]]
    errors: Mapping[str, str]
    photographs: Mapping[str, str]


@final
@dataclass(frozen=True, eq=False)
class AttackWork:
    """Everything that a worker needs to attack batches, each given as files by their names.

    Parameters
    ----------
    attack
        The attack.
    truth
        What photographs show, and what they are to be taken for.
    within
        Makes what is told how far a batch of so many photographs is.
    """

    attack: Any
    truth: Truth
    within: Callable[[int], Progress] = say_nothing

    def count(self, task: Mapping[str, Path]) -> int:
        """Return how many photographs a batch has."""
        return len(task)

    def __call__(self, classifier: Classifier, task: Mapping[str, Path], tick: Callable[[int], None]) -> AttackedBatch:
        """Attack a batch."""
        contents = {name: digest_file(path) for name, path in task.items()}
        photographs, errors = _read_photographs(classifier, task)
        results: dict[str, tuple[AttackResult, int]] = {}
        if photographs:
            attacked, failed = _attack_batch(classifier, self, photographs, self.within(len(task)))
            results = {name: (result.to(torch.device("cpu")), true) for name, (result, true) in attacked.items()}
            errors |= failed
        tick(len(task))
        return AttackedBatch(results, errors, contents)


def _read_photographs(classifier: Classifier, files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    read: dict[str, Tensor] = {}
    unreadable: dict[str, str] = {}
    for name, path in files.items():
        try:
            read[name] = classifier.prepare(read_photograph(path))
        except ImageError as error:
            unreadable[name] = hide_folders(str(error))
    return read, unreadable


@dataclass(frozen=True)
class Truth:
    """What each photograph shows, and what it is to be taken for."""

    labels: str | int | Mapping[str, str | int] | None
    target: str | int | None
    seed: int

    def check_names(self, classifier: Classifier, files: Mapping[str, Path]) -> None:
        """Raise `ParameterError` for a class that does not exist, and warn of labels of no photograph, beforehand."""
        if isinstance(self.labels, Mapping):
            unused = sorted(set(self.labels) - set(files) - {path.name for path in files.values()})
            if unused:
                warn(
                    f"{len(unused)} of the {len(self.labels)} labels belong to no photograph, such as {unused[0]}. "
                    "Give paths below the photographs' common folder, or bare file names.",
                    stacklevel=3,
                )
        labels = self.labels.values() if isinstance(self.labels, Mapping) else [self.labels]
        for label in labels:
            if label is not None:
                classifier.class_index(label, argument="label")
        if self.target is not None and self.target not in TARGET_CHOICES:
            meant = get_close_matches(str(self.target), TARGET_CHOICES, n=1)
            try:
                classifier.class_index(self.target, argument="target")
            except ParameterError:
                if not meant:
                    raise
                rule = f"must be a class, or one of {', '.join(TARGET_CHOICES)}"
                raise bad_parameter("target", rule, repr(self.target), f"Did you mean {meant[0]}?") from None

    def find_classes(self, classifier: Classifier, names: Sequence[str], images: Tensor) -> Classes:
        """Return (n,) what each photograph shows."""
        true = classifier.predict(images).clone()
        for number, name in enumerate(names):
            label = self._find_label(name)
            if label is not None:
                true[number] = classifier.class_index(label, argument="label")
        return true

    def make_goal(self, classifier: Classifier, images: Tensor, true: Classes) -> Goal:
        """Return what is to be reached, given what the images show."""
        if self.target is None:
            return Untargeted(true)
        if self.target in TARGET_CHOICES:
            return choose_targets(classifier, images, str(self.target), labels=true, seed=self.seed)
        aim = classifier.class_index(self.target, argument="target")
        if (true == aim).any():
            raise ImageError("The target must be another class than the true one.")
        return Targeted(torch.full_like(true, aim))

    def _find_label(self, name: str) -> str | int | None:
        if not isinstance(self.labels, Mapping):
            return self.labels
        label = self.labels.get(name, self.labels.get(Path(name).name))
        if label is None:
            raise ImageError("The labels do not say what it shows.")
        return label


def _attack_batch(
    classifier: Classifier, work: AttackWork, photographs: Mapping[str, Tensor], progress: Progress
) -> tuple[dict[str, tuple[AttackResult, int]], dict[str, str]]:
    """Attack a batch; if one of it cannot be attacked, each on its own, so that the others are not lost.

    Returns the results, each with what the photograph shows, and the reasons of those that failed.
    """
    names = list(photographs)
    images = torch.cat(list(photographs.values()))
    try:
        true = work.truth.find_classes(classifier, names, images)
        if isinstance(work.attack, ClassKeeper):
            result = work.attack.run_keeping_class(classifier, images, true)
        else:
            goal = work.truth.make_goal(classifier, images, true)
            result = run_attack(work.attack, classifier, images, goal, progress=progress)
    except WhyfooledError as error:
        if len(names) == 1:
            return {}, {names[0]: str(error)}
        results: dict[str, tuple[AttackResult, int]] = {}
        errors: dict[str, str] = {}
        for name in names:
            attacked, failed = _attack_batch(classifier, work, {name: photographs[name]}, progress)
            results |= attacked
            errors |= failed
        return results, errors
    pairs = enumerate(zip(names, true.tolist(), strict=True))
    return {name: (result.select(torch.tensor([number])), shown) for number, (name, shown) in pairs}, {}
