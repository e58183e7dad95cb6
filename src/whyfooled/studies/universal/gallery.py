"""What universal perturbations look like, and what maps look like under them (Ehsani Oskouie & Farnia 2022, fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch

from whyfooled.classifier import Classifier
from whyfooled.drawing.pictures import magnification, scale_of
from whyfooled.registry import Card, title
from whyfooled.studies.parts.attacked import CLEAN
from whyfooled.studies.parts.pictures import to_levels, to_png
from whyfooled.studies.parts.right_images import right_images
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.studies.universal import gallery_account
from whyfooled.studies.universal.comparison import D
from whyfooled.studies.universal.fits import Fitted
from whyfooled.studies.universal.study import GRADIENT, UniversalStudy
from whyfooled.tensors.balls import Ball
from whyfooled.types import Images
from whyfooled.universal import UPIPCA, RandomDirection, UPIGrad
from whyfooled.universal.dissimilarity import distance
from whyfooled.universal.maps import interpret


@final
@dataclass(frozen=True)
class UniversalGallery(UniversalStudy):
    """Show universal perturbations, magnified, and images and their normalised maps with and without them.

    All maps of one image have one colour scale. The images shown are typical ones: those whose D under the first method
    is nearest to its quartiles. Every image's pictures are in the table, so give a small count.

    Parameters
    ----------
    methods
        Ways to find a universal perturbation; their radius and ball are the study's.
    saliency
        The saliency method whose maps are shown.
    """

    methods: tuple[Any, ...] = (UPIGrad(), UPIPCA(), RandomDirection())
    saliency: Any = GRADIENT
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
        **UniversalStudy.ball_columns,
        "method": "text",
        **UniversalStudy.fit_columns,
        D: "real",
        "prediction": "text",
        "probability": "real",
        "picture": "bytes",
        "delta": "bytes",
        "magnified": "real",
        "height": "whole",
        "map": "bytes",
    }

    def __post_init__(self) -> None:
        self.check_parameters(self.methods, (self.epsilon,), (self.saliency,))

    def prepare(self, setting: Setting) -> Prepared:
        """Fit every perturbation, and take its picture."""
        fits = self.begin_fits(setting)
        fitted = [fits.find(self.sized(method, self.epsilon), self.saliency) for method in self.methods]
        return fits.prepared([_with_picture(perturbation) for perturbation in fitted])

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Take the pictures of each image with every perturbation."""
        right = right_images(classifier, batch)
        rows = list(right.wrong_rows())
        if not right.places:
            return Measured(rows)
        views: list[tuple[Mapping[str, Any], Images]] = [({"method": CLEAN}, right.batch.images)]
        for perturbation in batch.prepared:
            moved = perturbation.applied_to(right.batch.images)
            if moved is None:
                rows += right.rows({name: perturbation.facts[name] for name in ("method", "error")})
            else:
                views.append((perturbation.facts, moved))
        maps = [interpret(self.saliency, classifier, images, right.classes) for _, images in views]
        scales = [scale_of(of_image.unsqueeze(1)) for of_image in torch.stack(maps, dim=1)]
        shared = {"saliency": title(self.saliency), **self.ball_facts(self.epsilon)}
        for (about, images), of_view in zip(views, maps, strict=True):
            facts = {
                D: distance(maps[0], of_view),
                "height": of_view.shape[1],
                "map": [to_levels(one[None], scale) for one, scale in zip(of_view, scales, strict=True)],
                **_what_is_seen(classifier, images),
            }
            rows += right.rows({**shared, **about, **facts})
        return Measured(rows)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D under the first perturbation."""
        return cls.d_like_first([row for row in rows if row.get("method") not in (None, CLEAN)], "method")

    summarise = staticmethod(gallery_account.summarise)
    draw = staticmethod(gallery_account.draw)


def _with_picture(fitted: Fitted) -> Fitted:
    """Let the rows of a perturbation show it, magnified around grey."""
    if fitted.perturbation is None:
        return fitted
    delta = fitted.perturbation.delta
    factor = magnification(delta)
    picture = to_png((0.5 + factor * delta).clamp(0, 1))
    return replace(fitted, facts={**fitted.facts, "delta": picture, "magnified": factor})


def _what_is_seen(classifier: Classifier, images: Images) -> dict[str, list[Any]]:
    """Tell what the classifier makes of images, and take their pictures."""
    best = classifier.logits(images).softmax(1).max(1)
    return {
        "prediction": [classifier.class_name(seen) for seen in best.indices.tolist()],
        "probability": best.values.tolist(),
        "picture": [to_png(image.clamp(0, 1)) for image in images],
    }
