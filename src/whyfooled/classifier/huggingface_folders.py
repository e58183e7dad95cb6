"""Folders that Hugging Face's ``save_pretrained`` wrote: whether a name can be one, and what one lacks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from whyfooled.errors import bad_parameter, first_line

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_name(name: str) -> None:
    """Raise `ParameterError` for what is neither a folder nor OWNER/NAME: nobody need ask the hub for it."""
    if not (name and Path(name).is_dir()) and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        fix = f"Write onnx:{name}." if name.endswith(".onnx") else "There is no such folder."
        raise bad_parameter("model", "must be a folder, or OWNER/NAME on the hub, after hf:", repr(name), fix)


def explain_failure(name: str, error: Exception, transformers: Any) -> str:
    """Say in a sentence why a model was not loaded: what its folder lacks, or what the hub answered.

    Parameters
    ----------
    name
        The folder, or OWNER/NAME.
    error
        What was raised.
    transformers
        The package.
    """
    folder = Path(name)
    if not folder.is_dir():
        return (
            f"hf:{name} cannot be loaded from the hub: {first_line(error)}. Check its name and the network, or give a "
            "folder that save_pretrained wrote: hf:FOLDER."
        )
    config = _read_json(folder / "config.json")
    if isinstance(config, str):
        return f"hf:{name} {config}: give a folder that save_pretrained wrote."
    processor = next((file for file in _PROCESSORS if (folder / file).is_file()), _PROCESSORS[0])
    about = _read_json(folder / processor)
    # Models of timm have it in the other file.
    if isinstance(about, str) and "pretrained_cfg" not in config:
        return (
            f"hf:{name} {about}, which says how photographs are prepared. Save the model's image processor there: "
            "processor.save_pretrained(folder)."
        )
    kind = config.get("model_type")
    auto = getattr(getattr(transformers.models, "auto", None), "modeling_auto", None)
    known = getattr(auto, "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", None)
    if known is not None and kind not in known:
        return f"hf:{name} is a model of the kind {kind!r}, of which transformers has no image classifier."
    weights = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not weights:
        return (
            f"hf:{name} has no weights, such as model.safetensors: save the model there, model.save_pretrained(folder)."
        )
    broken = next((path.name for path in weights if not _can_be_opened(path)), None)
    if broken is not None:
        return f"hf:{name} has damaged weights: {broken} cannot be read. Copy or save it again."
    return f"hf:{name} cannot be loaded by transformers: {first_line(error)}."


def _read_json(path: Path) -> dict[str, Any] | str:
    """Return what a JSON file holds, or what is wrong with it, as what stands behind its folder's name."""
    if not path.is_file():
        return f"has no {path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return f"has a {path.name} that is no JSON"
    return content if isinstance(content, dict) else f"has a {path.name} that is no JSON object"


def _can_be_opened(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="pt") as file:
            return bool(list(file.keys()))
    except (SafetensorError, OSError):
        return False
