"""A folder of adversarial images: one file for each, written whole and without loss, read when it is asked for."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier.goals import Kept, Targeted, Untargeted
from whyfooled.errors import ImageError, bad_parameter, did_you_mean
from whyfooled.images import is_file
from whyfooled.images.seals import is_whole
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    is_count,
    is_flag,
    is_text,
    list_of,
    maybe,
    read_kept_tensors,
    read_record,
    write_kept_tensors,
    write_record,
)
from whyfooled.types import Images

RUN_FILE = "run.json"
SUFFIX = ".safetensors"
LEFT_OUT = ".left-out.json"
RUN = FileKind("folder of adversarial images", 2, "whyfooled attack", {"images": list_of(is_text)})
_LEFT_OUT = FileKind(
    "record of a photograph that was left out",
    2,
    "whyfooled attack",
    {"reason": is_text, "photograph": is_text, "run": maybe(is_text)},
)
_GOALS: dict[str, type[Untargeted | Targeted | Kept]] = {goal.kind: goal for goal in (Untargeted, Targeted, Kept)}
_ADVERSARY = FileKind(
    "adversarial image",
    2,
    "whyfooled attack",
    {
        "success": is_flag,
        "forwards": is_count,
        "backwards": is_count,
        "goal": lambda value: value in _GOALS,
        "class": is_count,
        "true": maybe(is_count),
        "photograph": maybe(is_text),
        "run": maybe(is_text),
        "stage": maybe(is_count),
    },
)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Adversaries:
    """Saved adversarial images: ``adversaries[3]`` and ``adversaries[:8]`` are `AttackResult` s, read at that moment.

    Parameters
    ----------
    folder
        Where they lie.
    names
        The photographs' names, in order: paths below their common folder.
    parameters
        What the run was: model, attack, seed and so on.
    """

    folder: Path
    names: tuple[str, ...]
    parameters: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        about = ", ".join(f"{key}={self.parameters[key]}" for key in ("model", "attack") if key in self.parameters)
        return f"Adversaries({len(self)} images in {self.folder}; {about})"

    def __getitem__(self, index: Any) -> AttackResult:
        """Read one image, as a batch of one, or several of one size.

        Parameters
        ----------
        index
            A position, a slice, a photograph's name, a list of names, or an array of positions or of flags, such as a
            table's column.
        """
        if isinstance(index, str):
            index = self._find(index)
        elif isinstance(index, (list, tuple)) and any(isinstance(name, str) for name in index):
            index = [self._find(name) for name in index]
        chosen = np.atleast_1d(np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)])
        if not len(chosen):
            raise bad_parameter("index", f"must choose some of the {len(self)} images", index)
        return AttackResult.join([read_adversary(adversary_file(self.folder, self.names[i])) for i in chosen])

    def _find(self, name: object) -> int:
        if name not in self.names:
            near = did_you_mean(str(name), self.names)
            raise bad_parameter("index", "must be a photograph's name", repr(name), near)
        return self.names.index(str(name))

    @property
    def clean(self) -> Images:
        """(n,c,h,w) The images before, read at that moment."""
        return self[:].clean

    @property
    def adversarial(self) -> Images:
        """(n,c,h,w) The images after, read at that moment; where the attack failed, the clean image."""
        return self[:].adversarial

    def __iter__(self) -> Iterator[AttackResult]:
        return (self[number] for number in range(len(self)))

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each image: its name, and what `AttackResult.to_frame` says."""
        rows = pd.concat([result.to_frame() for result in self], ignore_index=True)
        rows.insert(0, "file", list(self.names))
        return rows


def load_adversaries(folder: str | Path) -> Adversaries:
    """Open a folder that ``whyfooled attack`` wrote, finished or not.

    Raises
    ------
    ImageError
        If it is no such folder, or holds no image yet.
    """
    folder = Path(folder)
    try:
        parameters = read_record(folder / RUN_FILE, RUN)
    except (OSError, ValueError, DamagedError):
        raise ImageError(
            f"{folder} is not a folder of adversarial images: it has no readable {RUN_FILE}. "
            "Make one: whyfooled attack."
        ) from None
    names = tuple(name for name in parameters["images"] if is_file(adversary_file(folder, name)))
    if not names:
        raise ImageError(f"{folder} holds no adversarial image yet; its run was stopped before the first was finished.")
    return Adversaries(folder, names, parameters)


def is_run(folder: Path) -> bool:
    """Tell whether ``whyfooled attack`` wrote a folder, be it damaged or by another version."""
    path = folder / RUN_FILE
    try:
        # Other programs write files of this name too, but not with a seal.
        return is_whole(path.read_bytes()) is not None or bool(read_record(path, RUN))
    except (OSError, ValueError, DamagedError, ImageError):
        return False


def adversary_file(folder: Path, name: str) -> Path:
    """Return where a photograph's adversarial image is kept."""
    return folder / f"{name}{SUFFIX}"


