"""What universal perturbations look like, and what maps look like under them (Ehsani Oskouie & Farnia 2022, fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image as PILImage

from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.curves import Line, tiles_figure
from whyfooled.drawing.pictures import Scale, magnification, scale_of, scaled_picture
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.registry import Card, title
from whyfooled.saliency import Gradient
from whyfooled.studies.parts.over_images import check_some_method
from whyfooled.studies.parts.pictures import from_levels, from_png, to_levels, to_png
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.studies.universal.fits import (
    TESTED,
    Fits,
    Fitted,
    ball_text,
    check_fit,
    check_universal,
    fitting_images,
    looked_at,
    tested,
    who_was_tested,
)
from whyfooled.tensors.balls import Ball
from whyfooled.types import Images
from whyfooled.universal import UPIPCA, RandomDirection, UPIGrad
from whyfooled.universal.dissimilarity import distance
from whyfooled.universal.maps import interpret

CLEAN = "clean"
SHOWN = 3
"""How many images the figure shows: typical ones, at the quartiles of D. [ours]"""
_SALIENCY = Gradient()


@final
@dataclass(frozen=True)
class UniversalGallery(Study):
    """Show universal perturbations, magnified, and images and their normalised maps with and without them.

    All maps of one image have one colour scale. The images shown are typical ones: those whose D under the first method
    is nearest to its quartiles. Every image's pictures are in the table, so give a small count.

    Parameters
    ----------
    methods
        Ways to find a universal perturbation; their radius and ball are the study's.
    saliency
        The saliency method whose maps are shown.
    epsilon
        The ball's radius, on the scale of `scale`.
    ball
        ``"l2"`` or ``"linf"``.
    scale
        The value of white: 1 for pixel values from 0 to 1, or 255.
    fit
        Where the images to fit to come from, as the study's own; half of the study's own, drawn at random, if "".
    fit_labels
        A CSV file with the labels of the images to fit to, if they are photographs; the study's own file if "".
    fit_count
        How many images to fit to, drawn at random; all if None.
    """

    methods: tuple[Any, ...] = (UPIGrad(), UPIPCA(), RandomDirection())
    saliency: Any = _SALIENCY
    epsilon: float = 10.0
    ball: Ball = "l2"
    scale: int = 1
    fit: str = ""
    fit_labels: str = ""
    fit_count: int | None = None

    card: ClassVar[Card] = Card(
        name="universal-gallery",
        title="Universal perturbations and the maps under them",
        summary="Pictures: universal perturbations, images with them, and their maps before and after.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, fig. 1 and 2",
        cost="the fits; for each image a map and a forward, and for each method again",
    )
    columns: ClassVar[Columns] = {
        "saliency": "text",
        "ball": "text",
        "scale": "whole",
        "epsilon": "real",
        "method": "text",
        "outcome": "text",
        "fit": "text",
        "fit_images": "whole",
        "dissimilarity": "real",
        "prediction": "text",
        "probability": "real",
        "picture": "bytes",
        "delta": "bytes",
        "magnified": "real",
        "height": "whole",
        "map": "bytes",
    }
    headline: ClassVar[str] = "D"

    def __post_init__(self) -> None:
        check_universal(self.methods, (self.epsilon,), self.ball, self.scale)
        check_methods((self.saliency,), "saliency")
        check_fit(self.fit, self.fit_labels, self.fit_count)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which images are fitted to."""
        images = fitting_images(setting, self.fit, self.fit_labels, self.fit_count)
        return {"fit_images_digest": images.source.digest()}

    def prepare(self, setting: Setting) -> Prepared:
        """Fit every perturbation."""
        images = looked_at(fitting_images(setting, self.fit, self.fit_labels, self.fit_count), setting)
        fits = Fits(setting)
        sized = [replace(method, epsilon=self.epsilon, ball=self.ball, scale=self.scale) for method in self.methods]
        found = [_shown(fits.find(method, self.saliency, images), images.origin) for method in sized]
        return Prepared(images.tested, found, fits.passes, images.notes)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Take the pictures of each image with every perturbation."""
        some = tested(classifier, batch)
        rows: list[dict[str, Any]] = list(some.wrong())
        if not some.places:
            return Measured(rows)
        sets: list[tuple[dict[str, Any], Images]] = [({"method": CLEAN}, some.images)]
        for one in batch.prepared:
            if one.fitted.perturbation is None:
                rows += some.rows({"method": one.fitted.method, "error": one.fitted.error})
            else:
                sets.append((one.about(), one.fitted.applied_to(some.images)))
        maps = [interpret(self.saliency, classifier, images, some.classes) for _, images in sets]
        scales = [scale_of(own.unsqueeze(1)) for own in torch.stack(maps, dim=1)]
        shared = {"saliency": title(self.saliency), "ball": self.ball, "scale": self.scale, "epsilon": self.epsilon}
        for (about, images), found in zip(sets, maps, strict=True):
            facts = {
                "dissimilarity": distance(maps[0], found),
                "height": found.shape[1],
                "map": [to_levels(own[None], scale) for own, scale in zip(found, scales, strict=True)],
                **_seen(classifier, images),
            }
            rows += some.rows({**shared, **about, **facts})
        return Measured(rows)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D under the first perturbation."""
        measured = [row for row in rows if row.get("method") not in (None, CLEAN)]
        return [row["dissimilarity"] for row in measured if row["method"] == measured[0]["method"]]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """List D and what the classifier makes of the images that are shown."""
        rows = table.read(["index", "outcome", "fit", "fit_images", "method", "saliency", "ball", "scale", "epsilon"])
        who = who_was_tested(rows, table.images)
        check_some_method(table, [CLEAN])
        chosen = typical(table, SHOWN)
        first = rows[rows["method"].notna()].iloc[0]
        what = (
            f"Shown are {len(chosen)} typical images: those whose D under the first perturbation is nearest to its "
            f"quartiles. Maps are those of {first['saliency']}, normalised, of the class that the image shows. Epsilon "
            f"is {first['epsilon']:g}, the {ball_text(str(first['ball']), int(first['scale']))}."
        )
        shown = table.read(["index", "image", "method", *_FACTS], [("index", "in", chosen)])
        lines: list[tuple[Cell, ...]] = [
            (row["image"], row["method"], *(row[name] for name in _FACTS))
            for index in chosen
            for row in shown[shown["index"] == index].to_dict("records")
        ]
        caption = "D, and what the classifier makes of the images shown."
        columns = ("image", "perturbation", "D", "prediction", "probability")
        return Summary((who, what), (SummaryTable(caption, columns, lines),))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw the perturbations; below, for each image, a row of images and one of maps, a column for each."""
        blocks: list[tuple[str, list[Line]]] = []
        for index in typical(table, SHOWN):
            rows = table.read(where=[("index", "==", index)])
            if not blocks:
                blocks.append(("Perturbations, magnified around grey", [_perturbations(rows)]))
            blocks.append((str(rows["image"].iloc[0]), _pictures(rows)))
        return tiles_figure(blocks)


_FACTS = ("dissimilarity", "prediction", "probability")


def typical(table: Table, count: int) -> list[int]:
    """Choose images whose D under the first method is nearest to evenly spread quantiles, smallest first.

    If every map is empty, so that there is no D, they are spread evenly over all images.
    """
    rows = table.read(["index", "method", "dissimilarity", "outcome"])
    rows = rows[(rows["outcome"] == TESTED) & (rows["method"] != CLEAN)]
    known = rows[rows["dissimilarity"].notna()]
    rows = rows if known.empty else known
    first = rows[rows["method"] == rows["method"].iloc[0]].sort_values("dissimilarity", kind="stable")
    places = {(number + 1) * len(first) // (count + 1) for number in range(count)}
    return [int(index) for index in first["index"].iloc[sorted(places)]]


@final
@dataclass(frozen=True, eq=False)
class _Shown:
    """A perturbation with its picture."""

    fitted: Fitted
    origin: str
    picture: bytes
    magnified: float

    def about(self) -> dict[str, Any]:
        return {
            "method": self.fitted.method,
            "fit": self.origin,
            "fit_images": self.fitted.used,
            "delta": self.picture,
            "magnified": self.magnified,
        }


def _shown(fitted: Fitted, origin: str) -> _Shown:
    if fitted.perturbation is None:
        return _Shown(fitted, origin, b"", 1.0)
    delta = fitted.perturbation.delta
    factor = magnification(delta)
    return _Shown(fitted, origin, to_png((0.5 + factor * delta).clamp(0, 1)), factor)


def _seen(classifier: Classifier, images: Images) -> dict[str, list[Any]]:
    """Tell what the classifier makes of images, and take their pictures."""
    best = classifier.logits(images).softmax(1).max(1)
    return {
        "prediction": [classifier.class_name(one) for one in best.indices.tolist()],
        "probability": best.values.tolist(),
        "picture": [to_png(image.clamp(0, 1)) for image in images],
    }


def _perturbations(rows: pd.DataFrame) -> Line:
    tiles = [
        (f"{row['method']}, ×{row['magnified']:g}", from_png(row["delta"]))
        for row in rows[rows["method"] != CLEAN].to_dict("records")
    ]
    # Nothing above the clean images.
    return Line("", [("", PILImage.new("RGB", tiles[0][1].size, "white")), *tiles])


def _pictures(rows: pd.DataFrame) -> list[Line]:
    """Turn what is known of one image into a line of images and one of maps."""
    own = rows.to_dict("records")
    images = [(_heading(row), from_png(row["picture"])) for row in own]
    return [Line("image", images), Line("map", [("", _map(row)) for row in own])]


def _heading(row: Mapping[Any, Any]) -> str:
    seen = f"{row['prediction']} {row['probability']:.0%}"
    if row["method"] == CLEAN:
        return f"clean: {seen}"
    return seen if isnan(row["dissimilarity"]) else f"D {row['dissimilarity']:.2f}, {seen}"


def _map(row: Mapping[Any, Any]) -> PILImage.Image:
    return scaled_picture(from_levels(row["map"], int(row["height"])), Scale(1.0, signed=False))
