"""Pictures and maps inside a study's table: PNG, and maps in one byte a pixel."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.tiles import Line, tiles_figure
from whyfooled.drawing.pictures import Scale, scaled_picture
from whyfooled.drawing.summary import SummaryTable
from whyfooled.images import to_picture
from whyfooled.studies.parts.attacked import FOOLED, Stage
from whyfooled.studies.table import Columns, Table
from whyfooled.types import Image

_LEVELS = 127


def to_png(image: Image) -> bytes:
    """Write an image (c,h,w), values in [0, 1], as PNG."""
    buffer = io.BytesIO()
    to_picture(image).save(buffer, format="png")
    return buffer.getvalue()


def from_png(content: bytes) -> PILImage.Image:
    """Read a picture."""
    return PILImage.open(io.BytesIO(content))


def to_levels(saliency: Image, scale: Scale) -> bytes:
    """Write a map (d,h,w), summed over its channels, in levels of its scale, one byte for each pixel."""
    values = (saliency.sum(0).double() / scale.end).clamp(-1, 1)
    return values.mul(_LEVELS).round().to("cpu", torch.int8).numpy().tobytes()


def from_levels(content: bytes, height: int) -> Tensor:
    """Read (h,w) a map, divided by the end of its scale."""
    return torch.from_numpy(np.frombuffer(content, dtype=np.int8).reshape(height, -1) / _LEVELS)


PICTURE_COLUMNS: Columns = {
    "prediction": "text",
    "probability": "real",
    "l2": "real",
    "linf": "real",
    "picture": "bytes",
}
"""The columns of `make_picture_rows`, beside the attack and its outcome."""
SCALE_COLUMNS: Columns = {"scale": "real", "signed": "flag", "height": "whole"}
"""What `pack_maps` writes beside the maps."""
SHOWN = 3
"""How many images the figure shows: the most telling ones. [ours]"""


def make_picture_rows(classifier: Classifier, stage: Stage) -> Iterator[dict[str, Any]]:
    """Give for each image what the classifier makes of it, and a picture."""
    whole = zip(stage.keys(), stage.images, stage.logits.softmax(1), stage.delta, strict=True)
    for key, image, probabilities, added in whole:
        seen = int(probabilities.argmax())
        yield key | {
            "prediction": classifier.class_name(seen),
            "probability": float(probabilities[seen]),
            "l2": float(added.norm()),
            "linf": float(added.abs().max()),
            "picture": to_png(image),
        }


def pack_maps(maps: Mapping[str, Image], scale: Scale) -> dict[str, Any]:
    """Write maps into the cells of a row, each under the name of its column, and what must be known to read them."""
    height = next(iter(maps.values())).shape[-2]
    cells = {column: to_levels(saliency, scale) for column, saliency in maps.items()}
    return {"scale": scale.end, "signed": scale.signed, "height": height, **cells}


def draw_map(row: Mapping[Any, Any], column: str = "map") -> PILImage.Image:
    """Draw a map that `pack_maps` wrote into a row."""
    return scaled_picture(from_levels(row[column], int(row["height"])), Scale(1.0, bool(row["signed"])))


def choose_most_telling(table: Table, count: int = SHOWN) -> list[int]:
    """Choose images: first by how many attacks succeeded, then by how much the first method's map changed on those."""
    rows = table.read(["index", "attack", "outcome", "method", "moved"])
    first = rows["method"].dropna().iloc[0]
    fooled = rows[(rows["method"] == first) & (rows["outcome"] == FOOLED)]
    ranked = fooled.groupby("index")["moved"].agg(["count", "mean"])
    ranked = ranked.reindex(rows["index"].unique(), fill_value=0.0)
    return [int(index) for index in ranked.sort_values(["count", "mean"], ascending=False, kind="stable").index[:count]]


def tabulate_shown(table: Table, chosen: Sequence[int]) -> SummaryTable:
    """List what the classifier makes of the images that are shown."""
    headings = ("image", "attack", "prediction", "probability", "outcome", "l2", "linf")
    rows = table.read(["index", "method", *headings], [("index", "in", chosen)])
    rows = rows[rows["method"].isna()]
    lines = [line for index in chosen for line in rows.loc[rows["index"] == index, list(headings)].itertuples(False)]
    return SummaryTable("What the classifier makes of the images shown.", headings, lines)


def draw_shown(table: Table, make_lines: Callable[[pd.DataFrame], list[Line]]) -> Figure:
    """Draw the images that are shown: for each, the lines of pictures that are made of its rows."""
    shown = (table.read(where=[("index", "==", index)]) for index in choose_most_telling(table))
    return tiles_figure([(str(rows["image"].iloc[0]), make_lines(rows)) for rows in shown])
