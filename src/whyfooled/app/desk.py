"""What happens when a visitor drops something or presses a button, whatever the page is drawn with."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from PIL import Image as PILImage

from whyfooled.app.classes import Classes
from whyfooled.app.jobs import Job, Jobs
from whyfooled.app.request import FIELDS, Started, write_arguments
from whyfooled.app.uploads import Uploads
from whyfooled.drawing.html import write_data_uri
from whyfooled.errors import ImageError, ParameterError, WhyfooledError, hearing
from whyfooled.images import is_tensor_file, read_photograph
from whyfooled.running.publishing import hide_folders

_READING = threading.Lock()
"""One photograph is decoded at a time, whoever asks: they may be large."""
_SIDE = 480
"""Pixels of the longer side of the picture of what was dropped. [ours]"""


@final
@dataclass(frozen=True)
class Desk:
    """All that the page works with.

    Parameters
    ----------
    output
        The folder that holds the folders of all runs.
    started
        What was said when the page was started.
    jobs
        The line of jobs.
    uploads
        The files that were dropped.
    classes
        What the classes of models are called.
    """

    output: Path
    started: Started
    jobs: Jobs
    uploads: Uploads
    classes: Classes

    def take(self, values: Mapping[str, object]) -> Job:
        """Put into the line what a visitor set in `FIELDS`.

        Raises
        ------
        WhyfooledError
            If a setting cannot stand on a command line, two exclude each other, the photograph cannot be read, a file
            is gone, or the line is full.
        """
        files = {field.name: str(values[field.name]) for field in FIELDS if _has_file(field.kind, values, field.name)}
        if "adversarial" in files and values.get("attack"):
            raise ParameterError(
                "An adversarial image takes the place of an attack. Choose “The usual” under “Attack”, or take the "
                "adversarial image out."
            )
        if "adversarial" in files and "images" not in files:
            files["images"] = _take_as_both(files["adversarial"])
        _check_photograph(files.get("images"))
        settings = {name: value for name, value in values.items() if name not in files}
        # What cannot be said is found before anything is copied.
        write_arguments(settings, self.started)
        inputs, copies = self.uploads.copy(files)
        arguments = write_arguments({**settings, **copies}, self.started)
        return self.jobs.submit(arguments, files.get("images"), inputs)


def _has_file(kind: str, values: Mapping[str, object], name: str) -> bool:
    return kind == "file" and bool(values.get(name))


def _check_photograph(file: str | None) -> None:
    """Refuse what is no photograph before anyone waits for it; what is wrong with a tensor, the command line says."""
    if file is not None and not is_tensor_file(Path(file)):
        _read(Path(file))


def _read(path: Path) -> tuple[PILImage.Image, str]:
    """Read a photograph, and what is to be said of it; raise `ImageError`, without folders, if it is none."""
    try:
        with _READING, hearing() as heard:
            photograph = read_photograph(path)
    except WhyfooledError as error:
        raise ImageError(hide_folders(str(error))) from None
    return photograph, hide_folders(" ".join(heard))


def _take_as_both(adversarial: str) -> str:
    """Return a file that has the clean image too, as one of ``whyfooled attack`` has."""
    from safetensors import SafetensorError, safe_open

    if adversarial.lower().endswith(".safetensors"):
        try:
            with safe_open(adversarial, framework="pt") as file:
                if "clean" in file.keys():  # noqa: SIM118 (it is no dictionary)
                    return adversarial
        except (SafetensorError, OSError):
            # What is wrong with it, the command line says best.
            return adversarial
    raise ParameterError(
        "The adversarial image does not say which photograph it was made from. Drop the photograph too, or a file of "
        "`whyfooled attack`, which has both."
    )


@final
@dataclass(frozen=True)
class Look:
    """What is shown of a file that was dropped as a photograph.

    Parameters
    ----------
    uri
        A small picture of it; "" if it is none.
    sentence
        What is to be said of it.
    is_wrong
        Whether it cannot be explained.
    """

    uri: str = ""
    sentence: str = ""
    is_wrong: bool = False


def look_at(file: str | None) -> Look:
    """Look at what was dropped as a photograph; of a page that is loaded anew, too, it is said that there is none."""
    if file is None:
        return Look(sentence="Without a photograph, a cup of coffee is explained.")
    path = Path(file)
    if is_tensor_file(path):
        return Look(sentence=f"{path.name} goes into the model as it is.")
    try:
        photograph, sentence = _read(path)
    except ImageError as error:
        return Look(sentence=str(error), is_wrong=True)
    photograph.thumbnail((_SIDE, _SIDE))
    return Look(write_data_uri(photograph, lossless=False), sentence)
