"""Adversarial images that ``whyfooled attack`` saved, as a source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from whyfooled.adversaries import RUN_FILE, adversary_file, load_adversaries, read_adversary, read_true_class
from whyfooled.attacks import AttackResult
from whyfooled.errors import ImageError
from whyfooled.sources._source import Source


@final
@dataclass(frozen=True)
class AdversaryReader:
    """Reads the saved attacks on photographs.

    Parameters
    ----------
    folder
        The folder that ``whyfooled attack`` wrote, absolute.
    names
        The photographs' names in it.
    """

    folder: Path
    names: tuple[str, ...]

    def read(self, index: int) -> AttackResult:
        """Read one attack's result."""
        return read_adversary(adversary_file(self.folder, self.names[index]))

    def files(self) -> Iterable[Path]:
        """Name the run's file, and those of the results."""
        return [self.folder / RUN_FILE, *(adversary_file(self.folder, name) for name in self.names)]


def open_saved(place: str, title: str) -> Source:
    """List a folder of saved adversarial images.

    The label is the true class that the attack was given, or, where its goal was a target, the class predicted on the
    clean image: indices of the classifier that was attacked.
    """
    saved = load_adversaries(Path(place).absolute())
    shown = tuple(_label(adversary_file(saved.folder, name)) for name in saved.names)
    reader = AdversaryReader(saved.folder, saved.names)
    return Source(title, saved.names, shown, reader, attack=saved.parameters.get("attack"))


def _label(path: Path) -> tuple[int, ...]:
    try:
        return (read_true_class(path),)
    except ImageError:
        # One damaged file does not keep the others from being listed; it is named when it is read.
        return ()
