"""Pictures and maps inside a study's table: PNG, and maps in one byte a pixel."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.pictures import Scale
from whyfooled.drawing.summary import Cell, SummaryTable
from whyfooled.errors import at_least
from whyfooled.images import to_picture
from whyfooled.studies.parts.attacked import FOOLED
from whyfooled.studies.table import Columns, Table
from whyfooled.types import Image, Images, Logits

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
"""The columns of `picture_rows`."""


def picture_rows(classifier: Classifier, images: Images, logits: Logits, delta: Images) -> Iterator[dict[str, Any]]:
    """Give for each image, with its logits and what was added to it, what the classifier makes of it, and a picture."""
    for image, probabilities, added in zip(images, logits.softmax(1), delta, strict=True):
        seen = int(probabilities.argmax())
        yield {
            "prediction": classifier.class_name(seen),
            "probability": float(probabilities[seen]),
            "l2": float(added.norm()),
            "linf": float(added.abs().max()),
            "picture": to_png(image),
        }


CLEAN = "clean"
SHOWN = 3
"""How many images the figure shows: the most telling ones. [ours]"""


def shown_table(rows: pd.DataFrame, chosen: Sequence[int]) -> SummaryTable:
    """List what the classifier makes of the images that are shown, from the rows of their pictures."""
    headings = ("image", "attack", "prediction", "probability", "outcome", "l2", "linf")
    lines: list[tuple[Cell, ...]] = [
        tuple(row[heading] for heading in headings)
        for index in chosen
        for row in rows[rows["index"] == index].to_dict("records")
    ]
    return SummaryTable("What the classifier makes of the images shown.", headings, lines)


def most_telling(table: Table, count: int) -> list[int]:
    """Choose images: first by how many attacks succeeded, then by how far the first method's map moved on those."""
    at_least("count", count, 1)
    rows = table.read(["index", "attack", "outcome", "method", "moved"])
    first = rows["method"].dropna().iloc[0]
    fooled = rows[(rows["method"] == first) & (rows["outcome"] == FOOLED)]
    ranked = fooled.groupby("index")["moved"].agg(["count", "mean"])
    ranked = ranked.reindex(rows["index"].unique(), fill_value=0.0)
    return [int(index) for index in ranked.sort_values(["count", "mean"], ascending=False, kind="stable").index[:count]]
