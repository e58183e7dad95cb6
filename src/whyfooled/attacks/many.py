"""Attacking many photographs: batch after batch, every result written at once, resumed where it stopped."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from whyfooled.attacks import AttackResult
from whyfooled.attacks._attack import ClassKeeper, Norm, find_norm
from whyfooled.attacks._batches import AttackedBatch, AttackWork, Truth, say_nothing
from whyfooled.attacks.adversaries import (
    LEFT_OUT,
    RUN,
    RUN_FILE,
    SUFFIX,
    Adversaries,
    adversary_file,
    find_name_fault,
    has_result,
    is_finished,
    list_runs,
    read_adversary,
    read_left_out,
    write_adversary,
    write_left_out,
)
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import check_one_answer
from whyfooled.errors import ImageError, at_least, bad_parameter
from whyfooled.images import common_folder, compose_accents, photographs_in, write_whole
from whyfooled.images.seals import digest_file
from whyfooled.registry import describe_value
from whyfooled.running.engines import Engine, Local, ModelRecipe, choose_engine
from whyfooled.running.kept import storable_text
from whyfooled.running.publishing import hide_all_folders
from whyfooled.running.runs import claim, digest_run, identify_computation
from whyfooled.types import Progress

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
    workers: int | None = None,
    engine: str = "local",
    address: str | None = None,
    model: ModelRecipe | None = None,
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
    workers
        Over how many cores the work is shared out; if None, as many as the threads that PyTorch is set to, and with Ray
        all of the cluster's. The results do not depend on it.
    engine
        ``"local"``: in this process. ``"ray"``: on the machines of a Ray cluster, a batch at a time on each core or
        GPU; they need the photographs under the same paths.
    address
        The Ray cluster's address; one of this machine alone if None.
    model
        How the machines of a cluster load the classifier, as it was loaded here; sent to them as it is if None.
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
    ParameterError
        If an argument has a value that it must not have, or Ray cannot be reached.
    ImageError
        If there is no photograph, or none could be attacked.
    OutputError
        If the folder holds another run, or cannot be written.
    """
    at_least("batch_size", batch_size, 1)
    # Large images of a batch are shared out by the attack.
    chosen_engine = choose_engine(engine, address, classifier, workers, one_by_one=True)
    check_one_answer(classifier)
    if target is not None and isinstance(attack, ClassKeeper):
        raise bad_parameter("target", "is for an attack that changes the class", target, "Leave it out.")
    root, below = common_folder(photographs_in(images))
    files = {name: root / name for name in below}
    folder = Path(folder)
    run = hide_all_folders(
        {
            **identify_computation(classifier),
            "attack": describe_value(attack),
            "labels": dict(labels) if isinstance(labels, Mapping) else labels,
            "target": target,
            "seed": seed,
            "batch_size": batch_size,
            **(about or {}),
            "images": list(files),
        }
    )
    truth = Truth(_respell(files, labels) if isinstance(labels, Mapping) else labels, target, seed)
    truth.check_names(classifier, files)
    with claim(folder / RUN_FILE, RUN, run, results=lambda: list_runs(folder), partial=_PARTIAL):
        tally = _Tally(len(files), report, find_norm(attack))
        place = _Place(folder, digest_run(run))
        faults = {name: fault for name in files if (fault := find_name_fault(folder, name))}
        if faults:
            tally.add(faults, {})
        names = [name for name in files if name not in faults]
        batches = {
            number: {name: files[name] for name in some}
            for number, some in enumerate(_split_into_batches(names, batch_size))
        }
        left_out = _attack_all(batches, attack, truth, place, tally, chosen_engine, model or ModelRecipe(classifier))
        errors = faults | {name: left_out[name] for name in names if name in left_out}
        if len(errors) == len(files):
            name, reason = next(iter(errors.items()))
            raise ImageError(f"None of the {len(files)} photographs could be attacked. {name}: {reason}")
        done = Adversaries(folder, tuple(name for name in files if name not in errors), run)
        table = _make_table(classifier, done.names, [tally.rows[name] for name in done.names], errors)
        write_whole(folder / TABLE_FILE, table.to_csv(index=False).encode())
    return done, errors


