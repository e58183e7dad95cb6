"""A folder of adversarial images: one file for each, written whole and without loss, read when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier.goals import Goal, Targeted, Untargeted
from whyfooled.errors import ImageError, bad_parameter, did_you_mean
from whyfooled.images import write_tensors, write_whole
from whyfooled.running.formats import check_format

RUN_FILE = "run.json"
SUFFIX = ".safetensors"
LEFT_OUT = ".left-out.json"
_KEY = "whyfooled"
_VERSION = 1


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
            A position, a slice, a photograph's name, or an array of positions or of flags, such as a table's column.
        """
        if isinstance(index, str):
            if index not in self.names:
                raise bad_parameter(
                    "index", "must be a photograph's name", repr(index), did_you_mean(index, self.names)
                )
            index = self.names.index(index)
        chosen = np.atleast_1d(np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)])
        if not len(chosen):
            raise bad_parameter("index", f"must choose some of the {len(self)} images", index)
        return AttackResult.join([read_adversary(adversary_file(self.folder, self.names[i])) for i in chosen])

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
    parameters = _read_run(folder)
    if parameters is None:
        raise ImageError(
            f"{folder} is not a folder of adversarial images: it has no readable {RUN_FILE}. "
            "Make one: whyfooled attack."
        )
    names = tuple(name for name in parameters["images"] if adversary_file(folder, name).is_file())
    if not names:
        raise ImageError(f"{folder} holds no adversarial image yet; its run was stopped before the first was finished.")
    return Adversaries(folder, names, parameters)


def is_run(folder: Path) -> bool:
    """Tell whether ``whyfooled attack`` wrote a folder."""
    return _read_run(folder) is not None


def _read_run(folder: Path) -> dict[str, Any] | None:
    try:
        parameters = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # Other programs write files of this name too.
    known = isinstance(parameters, dict) and isinstance(parameters.get("images"), list)
    return parameters if known else None


def adversary_file(folder: Path, name: str) -> Path:
    """Return where a photograph's adversarial image is kept."""
    return folder / f"{name}{SUFFIX}"


def write_left_out(folder: Path, name: str, reason: str, photograph: str) -> None:
    """Write why a photograph could not be attacked."""
    content = json.dumps({"reason": reason, "photograph": photograph}, ensure_ascii=False)
    write_whole(folder / f"{name}{LEFT_OUT}", content.encode())
    adversary_file(folder, name).unlink(missing_ok=True)


def read_left_out(folder: Path, name: str, photograph: str) -> str | None:
    """Return why a photograph was left out; None if it was not, or was another photograph then."""
    try:
        record = json.loads((folder / f"{name}{LEFT_OUT}").read_text())
        return str(record["reason"]) if record["photograph"] == photograph else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_finished(folder: Path, name: str, photograph: str) -> bool:
    """Tell whether a photograph's adversarial image is there, undamaged, and made from the photograph as it is now."""
    try:
        with safe_open(adversary_file(folder, name), framework="pt") as file:
            return bool(json.loads((file.metadata() or {})[_KEY])["photograph"] == photograph)
    except (SafetensorError, OSError, KeyError, ValueError):
        return False


def write_adversary(folder: Path, name: str, result: AttackResult, true: int, photograph: str) -> None:
    """Write one image's result (a batch of one): clean, adversarial and, where it failed, attempted; both logits.

    `true` is the class that it shows, which a target does not tell. `photograph` tells the photograph's content, so
    that a changed one is noticed.
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
        "format": _VERSION,
        "success": bool(result.success[0]),
        "forwards": int(result.forwards[0]),
        "backwards": int(result.backwards[0]),
        "goal": "targeted" if isinstance(result.goal, Targeted) else "untargeted",
        "class": int(result.goal.classes[0]),
        "true": true,
        "photograph": photograph,
    }
    # One key: the format writes several in no fixed order, and equal runs are to give equal files.
    write_tensors(adversary_file(folder, name), tensors, {_KEY: json.dumps(about)})
    (folder / f"{name}{LEFT_OUT}").unlink(missing_ok=True)


def read_adversary(path: Path) -> AttackResult:
    """Read one image's result, as a batch of one."""
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, file)
            names = file.keys()
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).unsqueeze(0) for name in names}
    except (SafetensorError, OSError, KeyError, ValueError):
        raise _damaged(path) from None
    classes = torch.tensor([about["class"]])
    goal: Goal = Targeted(classes) if about["goal"] == "targeted" else Untargeted(classes)
    return AttackResult(
        clean=tensors["clean"],
        adversarial=tensors["adversarial"],
        attempted=tensors.get("attempted", tensors["adversarial"]),
        success=torch.tensor([about["success"]]),
        clean_logits=tensors["clean_logits"],
        logits=tensors["logits"],
        forwards=torch.tensor([about["forwards"]]),
        backwards=torch.tensor([about["backwards"]]),
        goal=goal,
    )


def read_true_class(path: Path) -> int | None:
    """Read what a saved image shows, as its run was told; None if that was not recorded."""
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, file)
            if "true" in about:
                return int(about["true"])
            # Earlier versions wrote the goal alone.
            return None if about["goal"] == "targeted" else int(about["class"])
    except (SafetensorError, OSError, KeyError, ValueError):
        raise _damaged(path) from None


def _about(path: Path, file: Any) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
    # The first version did not say which one it is.
    check_format(path, "adversarial image", about.get("format", 1), _VERSION, "whyfooled attack")
    return about


def read_seen_class(path: Path) -> int:
    """Read which class was predicted on the clean image."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_tensor("clean_logits").argmax())
    except (SafetensorError, OSError, ValueError):
        raise _damaged(path) from None


def _damaged(path: Path) -> ImageError:
    return ImageError(f"{path} is not an adversarial image of `whyfooled attack`, or is damaged. Delete it.")
