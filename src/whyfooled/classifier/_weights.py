"""Weights from files: read without running anything, fitted to a model, its head included."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, final

import torch
from safetensors import safe_open
from torch import Tensor, nn

from whyfooled.errors import ModelError, first_line
from whyfooled.images import describe_tensor, is_file, is_plain, recognise_mistaken

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

    The file may hold it alone, or a training script's checkpoint that has it under one of the usual names:
    ``state_dict``, ``model_state_dict``, ``model``, ``net``. Of weights and their running average, the weights are
    taken.

    A safetensors file may name the classes in its metadata: the key ``"whyfooled"``, a JSON object with the list
    ``"class_names"``.

    Raises
    ------
    ModelError
        If there is no such file, or it is damaged or holds anything else.
    """
    if not is_file(path):
        raise ModelError(f"There is no weights file {path}.")
    mistaken = recognise_mistaken(path)
    if mistaken:
        raise ModelError(f"The weights file {path} is {mistaken}.")
    about: dict[str, str] = {}
    content: Any
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                names = file.keys()
                content = {name: file.get_tensor(name) for name in names}
        else:
            # Training scripts keep their options, a Namespace, beside the weights: it holds values and does nothing.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} {_explain_refusal(path, error)}") from None
    except Exception as error:  # on damaged files torch.load raises whatever it stumbles over
        raise ModelError(f"The weights file {path} cannot be read: {_explain_failure(path, error)}.") from None
    return Weights(path, _find_state_in(path, content), _read_class_names(path, about))


def _explain_refusal(path: Path, error: Exception) -> str:
    """Say why PyTorch did not load a file, without its advice to load it all the same."""
    if not _was_saved(path):
        return "is no file of weights: it is neither safetensors nor written by torch.save."
    kind = re.search(r"GLOBAL ([\w.]+)", str(error))
    return (
        f"holds more than tensors{f' ({kind[1]})' if kind else ''}, and loading it could run code, so it was not "
        "loaded. Save the state dict alone, as safetensors or with torch.save(model.state_dict(), ...)."
    )


def _explain_failure(path: Path, error: Exception) -> str:
    """Say why a file was not read; what PyTorch stumbles over in one that is none of its own says nothing."""
    if isinstance(error, OSError):
        return first_line(error)
    if path.suffix.lower() == ".safetensors":
        return "it is not safetensors, or damaged"
    if not _was_saved(path):
        return "it is no file of weights, neither safetensors nor written by torch.save"
    return "it is damaged, or was not written to its end"


def _was_saved(path: Path) -> bool:
    """Tell whether a file begins as those of torch.save do: a ZIP archive, or a pickle."""
    with path.open("rb") as file:
        return file.read(2).startswith((b"PK", b"\x80"))


_STATES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"),
    # Averages of the weights over training come last: a model is evaluated with them where there is nothing else.
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema"),
)
"""What training scripts call the state dict in the checkpoints that they save, in the order in which it is taken."""


def _find_state_in(path: Path, content: Any) -> dict[str, Tensor]:
    """Find the state dict in what a file holds: all of it, or what stands under one of the usual names."""
    state = _find_state(content)
    if state is None:
        raise ModelError(
            f"The weights file {path} must hold a state dict, tensors by name, or a dict with one under {_STATES[0]}, "
            f"{_STATES[1]}, {_STATES[2]} or {_STATES[3]}; got {_describe_content(content)}."
        )
    strange = next((name for name, tensor in state.items() if not is_plain(tensor)), None)
    if strange is not None:
        raise ModelError(
            f"The weights file {path} must hold plain tensors; {strange} is {describe_tensor(state[strange])}. Save "
            "the weights of the model as it is trained."
        )
    return state


def _find_state(content: Any, depth: int = 4) -> dict[str, Tensor] | None:
    if _is_state(content):
        return content
    # A dict may even hold itself.
    if not isinstance(content, dict) or depth == 0:
        return None
    named = (_find_state(content.get(name), depth - 1) for name in _STATES)
    others = [value for value in content.values() if _is_state(value)]
    return next((state for state in named if state is not None), others[0] if len(others) == 1 else None)


def _is_state(value: Any) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _describe_content(value: Any) -> str:
    if not isinstance(value, dict):
        return type(value).__name__
    names = [repr(key)[:40] for key in list(value)[:5]]
    more = f" and {len(value) - 5} more" if len(value) > 5 else ""
    return f"a dict with {', '.join(names) or 'nothing in it'}{more}"


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
    state = _strip_prefix(weights, expected.keys())
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
    state = _strip_prefix(weights, expected.keys())
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


def _strip_prefix(weights: Weights, expected: Collection[str]) -> dict[str, Tensor]:
    """Take off what stands before the model's own names, unless the model has it too.

    DataParallel, torch.compile and Lightning put a word before every name. Averages of weights and Lightning have more
    tensors beside the model's, such as a count or a loss's own: where all of the model's stand behind one word, the
    others are left out.
    """
    state = weights.state
    if any(key in expected for key in state):
        return state
    bare = state
    while (prefix := _find_common_word(bare)) and not any(key in expected for key in bare):
        bare = {key.removeprefix(prefix): tensor for key, tensor in bare.items()}
    if any(key in expected for key in bare):
        return bare
    needed = [key for key in expected if not key.endswith("num_batches_tracked")]
    ends = {key.removesuffix(needed[0]) for key in state if key.endswith(f".{needed[0]}")} if needed else set()
    whole = sorted(prefix for prefix in ends if all(prefix + key in state for key in needed))
    chosen = [prefix for prefix in whole if "ema" not in prefix.lower()] or whole
    if len(chosen) > 1:
        raise ModelError(
            f"The weights file {weights.path} holds {len(chosen)} models that fit: {', '.join(chosen[:3])}. "
            "Save the state dict of one alone."
        )
    return {key.removeprefix(chosen[0]): state[key] for key in state if key.startswith(chosen[0])} if chosen else state


def _find_common_word(state: dict[str, Tensor]) -> str:
    """Return what stands before the first point of all names, with the point; '' if they differ in that."""
    words = {key.partition(".")[0] if "." in key else "" for key in state}
    word = words.pop() if len(words) == 1 else ""
    return f"{word}." if word else ""