def _attack_all(
    batches: Mapping[int, Mapping[str, Path]],
    attack: Any,
    truth: Truth,
    place: _Place,
    tally: _Tally,
    engine: Engine,
    model: ModelRecipe,
) -> dict[str, str]:
    """Attack the batches that are not finished yet, write each as soon as it is; return the reasons of those left out.

    They finish in any order.
    """
    left_out: dict[str, str] = {}

    def take(batch: Mapping[str, Path], reasons: Mapping[str, str]) -> None:
        left_out.update(reasons)
        kept = (name for name in batch if name not in reasons)
        tally.add(batch, {name: read_adversary(adversary_file(place.folder, name)) for name in kept})

    waiting = {}
    for number, batch in batches.items():
        reasons = _is_finished(place, batch)
        if reasons is None:
            waiting[number] = batch
        else:
            take(batch, reasons)
    if waiting:
        # Only what is done in this process can say how far a batch is.
        within = tally.within if isinstance(engine, Local) else say_nothing
        with engine.start(AttackWork(attack, truth, within), model, len(waiting)) as crew:
            for number, attacked in crew.run(waiting):
                _write_batch(place, attacked)
                take(batches[number], attacked.errors)
    return left_out


_PARTIAL = tuple(f"{name}.partial" for name in (RUN_FILE, TABLE_FILE, f"**/*{SUFFIX}", f"**/*{LEFT_OUT}"))


@dataclass(frozen=True)
class _Place:
    """The folder that results go to, and the digest of the run that they belong to."""

    folder: Path
    run: str


def _is_finished(place: _Place, batch: Mapping[str, Path]) -> dict[str, str] | None:
    """Tell whether all of a batch is finished: return the reasons of those left out, or None if it is not."""
    folder, run = place.folder, place.run
    reasons: dict[str, str] = {}
    for name, path in batch.items():
        if not has_result(folder, name):
            return None
        photograph = digest_file(path)
        reason = read_left_out(folder, name, photograph, run)
        if reason is not None:
            reasons[name] = reason
        elif not is_finished(folder, name, photograph, run):
            return None
    return reasons


def _write_batch(place: _Place, attacked: AttackedBatch) -> None:
    for name, (result, true) in attacked.results.items():
        write_adversary(place.folder, name, result, true, attacked.photographs[name], place.run)
    for name, reason in attacked.errors.items():
        write_left_out(place.folder, name, reason, attacked.photographs[name], place.run)


def _split_into_batches(names: list[str], size: int) -> Iterator[list[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def _respell(files: Mapping[str, Path], labels: Mapping[str, str | int]) -> dict[str, str | int]:
    """Name photographs in the labels as their file system does, which may write accents in Unicode's other form."""
    names = {*files, *(path.name for path in files.values())}
    spellings = {compose_accents(name): name for name in sorted(names)}
    return {
        name if name in names else spellings.get(compose_accents(name), name): label for name, label in labels.items()
    }


class _Tally:
    """Counts what is finished, and says so. Lives inside one run."""

    def __init__(self, total: int, progress: Callable[[Standing], None], norm: Norm) -> None:
        self.total, self.progress, self.norm = total, progress, norm
        self.done = self.attacked = 0
        self.sizes: list[float] = []
        self.rows: dict[str, pd.DataFrame] = {}

    def add(self, names: Collection[str], results: Mapping[str, AttackResult]) -> None:
        for name, result in results.items():
            self.rows[name] = result.to_frame()
            if not bool(result.goal.settled(result.clean_logits)[0]):
                self.attacked += 1
                if bool(result.success[0]):
                    # Kept in order: sorting them at each step of a long run would take longer than the step.
                    insort(self.sizes, float(getattr(result, self.norm)[0]))
        self.done += len(names)
        self._say(self.done)

    def within(self, count: int) -> Progress:
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
