"""What all studies of universal perturbations do alike: parameters, images to fit to, and what perturbations change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from whyfooled.classifier import Classifier
from whyfooled.errors import ParameterError, at_least, bad_parameter
from whyfooled.saliency import Gradient
from whyfooled.studies.parts.right_images import RightImages
from whyfooled.studies.prepare import Setting
from whyfooled.studies.study import Study, check_entries, check_methods
from whyfooled.studies.table import Columns
from whyfooled.studies.universal.comparison import CHANCE, D_AND_FOOLED, D
from whyfooled.studies.universal.fits import Fits, Fitted, named
from whyfooled.studies.universal.fitting_images import FittingImages, find_fitting_images, look_at
from whyfooled.tensors.balls import Ball
from whyfooled.tensors.randomness import random_directions
from whyfooled.types import Images
from whyfooled.universal import RandomDirection, UniversalMethod, changes
from whyfooled.universal.evaluation import DIRECTIONS, TOP
from whyfooled.universal.maps import interpret

GRADIENT = Gradient()
Perturbed = Iterable[tuple[Mapping[str, Any], Images | None]]
"""For each perturbation, what rows say of it, and the images with it; None if there is none."""


class UniversalStudy(Study):
    """A study of universal perturbations: of one ball, and fitted to images that are not measured.

    A dataclass that derives from it declares the fields ``ball``, ``scale``, ``fit`` and ``fit_labels``,
    ``fit_count`` if not all images are to be fitted to, and ``directions`` if it compares with chance.

    Parameters
    ----------
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
    directions
        How many random directions tell what chance does.
    """

    ball: Ball
    scale: int
    fit: str
    fit_labels: str
    fit_count: int | None = None
    directions: int = DIRECTIONS

    headline: ClassVar[str] = "D"
    ball_columns: ClassVar[Columns] = {"ball": "text", "scale": "whole", "epsilon": "real"}
    chance_columns: ClassVar[Columns] = {"direction": "whole"}
    fit_columns: ClassVar[Columns] = {"outcome": "text", "fit": "text", "fit_images": "whole"}

    def check_parameters(self, methods: Sequence[Any], epsilons: Sequence[float], saliency: Sequence[Any]) -> None:
        """Raise `ParameterError` unless perturbations can be fitted with these parameters, and told apart."""
        _check_universal(methods)
        _check_epsilons(epsilons, self.ball, self.scale)
        check_methods(saliency, "saliency")
        if self.fit_count is not None:
            at_least("fit_count", self.fit_count, 1)
        # Of one direction it is not known how far others lie from it.
        at_least("directions", self.directions, 2)
        if self.fit_labels and not self.fit:
            rule, fix = "are for fitting images of their own", "Give them with fit=PLACE."
            raise bad_parameter("fit_labels", rule, self.fit_labels, fix)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which images are fitted to."""
        return {"fit_images_digest": self.fitting_images(setting).source.digest()}

    def fitting_images(self, setting: Setting) -> FittingImages:
        """Find the images to fit to; nothing is read."""
        return find_fitting_images(setting, self.fit, self.fit_labels, self.fit_count)

    def begin_fits(self, setting: Setting) -> Fits:
        """Look at the images to fit to."""
        return Fits(setting, look_at(self.fitting_images(setting), setting))

    def sized(self, method: Any, epsilon: float, **more: Any) -> Any:
        """Return a way to find a perturbation with the study's ball, of a radius."""
        return replace(method, epsilon=epsilon, ball=self.ball, scale=self.scale, **more)

    def ball_facts(self, epsilon: float) -> dict[str, Any]:
        """Return what `ball_columns` say of a row."""
        return {"ball": self.ball, "scale": self.scale, "epsilon": epsilon}

    def perturb(self, images: Images, fitted: Iterable[Fitted], epsilon: float, seed: int) -> Perturbed:
        """Add every perturbation to images and, last, each of the study's random directions."""
        shared = self.ball_facts(epsilon)
        for perturbation in fitted:
            yield {**shared, **perturbation.facts}, perturbation.applied_to(images)
        ball = RandomDirection(epsilon=epsilon, ball=self.ball, scale=self.scale)
        for number, direction in enumerate(random_directions(images.shape[1:], self.directions, seed)):
            delta = ball.largest(direction).to(images)
            yield {**shared, "method": CHANCE, "direction": number}, images + delta

    @staticmethod
    def measure_changes(
        saliency: Any,
        classifier: Classifier,
        right: RightImages,
        perturbed: Perturbed,
        measures: Iterable[str] = D_AND_FOOLED,
        share: float = TOP,
    ) -> Iterator[dict[str, Any]]:
        """Measure how far maps and predictions of images change; of a perturbation that is not there, only say so."""
        if not right.places:
            return
        images, classes = right.batch.images, right.classes
        clean = interpret(saliency, classifier, images, classes)
        for facts, moved in perturbed:
            measured = {}
            if moved is not None:
                measured = changes(saliency, classifier, images, classes, moved, clean=clean, share=share)
            yield from right.rows({**facts, **{name: measured[name] for name in measures if name in measured}})

    @staticmethod
    def d_like_first(rows: Sequence[Mapping[str, Any]], *columns: str) -> list[float]:
        """Take D of the rows that have the first one's entries in some columns."""
        return [row[D] for row in rows if all(row[column] == rows[0][column] for column in columns)]


def _check_universal(methods: Sequence[Any]) -> None:
    check_entries("methods", methods)
    for method in methods:
        if not isinstance(method, UniversalMethod):
            raise bad_parameter("methods", "must be universal perturbations, such as UPIGrad()", repr(method))
    names = [named(method) for method in methods]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"`methods` must have different names; {twice} is there twice.")


def _check_epsilons(epsilons: Sequence[float], ball: Ball, scale: int) -> None:
    check_entries("epsilons", epsilons)
    if len(set(epsilons)) < len(epsilons):
        raise ParameterError(f"`epsilons` must be there once each; got {list(epsilons)}.")
    for epsilon in epsilons:
        RandomDirection(epsilon=epsilon, ball=ball, scale=scale)
