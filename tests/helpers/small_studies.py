"""Small worlds in which studies run in no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from whyfooled.errors import ImageError
from whyfooled.registry import Card
from whyfooled.studies import Measured, Study, Summary, SummaryTable


def write_images(path, count=10, side=16, seed=0, labels=None):
    """Write random 8-bit images into an .npz file, and return how `open_source` is told of it."""
    pixels = np.random.default_rng(seed).integers(0, 255, (count, side, side, 3), dtype=np.uint8)
    arrays = {"images": pixels} if labels is None else {"images": pixels, "labels": np.asarray(labels)}
    np.savez(path, **arrays)
    return str(path)


@dataclass(frozen=True)
class Brightness(Study):
    """The mean of an image; one that is too bright fails.

    Parameters
    ----------
    limit
        How bright an image may be.
    """

    limit: float = 1.0

    card: ClassVar[Card] = Card("brightness", "Brightness", "How bright images are.", "nobody", "1 forward")
    columns: ClassVar = {"brightness": "real", "logit": "real"}
    headline: ClassVar[str] = "brightness"

    def measure(self, classifier: Any, batch: Any) -> Measured:
        means = batch.images.mean((1, 2, 3))
        if (means > self.limit).any():
            raise ImageError("It is too bright.")
        logits = classifier.logits(batch.images)[:, 0]
        rows = [
            {"place": place, "brightness": float(mean), "logit": float(logit)}
            for place, (mean, logit) in enumerate(zip(means, logits, strict=True))
        ]
        return Measured(rows, {"bright": batch.images})

    @classmethod
    def headline_values(cls, rows: Any) -> Any:
        return [row["brightness"] for row in rows]

    @classmethod
    def summarise(cls, table: Any, seed: int) -> Summary:
        mean = float(table.read(["brightness"])["brightness"].mean())
        return Summary(("It is bright.",), (SummaryTable("Brightness.", ("what", "mean"), [("all", mean)]),))

    @classmethod
    def draw(cls, table: Any, seed: int) -> Figure:
        figure = Figure()
        figure.subplots().hist(table.read(["brightness"])["brightness"])
        return figure
