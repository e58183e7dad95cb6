"""Adversarial images that ``whyfooled attack`` saved, as a source: one run, or several on the same photographs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from whyfooled.attacks import AttackResult
from whyfooled.attacks.adversaries import (
    RUN_FILE,
    Adversaries,
    adversary_file,
    check_class_changes,
    load_adversaries,
    read_adversary,
    read_seen_class,
    read_true_class,
)
from whyfooled.errors import ImageError, bad_parameter, warn
from whyfooled.sources._source import Source


@final
@dataclass(frozen=True)
class AdversaryReader:
    """Reads the saved attacks on photographs.

    Parameters
    ----------
    folders
        For each attack, the folder that ``whyfooled attack`` wrote, absolute.
    names
        The photographs' names in all of them.
    """

    folders: Mapping[str, Path]
    names: tuple[str, ...]

    def read(self, index: int) -> Mapping[str, AttackResult]:
        """Read what each attack made of one photograph; raise `ImageError` if they did not attack the same image."""
        name = self.names[index]
        results = {attack: read_adversary(adversary_file(folder, name)) for attack, folder in self.folders.items()}
        first = next(iter(results))
        for attack, result in results.items():
            if not torch.equal(result.clean, results[first].clean):
                raise ImageError(
                    f"{name} is not the same clean image in {self.folders[first]} and in {self.folders[attack]}: "
                    "another photograph was attacked, or a model that takes another input."
                )
        return results

    def files(self) -> Iterable[Path]:
        """Name the runs' files, and those of the results."""
        for folder in self.folders.values():
            yield folder / RUN_FILE
            yield from (adversary_file(folder, name) for name in self.names)


def open_saved(places: Sequence[str], title: str) -> Source:
    """List folders of saved adversarial images: the photographs that every run has finished, in the first one's order.

    The label is the true class that the attacks were given, an index of the classifier that was attacked. Runs must
    agree about it. Where none recorded it (targeted runs of earlier versions did not), it is the class predicted on the
    clean image. Attacks of one name are told apart by the names of their folders.
    """
    runs = [load_adversaries(Path(place).absolute()) for place in places]
    for run in runs:
        check_class_changes(run)
    names = _list_common(runs)
    folders = dict(zip(_name_runs(runs), (run.folder for run in runs), strict=True))
    shown = tuple(_find_labels([run.folder for run in runs], name) for name in names)
    return Source(title, names, shown, AdversaryReader(folders, names), attacks=tuple(folders))


def _name_runs(runs: Sequence[Adversaries]) -> list[str]:
    """Name each run by its attack; by its folder too, where another run is of the same attack."""
    attacks = [str(run.parameters.get("attack", "saved")) for run in runs]
    titles = [
        attack if attacks.count(attack) == 1 else f"{attack} ({run.folder.name})"
        for attack, run in zip(attacks, runs, strict=True)
    ]
    for title, run in zip(titles, runs, strict=True):
        if titles.count(title) > 1:
            rule = "must be runs that differ in their attack or in the name of their folder"
            raise bad_parameter("images", rule, f"{run.folder} twice or another folder {run.folder.name} with {title}")
    return titles


def _list_common(runs: Sequence[Adversaries]) -> tuple[str, ...]:
    """Name the photographs that are in all runs; warn of the others."""
    sets = [set(run.names) for run in runs]
    common, every = set.intersection(*sets), set.union(*sets)
    folders = ", ".join(str(run.folder) for run in runs)
    if not common:
        raise ImageError(
            f"No photograph is in all of {folders}. Attack the same photographs, below the same common folder."
        )
    if len(common) < len(every):
        example = min(every - common)
        missing = next(run.folder for run, names in zip(runs, sets, strict=True) if example not in names)
        warn(
            f"{len(every) - len(common)} of {len(every)} photographs are left out because not every run has finished "
            f"them, such as {example}, which is not in {missing}.",
            stacklevel=4,
        )
    return tuple(name for name in runs[0].names if name in common)


def _find_labels(folders: Sequence[Path], name: str) -> tuple[int, ...]:
    """Find what a photograph shows; empty if a file is damaged."""
    try:
        classes = {folder: read_true_class(adversary_file(folder, name)) for folder in folders}
        recorded = {folder: true for folder, true in classes.items() if true is not None}
        if not recorded:
            return (read_seen_class(adversary_file(folders[0], name)),)
    except ImageError:
        # One damaged file does not keep the others from being listed; it is named when it is read.
        return ()
    if len(set(recorded.values())) > 1:
        said = ", ".join(f"class {true} in {folder}" for folder, true in recorded.items())
        raise ImageError(f"The runs do not agree about what {name} shows: {said}. Attack with the same labels.")
    return (next(iter(recorded.values())),)
