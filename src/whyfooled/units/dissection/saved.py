"""A dissection on disk: the two files that `load_dissection` reads back exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from whyfooled.classifier.axes import CHANNELS_FIRST, Axes
from whyfooled.classifier.layers import Layer
from whyfooled.classifier.passes import Passes
from whyfooled.drawing.summary import Summary
from whyfooled.errors import ImageError
from whyfooled.images import is_file
from whyfooled.images.seals import digest_content
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    encode_record,
    is_count,
    is_number,
    is_record,
    is_text,
    list_of,
    maybe,
    parts_of,
    read_record,
    record_of,
)
from whyfooled.units.dissection.results import DissectedLayer, DissectionRecord

Saved = TypeVar("Saved", bound=DissectionRecord)

DISSECTION_FILE, TENSORS_FILE = "dissection.json", "tensors.safetensors"

_LAYER = {
    "name": is_text,
    "kind": is_text,
    "shape": list_of(is_count),
    "positions": is_count,
    "axes": maybe(record_of(lambda value: is_count(value) or isinstance(value, list))),
}
_KIND = FileKind(
    "dissection",
    2,
    "whyfooled dissect",
    {
        **dict.fromkeys(("tensors_digest", "model_digest"), is_text),
        **dict.fromkeys(("concepts", "categories", "images", "notes"), list_of(is_text)),
        "category_of": list_of(is_count),
        "cutoff": is_number,
        "channels": maybe(is_count),
        "parameters": is_record,
        "seconds": record_of(is_number),
        "passes": record_of(is_count),
        "layers": list_of(parts_of(_LAYER)),
    },
)
_TENSORS = (
    "threshold",
    "above",
    "dead",
    "mean",
    "std",
    "both",
    "union",
    "active_images",
    "most",
    "null_iou",
    "top_images",
    "top_values",
    "top_maps",
)


def write_dissection(dissection: DissectionRecord, summary: Summary, folder: Path) -> None:
    """Write ``tensors.safetensors`` and ``dissection.json`` into a folder that exists."""
    tensors = {"area": dissection.area}
    for dissected in dissection.layers:
        tensors |= {f"{dissected.layer.name}/{name}": getattr(dissected, name) for name in _TENSORS}
    # Cloned: tensors that share their storage are refused by the format. In their own precision, to come back exactly.
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    (folder / TENSORS_FILE).write_bytes(content)
    about = {
        "tensors_digest": digest_content(content),
        "model_digest": dissection.model_digest,
        "cutoff": dissection.cutoff,
        "channels": dissection.channels,
        "parameters": dissection.parameters,
        "notes": list(dissection.notes),
        "seconds": dissection.seconds,
        "passes": {"forwards": dissection.passes.forwards, "backwards": dissection.passes.backwards},
        "findings": list(summary.sentences),
        "results": summary.plain(),
        "layers": [_describe_layer(one, dissection.cutoff) for one in dissection.layers],
        "concepts": list(dissection.concepts),
        "category_of": list(dissection.category_of),
        "categories": list(dissection.categories),
        "images": list(dissection.images),
    }
    (folder / DISSECTION_FILE).write_bytes(encode_record(_KIND, about))


def _describe_layer(dissected: DissectedLayer, cutoff: float) -> dict[str, Any]:
    return {
        "name": dissected.layer.name,
        "kind": dissected.layer.kind,
        "shape": list(dissected.layer.shape),
        **({} if dissected.layer.axes == CHANNELS_FIRST else {"axes": asdict(dissected.layer.known_axes)}),
        "positions": dissected.positions,
        "units": dissected.layer.units,
        "dead": int(dissected.dead.sum()),
        "detectors": int(dissected.detectors(cutoff).sum()),
    }


def read_dissection(folder: str | Path, kind: type[Saved]) -> Saved:
    """Read what `write_dissection` wrote, as an object of the given kind."""
    folder = Path(folder)
    about = _read_about(folder)
    try:
        dissection = kind(**_collect_fields(about, _read_tensors(folder / TENSORS_FILE, about["tensors_digest"])))
        _check(dissection)
        return dissection
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, IndexError):
        raise ImageError(
            f"The dissection in {folder} is damaged or unfinished: {TENSORS_FILE} is missing, or is not the one that "
            f"{DISSECTION_FILE} was written with. Make it again: whyfooled dissect."
        ) from None


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / DISSECTION_FILE
    if not is_file(path):
        if is_file(folder):
            raise ImageError(
                f"{folder} is a file. Give the folder that `whyfooled dissect` wrote{_name_folder(folder)}."
            )
        raise ImageError(f"{folder} holds no dissection: it has no {DISSECTION_FILE}. Make one: whyfooled dissect.")
    try:
        return read_record(path, _KIND)
    except (OSError, DamagedError):
        # Other programs write JSON too.
        raise ImageError(f"{path} is not a file of `whyfooled dissect`, or is damaged.") from None


def _name_folder(path: Path) -> str:
    """Name the dissection's folder that a file is in, if it is in one."""
    return next((f": {folder}" for folder in path.parents if is_file(folder / DISSECTION_FILE)), "")


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    content = path.read_bytes()
    if digest_content(content) != digest:
        raise ValueError
    return load(content)


def _check(dissection: DissectionRecord) -> None:
    """Raise `ValueError` if names and numbers do not go together, as after a change by hand."""
    concepts, categories = len(dissection.concepts), len(dissection.categories)
    shapes = [dissection.area.shape, *(one.both.shape[1:] for one in dissection.layers)]
    units = [(one.layer.units, len(one.both), len(one.threshold)) for one in dissection.layers]
    if (
        not dissection.layers
        or any(shape != (concepts,) for shape in shapes)
        or any(len(set(counts)) > 1 for counts in units)
        or len(dissection.category_of) != concepts
        or not set(dissection.category_of) <= set(range(categories))
        or any(int(one.top_images.max()) >= len(dissection.images) for one in dissection.layers)
    ):
        raise ValueError


def _collect_fields(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "layers": tuple(
            DissectedLayer(
                layer=Layer(layer["name"], layer["kind"], tuple(layer["shape"]), _read_axes(layer.get("axes", {}))),
                positions=layer["positions"],
                **{name: tensors[f"{layer['name']}/{name}"] for name in _TENSORS},
            )
            for layer in about["layers"]
        ),
        "area": tensors["area"],
        "passes": Passes(**about["passes"]),
        **{name: tuple(about[name]) for name in ("concepts", "category_of", "categories", "images", "notes")},
        **{name: about[name] for name in ("cutoff", "model_digest", "parameters", "seconds", "channels")},
    }


def _read_axes(written: Mapping[str, Any]) -> Axes:
    """Read which axes of a layer's output are which; where nothing is written, channels come first."""
    return Axes(**{name: _as_tuples(value) for name, value in written.items()})


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