def find_name_fault(folder: Path, name: str, ending: str = LEFT_OUT) -> str:
    """Say why no file named after a photograph, with an ending, can be kept in a folder that exists; "" if it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "Its name is not text in UTF-8, so no file can be named after it. Rename it."
    # Its own folder may not be there yet.
    for path in (folder / f"{name}{ending}", folder / f"{Path(name).name}{ending}"):
        try:
            path.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return f"Its name is too long for a file named after it, which ends in {ending}. Shorten it."
    return ""


def write_left_out(folder: Path, name: str, reason: str, photograph: str, run: str) -> None:
    """Write why a photograph could not be attacked."""
    record = {"reason": reason, "photograph": photograph, "run": run}
    write_record(folder / f"{name}{LEFT_OUT}", _LEFT_OUT, record)
    adversary_file(folder, name).unlink(missing_ok=True)


def read_left_out(folder: Path, name: str, photograph: str, run: str) -> str | None:
    """Return why a photograph was left out; None if it was not, or was another photograph or in another run."""
    try:
        record = read_record(folder / f"{name}{LEFT_OUT}", _LEFT_OUT)
    except (OSError, DamagedError, ImageError):
        return None
    return str(record["reason"]) if (record["photograph"], record.get("run")) == (photograph, run) else None


def has_result(folder: Path, name: str) -> bool:
    """Tell whether there is anything of a photograph in a folder: its adversarial image, or why it was left out."""
    return is_file(adversary_file(folder, name)) or is_file(folder / f"{name}{LEFT_OUT}")


def is_finished(folder: Path, name: str, photograph: str, run: str) -> bool:
    """Tell whether a photograph's adversarial image is there, undamaged, of a run, and of the photograph as it is now.

    `photograph` and `run` are their digests.
    """
    try:
        about, _ = _read(adversary_file(folder, name))
    except (OSError, ImageError):
        return False
    return (about.get("photograph"), about.get("run")) == (photograph, run)


def list_runs(folder: Path) -> Iterator[str | None]:
    """Give, for each result that is in a folder, the digest of the run that it belongs to; None if it does not say."""
    for path in folder.rglob(f"*{SUFFIX}"):
        try:
            yield _read(path)[0].get("run")
        except (OSError, ImageError):
            yield None
    for path in folder.rglob(f"*{LEFT_OUT}"):
        try:
            yield read_record(path, _LEFT_OUT).get("run")
        except (OSError, DamagedError, ImageError):
            yield None


def write_adversary(folder: Path, name: str, result: AttackResult, true: int, photograph: str, run: str) -> None:
    """Write one image's result (a batch of one): clean, adversarial and, where it failed, attempted; both logits.

    `true` is the class that it shows, which a target does not tell. `photograph` is a digest of the photograph's
    content, so that a changed one is noticed, and `run` one of all that makes the run this one.
    """
    tensors = {
        "clean": result.clean[0],
        "adversarial": result.adversarial[0],
        "clean_logits": result.clean_logits[0],
        "logits": result.logits[0],
    }
    if not result.success[0]:
        tensors["attempted"] = result.attempted[0]
    about = {
        "success": bool(result.success[0]),
        "forwards": int(result.forwards[0]),
        "backwards": int(result.backwards[0]),
        "goal": result.goal.kind,
        "class": int(result.goal.classes[0]),
        "true": true,
        "photograph": photograph,
        "run": run,
        "stage": None if result.stage is None else int(result.stage[0]),
    }
    single = {key: tensor.float() for key, tensor in tensors.items()}
    write_kept_tensors(adversary_file(folder, name), _ADVERSARY, single, about)
    (folder / f"{name}{LEFT_OUT}").unlink(missing_ok=True)


def read_adversary(path: Path) -> AttackResult:
    """Read one image's result, as a batch of one."""
    about, tensors = _read(path)
    return AttackResult(
        clean=tensors["clean"],
        adversarial=tensors["adversarial"],
        attempted=tensors.get("attempted", tensors["adversarial"]),
        success=torch.tensor([about["success"]]),
        clean_logits=tensors["clean_logits"],
        logits=tensors["logits"],
        forwards=torch.tensor([about["forwards"]]),
        backwards=torch.tensor([about["backwards"]]),
        goal=_GOALS[about["goal"]](torch.tensor([about["class"]])),
        stage=None if about.get("stage") is None else torch.tensor([about["stage"]]),
    )


def check_class_changes(run: Adversaries) -> None:
    """Raise `ImageError` for a run whose attack kept the classes: nothing there fools a classifier."""
    if _find_goal(run) == Kept.kind:
        raise ImageError(
            f"{run.folder} holds images whose class was kept while their maps were changed: nothing there fools the "
            "classifier. Give a folder of an attack that changes the class."
        )


def _find_goal(run: Adversaries) -> str:
    """Return the kind of goal that a run has, from its first file that can be read; "" if none can."""
    for name in run.names:
        try:
            return str(_read(adversary_file(run.folder, name))[0]["goal"])
        except ImageError:
            continue  # which is said when it is read
    return ""


def read_true_class(path: Path) -> int | None:
    """Read what a saved image shows, as its run was told; None if that was not recorded."""
    about, _ = _read(path)
    if about.get("true") is not None:
        return int(about["true"])
    # Earlier versions wrote the goal alone.
    return None if about["goal"] == "targeted" else int(about["class"])


def read_seen_class(path: Path) -> int:
    """Read which class was predicted on the clean image."""
    return int(_read(path)[1]["clean_logits"].argmax())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what stands in a file, and its tensors, each as a batch of one; raise `ImageError` if it is damaged."""
    try:
        about, tensors = read_kept_tensors(path, _ADVERSARY)
        _check_tensors(about, tensors)
    except (OSError, DamagedError):
        raise ImageError(
            f"{path} is not an adversarial image of `whyfooled attack`, or is damaged. Delete it."
        ) from None
    return about, {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}


def _check_tensors(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise `DamagedError` unless the images and the logits are there and go together."""
    images = [tensors.get(name) for name in ("clean", "adversarial", *({"attempted"} & set(tensors)))]
    logits = [tensors.get(name) for name in ("clean_logits", "logits")]
    for several, axes in ((images, 3), (logits, 1)):
        shapes = {None if one is None or one.dtype != torch.float32 else tuple(one.shape) for one in several}
        shape = shapes.pop()
        if shapes or shape is None or len(shape) != axes or 0 in shape:
            raise DamagedError
        if axes == 1 and not all(index is None or index < shape[0] for index in (about["class"], about.get("true"))):
            raise DamagedError
