"""Attacking many photographs: batch after batch, every result written at once, resumed where it stopped."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from whyfooled._version import __version__
from whyfooled.attacks import AttackResult, run_attack
from whyfooled.attacks._attack import ClassKeeper, Norm, find_norm
from whyfooled.attacks.adversaries import (
    LEFT_OUT,
    RUN,
    RUN_FILE,
    SUFFIX,
    Adversaries,
    adversary_file,
    find_name_fault,
    is_finished,
    list_runs,
    read_adversary,
    read_left_out,
    write_adversary,
    write_left_out,
)
from whyfooled.attacks.targets import TARGET_CHOICES, choose_targets
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import check_one_answer
from whyfooled.classifier.goals import Goal, Targeted, Untargeted
from whyfooled.errors import ImageError, ParameterError, WhyfooledError, at_least, bad_parameter, warn
from whyfooled.images import common_folder, compose_accents, photographs_in, read_photograph, write_whole
from whyfooled.images.seals import digest_file
from whyfooled.registry import describe_value
from whyfooled.running.kept import storable_text
from whyfooled.running.publishing import hide_all_folders, hide_folders
from whyfooled.running.runs import claim, digest_run
from whyfooled.types import Classes

TABLE_FILE = "table.csv"


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Parameters
    ----------
    done, total
        Photographs that are finished (a fraction of the batch in work included), and all.
    attacked
        Finished ones whose goal was not reached beforehand.
    fooled
        Those of them whose goal is reached now.
    median_norm
        Median size of the perturbations of these, in the attack's own norm; None if there are none.
    finished
        Photographs that are finished, whole.
    doing
        The stage of the attack that the batch in work is in, for an attack that has several; "" otherwise.
    norm
        That norm: ``"l0"``, ``"l1"``, ``"l2"`` or ``"linf"``.
    """

    done: float
    total: int
    attacked: int
    fooled: int
    median_norm: float | None
    finished: int
    doing: str = ""
    norm: str = "l2"


@one_thread()
def attack_files(
    classifier: Classifier,
    images: Sequence[str | Path],
    attack: Any,
    folder: str | Path,
    *,
    labels: str | int | Mapping[str, str | int] | None = None,
    target: str | int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    about: Mapping[str, Any] | None = None,
    report: Callable[[Standing], None] = lambda standing: None,
) -> tuple[Adversaries, dict[str, str]]:
    """Attack photographs, and write each one's result into a folder as soon as its batch is finished.

    Run again with the same arguments, it goes on where it stopped, and ends in the same files: photographs are attacked
    in fixed batches, and a batch of which a file is missing or damaged, or a photograph has changed, is attacked again.

    Parameters
    ----------
    classifier
        The classifier to fool.
    images
        Files and folders of photographs; folders are searched through.
    attack
        An attack of this package, or anything that `whyfooled.attacks.adapt` takes; or an
        `whyfooled.universal.InterpretationAttack`, which keeps the classes.
    folder
        Where to write: one file for each photograph, ``run.json`` and ``table.csv``.
    labels
        The true class (name or index) of all, or of each by its name in the table or its bare file name; the class that
        the classifier gives if None.
    target
        A class (name or index), or a way to choose one: ``"random"``, ``"least-likely"``, ``"runner-up"``; any wrong
        class will do if None.
    seed
        Seed of the random choice of targets.
    batch_size
        Photographs in a batch.
    about
        What else makes a run another run, such as the model's name and weights.
    report
        Called as the run goes on.

    Returns
    -------
    Adversaries
        The finished ones.
    dict
        For each photograph that could not be attacked, the reason.

    Raises
    ------
    ImageError
        If there is no photograph, or none could be attacked.
    OutputError
        If the folder holds another run, or cannot be written.
    """
    at_least("batch_size", batch_size, 1)
    check_one_answer(classifier)
    if target is not None and isinstance(attack, ClassKeeper):
        raise bad_parameter("target", "is for an attack that changes the class", target, "Leave it out.")
    root, below = common_folder(photographs_in(images))
    files = {name: root / name for name in below}
    folder = Path(folder)
    run = hide_all_folders(
        {
            "version": __version__,
            "model": classifier.name,
            "model_digest": classifier.digest(),
            "attack": describe_value(attack),
            "labels": dict(labels) if isinstance(labels, Mapping) else labels,
            "target": target,
            "seed": seed,
            "batch_size": batch_size,
            **(about or {}),
            "images": list(files),
        }
    )
    truth = _Truth(classifier, _respell(files, labels) if isinstance(labels, Mapping) else labels, target, seed)
    truth.check_names(files)
    with claim(folder / RUN_FILE, RUN, run, results=lambda: list_runs(folder), partial=_PARTIAL):
        tally = _Tally(len(files), report, find_norm(attack))
        place = _Place(folder, digest_run(run))
        errors = {name: fault for name in files if (fault := find_name_fault(folder, name))}
        if errors:
            tally.add(len(errors), ())
        for names in _split_into_batches([name for name in files if name not in errors], batch_size):
            errors |= _finish_batch(classifier, attack, truth, {name: files[name] for name in names}, place, tally)
        if len(errors) == len(files):
            name, reason = next(iter(errors.items()))
            raise ImageError(f"None of the {len(files)} photographs could be attacked. {name}: {reason}")
        done = Adversaries(folder, tuple(name for name in files if name not in errors), run)
        table = _make_table(classifier, done.names, tally.rows, errors).to_csv(index=False)
        write_whole(folder / TABLE_FILE, table.encode())
    return done, errors


