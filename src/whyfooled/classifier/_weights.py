"""Weights from files: read without running anything, fitted to a model, its head included."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import safe_open
from torch import Tensor, nn

from whyfooled.errors import ModelError
from whyfooled.images import is_file

_KEY = "whyfooled"


@final
@dataclass(frozen=True, eq=False)
class Weights:
    """A model's weights.

    Parameters
    ----------
    path
        The file that they are from.
    state
        The tensors by name.
    class_names
        The names of the classes that they were trained for, if the file tells them.
    """

    path: Path
    state: dict[str, Tensor]
    class_names: tuple[str, ...] | None


def read_weights(path: Path) -> Weights:
    """Read a state dict, from safetensors or from a file that ``torch.save`` wrote; nothing is unpickled but tensors.

    A safetensors file may name the classes in its metadata: the key ``"whyfooled"``, a JSON object with the list
    ``"class_names"``.

    Raises
    ------
    ModelError
        If there is no such file, or it is damaged or holds anything else.
    """
    if not is_file(path):
        raise ModelError(f"There is no weights file {path}.")
    about: dict[str, str] = {}
    state: Any
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                names = file.keys()
                state = {name: file.get_tensor(name) for name in names}
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors, and loading it could run code, so it was not loaded. "
            "Save the state dict alone, as safetensors or with torch.save(model.state_dict(), ...)."
        ) from None
    except Exception as error:  # on damaged files torch.load raises whatever it stumbles over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(f"The weights file {path} cannot be read: {reason}.") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ModelError(
            f"The weights file {path} must hold a state dict, tensors by name; got {type(state).__name__}."
        )
    return Weights(path, state, _read_class_names(path, about))


def _read_class_names(path: Path, about: dict[str, str]) -> tuple[str, ...] | None:
    try:
        names = json.loads(about.get(_KEY, "{}")).get("class_names")
    except (ValueError, AttributeError):
        names = ()
    if names is None:
        return None
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise ModelError(
            f"The weights file {path} must name its classes in its metadata as {{"
            '"class_names": ["one", "other"]}, a JSON object, or not at all.'
        )
    return tuple(names)


def load_weights(module: nn.Module, weights: Weights, but_head: bool = False) -> None:
    """Put weights into a model; tensors of another shape stay as they are if `but_head`.

    Raises
    ------
    ModelError
        If they do not fit.
    """
    expected = module.state_dict()
    state = _strip_prefix(weights.state, expected.keys())
    wrong = _find_misshapen(expected, state)
    if but_head:
        state, wrong = state | {key: expected[key] for key in wrong}, []
    # How many batches a normalisation saw in training changes nothing here, and many files leave it out.
    missing = sorted(key for key in expected.keys() - state.keys() if not key.endswith("num_batches_tracked"))
    # Auxiliary classifiers of torchvision's GoogLeNet and Inception serve training alone.
    state = {key: value for key, value in state.items() if key in expected or not key.startswith(("aux", "AuxLogits."))}
    unknown = sorted(state.keys() - expected.keys())
    if missing or unknown or wrong:
        parts = [
            _list_some("missing", missing),
            _list_some("not in the model", unknown),
            _list_some("of another shape", wrong),
        ]
        raise ModelError(f"The weights in {weights.path} do not fit the model: {'; '.join(filter(None, parts))}.")
    module.load_state_dict(expected | state)


def count_head_classes(module: nn.Module, weights: Weights) -> tuple[int, int] | None:
    """Tell the numbers of classes of the model's head and of the weights', if they differ in that and nothing else.

    That is seen from the tensors of other shapes: all have the same two numbers of rows, and rows of the same shape.
    """
    expected = module.state_dict()
    state = _strip_prefix(weights.state, expected.keys())
    shapes = [(expected[key].shape, state[key].shape) for key in _find_misshapen(expected, state)]
    rows = {(mine[:1], theirs[:1]) for mine, theirs in shapes}
    if len(rows) != 1 or any(mine[1:] != theirs[1:] for mine, theirs in shapes):
        return None
    mine, theirs = rows.pop()
    return (mine[0], theirs[0]) if mine and theirs else None


def replace_head(module: nn.Module, fresh: nn.Module) -> None:
    """Put into a model those of another one's layers whose tensors have other shapes: its head, for other classes."""
    wanted = fresh.state_dict()
    for key in _find_misshapen(module.state_dict(), wanted):
        path = key.rpartition(".")[0]
        module.set_submodule(path, fresh.get_submodule(path))


def _find_misshapen(expected: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    return sorted(key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape)


def _list_some(what: str, keys: list[str], most: int = 3) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{len(keys)} tensors {what} ({', '.join(keys[:most])}{more})"


def _strip_prefix(state: dict[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Take off what DataParallel and torch.compile put before every name, once or both, unless the model has it too."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if state and not any(key in expected for key in state) and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
