"""A folder of adversarial images: one file for each, written whole and without loss, read when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.errors import ImageError, bad_parameter
from whyfooled.goals import Goal, Targeted, Untargeted
from whyfooled.images import write_tensors

RUN_FILE = "run.json"
SUFFIX = ".safetensors"
_KEY = "whyfooled"


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

    def __getitem__(self, index: int | slice) -> AttackResult:
        """Read one image, as a batch of one, or several of one size."""
        if isinstance(index, int):
            return read_adversary(adversary_file(self.folder, self.names[index]))
        chosen = self.names[index]
        if not chosen:
            raise bad_parameter("index", f"must choose some of the {len(self)} images", index)
        return AttackResult.join([read_adversary(adversary_file(self.folder, name)) for name in chosen])

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
        parameters = json.loads((folder / RUN_FILE).read_text())
    except (OSError, ValueError):
        raise ImageError(
            f"{folder} is not a folder of adversarial images: it has no readable {RUN_FILE}. "
            "Make one: whyfooled attack."
        ) from None
    names = tuple(name for name in parameters["images"] if adversary_file(folder, name).is_file())
    if not names:
        raise ImageError(f"{folder} holds no adversarial image yet; its run was stopped before the first was finished.")
    return Adversaries(folder, names, parameters)


def adversary_file(folder: Path, name: str) -> Path:
    """Return where a photograph's adversarial image is kept."""
    return folder / f"{name}{SUFFIX}"


def write_adversary(folder: Path, name: str, result: AttackResult) -> None:
    """Write one image's result (a batch of one): clean, adversarial and, where it failed, attempted; both logits."""
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
        "goal": "targeted" if isinstance(result.goal, Targeted) else "untargeted",
        "class": int(result.goal.classes[0]),
    }
    path = adversary_file(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One key: the format writes several in no fixed order, and equal runs are to give equal files.
    write_tensors(path, tensors, {_KEY: json.dumps(about)})


def read_adversary(path: Path) -> AttackResult:
    """Read one image's result, as a batch of one."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            names = file.keys()
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).unsqueeze(0) for name in names}
    except (SafetensorError, OSError, KeyError, ValueError):
        raise ImageError(
            f"{path} is not an adversarial image of `whyfooled attack`, or is damaged. Delete it."
        ) from None
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