_PARTIAL = tuple(f"{name}.partial" for name in (RUN_FILE, TABLE_FILE, f"**/*{SUFFIX}", f"**/*{LEFT_OUT}"))


@dataclass(frozen=True)
class _Place:
    """The folder that results go to, and the digest of the run that they belong to."""

    folder: Path
    run: str


def _finish_batch(
    classifier: Classifier, attack: Any, truth: _Truth, batch: Mapping[str, Path], place: _Place, tally: _Tally
) -> dict[str, str]:
    """Attack a batch, unless all of it is finished; return the reasons of those left out."""
    folder, run = place.folder, place.run
    contents = {name: digest_file(path) for name, path in batch.items()}
    errors = {name: why for name in batch if (why := read_left_out(folder, name, contents[name], run)) is not None}
    if not all(name in errors or is_finished(folder, name, contents[name], run) for name in batch):
        photographs, errors = _read_photographs(classifier, batch)
        if photographs:
            results, failed = _attack_batch(attack, truth, photographs, tally.within(len(batch)))
            errors |= failed
            for name, (result, true) in results.items():
                write_adversary(folder, name, result, true, contents[name], run)
        for name, reason in errors.items():
            write_left_out(folder, name, reason, contents[name], run)
    tally.add(len(batch), (read_adversary(adversary_file(folder, name)) for name in batch if name not in errors))
    return errors


