"""How many images it takes to find a universal perturbation (Ehsani Oskouie & Farnia 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, final

from whyfooled.classifier import Classifier
from whyfooled.errors import ImageError, at_least
from whyfooled.registry import Card
from whyfooled.studies.parts.right_images import right_images
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, check_entries
from whyfooled.studies.table import Columns
from whyfooled.studies.universal import fit_size_account
from whyfooled.studies.universal.comparison import D_AND_FOOLED
from whyfooled.studies.universal.study import GRADIENT, UniversalStudy
from whyfooled.tensors.balls import Ball
from whyfooled.universal import UPIPCA, UPIGrad
from whyfooled.universal.evaluation import DIRECTIONS


@final
@dataclass(frozen=True)
class FitSize(UniversalStudy):
    """Measure how far the maps of test images move, over the number of images that perturbations are fitted to.

    For each size and repeat, so many images are drawn at random; in one repeat, a smaller draw is part of a larger one.
    A repeat changes the draw and the method's own seed.

    Parameters
    ----------
    methods
        Ways to find a universal perturbation; their radius and ball are the study's.
    sizes
        Numbers of images to fit to, before those that the classifier gets wrong are left out.
    repeats
        How many times images are drawn for each size.
    saliency
        The saliency method whose maps are to change.
    """

    methods: tuple[Any, ...] = (UPIGrad(), UPIPCA())
    sizes: tuple[int, ...] = (8, 32, 128, 512)
    repeats: int = 3
    saliency: Any = GRADIENT
    epsilon: float = 10.0
    ball: Ball = "l2"
    scale: int = 1
    fit: str = ""
    fit_labels: str = ""
    directions: int = DIRECTIONS

    card: ClassVar[Card] = Card(
        name="fit-size",
        title="How many images a universal perturbation takes",
        summary="How far maps of test images move, over the number of images that perturbations are fitted to.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, sec. 5",
        cost="a fit for each method, size and repeat; for each image a map, and for each fit and random "
        "direction 1 map and 1 forward",
    )
    columns: ClassVar[Columns] = {
        **UniversalStudy.ball_columns,
        **UniversalStudy.chance_columns,
        "method": "text",
        "size": "whole",
        "repeat": "whole",
        **UniversalStudy.fit_columns,
        **dict.fromkeys(D_AND_FOOLED, "real"),
    }

    def __post_init__(self) -> None:
        self.check_parameters(self.methods, (self.epsilon,), (self.saliency,))
        at_least("repeats", self.repeats, 1)
        check_entries("sizes", self.sizes, once=True)
        at_least("sizes", min(self.sizes), 1)

    def prepare(self, setting: Setting) -> Prepared:
        """Fit every method to every number of images."""
        fits = self.begin_fits(setting)
        there = len(fits.images.source)
        sizes = [size for size in sorted(self.sizes) if size <= there]
        missing = [str(size) for size in sorted(self.sizes) if size > there]
        if not sizes:
            fix = "Give more images, or smaller sizes."
            raise ImageError(f"There are {there} images to fit to, fewer than the {missing[0]} asked for. {fix}")
        fitted = []
        for size, repeat in product(sizes, range(self.repeats)):
            drawn = fits.images.drawn(size, setting.seed + repeat)
            for method in self.methods:
                seeded = self.sized(method, self.epsilon, seed=method.seed + repeat)
                fitted.append(fits.find(seeded, self.saliency, images=drawn, size=size, repeat=repeat))
        notes = [f"Left out: {', '.join(missing)} images to fit to; there are {there}."] if missing else []
        return fits.prepared(fitted, *notes)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Measure how far each image's map moves under every perturbation."""
        right = right_images(classifier, batch)
        perturbed = self.perturb(right.batch.images, batch.prepared, self.epsilon, batch.seed)
        return Measured([*right.wrong_rows(), *self.measure_changes(self.saliency, classifier, right, perturbed)])

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D under the first method, fitted to the most images."""
        measured = [row for row in rows if "size" in row]
        most = max((row["size"] for row in measured), default=0)
        return cls.d_like_first([row for row in measured if row["size"] == most], "method")

    summarise = staticmethod(fit_size_account.summarise)
    draw = staticmethod(fit_size_account.draw)
