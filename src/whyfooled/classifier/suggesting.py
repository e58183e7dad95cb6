"""What a text that names no model may mean: a file or a folder without the word before it, or a mistyped name."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from whyfooled.classifier.extras import import_library
from whyfooled.errors import did_you_mean

_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def suggest_model(model: str, bundled: Sequence[str]) -> str:
    """Say what to write in place of a text that names no model; '' if nothing is near.

    Parameters
    ----------
    model
        The text.
    bundled
        The names that stand alone.
    """
    path, suffix = Path(model), Path(model).suffix.lower()
    if suffix == ".onnx":
        return f"Write onnx:{model}."
    if suffix == ".py":
        return f"Write {model}:NAME, the function or class in it that gives the model{_list_defined(path)}."
    if path.is_dir():
        return f"Write hf:{model}, if it is a folder that save_pretrained wrote."
    if suffix in _WEIGHTS and path.is_file():
        return "That is a file of weights: give it as weights (--weights), and as the model what it was trained with."
    bare = model.rpartition(":")[2]
    torchvision_models = import_library("torchvision.models")
    if bare in torchvision_models.list_models(module=torchvision_models):
        return f"Did you mean torchvision:{bare}?"
    if bare in import_library("timm").list_models():
        return f"Did you mean timm:{bare}?"
    return did_you_mean(model, bundled)


def _list_defined(path: Path) -> str:
    """List the functions and classes of a Python file, which is not run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError):
        return ""
    names = [each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef)]
    return f" (there are {', '.join(names[:8])})" if names else ""