def _split_into_batches(names: list[str], size: int) -> Iterator[list[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def _read_photographs(classifier: Classifier, files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    read: dict[str, Tensor] = {}
    unreadable: dict[str, str] = {}
    for name, path in files.items():
        try:
            read[name] = classifier.prepare(read_photograph(path))
        except ImageError as error:
            unreadable[name] = hide_folders(str(error))
    return read, unreadable


def _respell(files: Mapping[str, Path], labels: Mapping[str, str | int]) -> dict[str, str | int]:
    """Name photographs in the labels as their file system does, which may write accents in Unicode's other form."""
    names = {*files, *(path.name for path in files.values())}
    spellings = {compose_accents(name): name for name in sorted(names)}
    return {
        name if name in names else spellings.get(compose_accents(name), name): label for name, label in labels.items()
    }


@dataclass(frozen=True)
class _Truth:
    """What each photograph shows, and what it is to be taken for."""

    classifier: Classifier
    labels: str | int | Mapping[str, str | int] | None
    target: str | int | None
    seed: int

    def check_names(self, files: Mapping[str, Path]) -> None:
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
                self.classifier.class_index(label, argument="label")
        if self.target is not None and self.target not in TARGET_CHOICES:
            meant = get_close_matches(str(self.target), TARGET_CHOICES, n=1)
            try:
                self.classifier.class_index(self.target, argument="target")
            except ParameterError:
                if not meant:
                    raise
                rule = f"must be a class, or one of {', '.join(TARGET_CHOICES)}"
                raise bad_parameter("target", rule, repr(self.target), f"Did you mean {meant[0]}?") from None

    def find_classes(self, names: Sequence[str], images: Tensor) -> Classes:
        """Return (n,) what each photograph shows."""
        true = self.classifier.predict(images).clone()
        for number, name in enumerate(names):
            label = self._find_label(name)
            if label is not None:
                true[number] = self.classifier.class_index(label, argument="label")
        return true

    def make_goal(self, images: Tensor, true: Classes) -> Goal:
        """Return what is to be reached, given what the images show."""
        if self.target is None:
            return Untargeted(true)
        if self.target in TARGET_CHOICES:
            return choose_targets(self.classifier, images, str(self.target), labels=true, seed=self.seed)
        aim = self.classifier.class_index(self.target, argument="target")
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
    attack: Any, truth: _Truth, photographs: Mapping[str, Tensor], progress: Callable[[int, int, str], None]
) -> tuple[dict[str, tuple[AttackResult, int]], dict[str, str]]:
    """Attack a batch; if one of it cannot be attacked, each on its own, so that the others are not lost.

    Returns the results, each with what the photograph shows, and the reasons of those that failed.
    """
    names = list(photographs)
    images = torch.cat(list(photographs.values()))
    try:
        true = truth.find_classes(names, images)
        if isinstance(attack, ClassKeeper):
            result = attack.run_keeping_class(truth.classifier, images, true)
        else:
            result = run_attack(attack, truth.classifier, images, truth.make_goal(images, true), progress=progress)
    except WhyfooledError as error:
        if len(names) == 1:
            return {}, {names[0]: str(error)}
        results: dict[str, tuple[AttackResult, int]] = {}
        errors: dict[str, str] = {}
        for name in names:
            attacked, failed = _attack_batch(attack, truth, {name: photographs[name]}, progress)
            results |= attacked
            errors |= failed
        return results, errors
    pairs = enumerate(zip(names, true.tolist(), strict=True))
    return {name: (result.select(torch.tensor([number])), shown) for number, (name, shown) in pairs}, {}


class _Tally:
    """Counts what is finished, and says so. Lives inside one run."""

    def __init__(self, total: int, progress: Callable[[Standing], None], norm: Norm) -> None:
        self.total, self.progress, self.norm = total, progress, norm
        self.done = self.attacked = 0
        self.sizes: list[float] = []
        self.rows: list[pd.DataFrame] = []

    def add(self, count: int, results: Iterable[AttackResult]) -> None:
        for result in results:
            self.rows.append(result.to_frame())
            if not bool(result.goal.settled(result.clean_logits)[0]):
                self.attacked += 1
                if bool(result.success[0]):
                    # Kept in order: sorting them at each step of a long run would take longer than the step.
                    insort(self.sizes, float(getattr(result, self.norm)[0]))
        self.done += count
        self._say(self.done)

    def within(self, count: int) -> Callable[[int, int, str], None]:
        def say(done: int, total: int, doing: str) -> None:
            # What part of the work a stage is, is not known.
            if doing == "attack":
                self._say(self.done + count * done / total)
            else:
                self._say(self.done, doing)

        return say

    def _say(self, done: float, doing: str = "") -> None:
        count = len(self.sizes)
        middle = (self.sizes[(count - 1) // 2] + self.sizes[count // 2]) / 2 if count else None
        self.progress(Standing(done, self.total, self.attacked, len(self.sizes), middle, self.done, doing, self.norm))


def _make_table(
    classifier: Classifier, names: Sequence[str], frames: Sequence[pd.DataFrame], errors: Mapping[str, str]
) -> pd.DataFrame:
    rows = pd.concat(frames, ignore_index=True)
    rows.insert(0, "file", list(names))
    for column in ("goal_class", "clean_prediction", "prediction"):
        beside = list(rows.columns).index(column) + 1
        rows.insert(beside, f"{column}_name", [classifier.class_name(index) for index in rows[column]])
    rows["error"] = ""
    failed = pd.DataFrame([map(storable_text, pair) for pair in errors.items()], columns=["file", "error"])
    # Whole numbers that may be missing: without this they would become floats.
    whole = dict.fromkeys(rows.select_dtypes("int64"), "Int64")
    return pd.concat([rows.astype(whole), failed.astype(object)], ignore_index=True) if errors else rows
