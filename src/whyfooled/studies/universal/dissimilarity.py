"""How far universal perturbations move maps of images they were not fitted to (Ehsani Oskouie & Farnia 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, final

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import count_passes
from whyfooled.errors import MethodError, at_least, bad_parameter
from whyfooled.registry import Card, title
from whyfooled.sources import Source, class_map, mapped
from whyfooled.studies.parts.maps import check_none_works
from whyfooled.studies.parts.right_images import RightImages, right_images
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.studies.universal import dissimilarity_account
from whyfooled.studies.universal.comparison import D
from whyfooled.studies.universal.dissimilarity_account import ALONE, BORROWED
from whyfooled.studies.universal.fits import Fits, Fitted
from whyfooled.studies.universal.study import GRADIENT, Perturbed, UniversalStudy
from whyfooled.tensors.balls import Ball
from whyfooled.types import Classes, Images
from whyfooled.universal import (
    UAP,
    UPIPCA,
    InterpretationAttack,
    RandomDirection,
    UniversalPerturbation,
    UPIGrad,
)
from whyfooled.universal.evaluation import DIRECTIONS, MEASURES, TOP

_LENDERS = 4
"""Of how many fitting images perturbations are found, one by one, and added to the tested images. [ours]"""


@final
@dataclass(frozen=True)
class UniversalDissimilarity(UniversalStudy):
    """Measure what every universal perturbation does to maps and predictions, over radii and saliency methods.

    Each perturbation is compared with a random direction of each image's own, as long as the ball's radius. Images that
    the classifier gets wrong do not count. Perturbations that break maps are fitted to each saliency method anew.

    Parameters
    ----------
    methods
        Ways to find a universal perturbation; their radius and ball are the study's.
    epsilons
        The balls' radii, on the scale of `scale`.
    saliency
        Saliency methods whose maps are to change.
    attack_steps
        Steps of an attack on each image by itself, for what a perturbation that is not universal can reach while the
        prediction stays; 0 for none. It takes longer than all other measurements together. Perturbations of 4 fitting
        images, found in this way, are added to the tested ones too: would any perturbation do?
    share
        Share of the pixels that count as the top ones. [ours]
    fit
        Where the images to fit to come from, as the study's own; half of the study's own, drawn at random, if "". No
        image is both fitted to and tested.
    """

    methods: tuple[Any, ...] = (
        UPIGrad(),
        UPIGrad(penalty=0.1),
        UPIPCA(),
        UPIPCA(contrast=1.0),
        UAP(),
        RandomDirection(),
    )
    epsilons: tuple[float, ...] = (10.0,)
    ball: Ball = "l2"
    scale: int = 1
    saliency: tuple[Any, ...] = (GRADIENT,)
    attack_steps: int = 40
    share: float = TOP
    fit: str = ""
    fit_labels: str = ""
    fit_count: int | None = None
    directions: int = DIRECTIONS

    card: ClassVar[Card] = Card(
        name="universal-dissimilarity",
        title="Universal perturbations of maps",
        summary="How far universal perturbations move the maps of images that they were not fitted to.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, tables 1 and 2",
        cost="the fits; for each image and saliency method a map, for each perturbation and random direction 2 maps "
        "and 2 forwards, and for each of `attack_steps` 2 maps, one of them differentiated, 1 forward and a gradient",
    )
    columns: ClassVar[Columns] = {
        "saliency": "text",
        **UniversalStudy.ball_columns,
        **UniversalStudy.chance_columns,
        "method": "text",
        "clipped": "flag",
        **UniversalStudy.fit_columns,
        "share": "real",
        **dict.fromkeys(MEASURES, "real"),
    }

    def __post_init__(self) -> None:
        self.check_parameters(self.methods, self.epsilons, self.saliency)
        at_least("attack_steps", self.attack_steps, 0)
        if not 0 < self.share <= 1:
            raise bad_parameter("share", "must be above 0 and at most 1", self.share)

    def prepare(self, setting: Setting) -> Prepared:
        """Fit every perturbation."""
        fits = self.begin_fits(setting)
        fitted = {
            (title(saliency), epsilon): [
                *(fits.find(self.sized(method, epsilon), saliency) for method in self.methods),
                *self._attack_lenders(fits, saliency, epsilon),
            ]
            for saliency in self.saliency
            for epsilon in self.epsilons
        }
        return fits.prepared(fitted)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Compute each image's maps with and without every perturbation, and how far they lie apart."""
        right = right_images(classifier, batch)
        rows = list(right.wrong_rows())
        for saliency in self.saliency if right.places else ():
            perturbed = self._perturb(saliency, classifier, right)
            try:
                rows += list(self.measure_changes(saliency, classifier, right, perturbed, MEASURES, self.share))
            except MethodError as error:
                check_none_works(error, saliency, classifier, right.batch.images, right.classes)
                rows += right.rows({"saliency": title(saliency), "error": f"{title(saliency)}: {error}"})
        return Measured(rows)

    def _perturb(self, saliency: Any, classifier: Classifier, right: RightImages) -> Perturbed:
        """Add every perturbation of a saliency method's maps to the images, brought back to [0, 1] and not."""
        shared = {"saliency": title(saliency), "share": self.share}
        for epsilon in self.epsilons:
            fitted = right.batch.prepared[title(saliency), epsilon]
            perturbed = list(self.perturb(right.batch.images, fitted, epsilon, right.batch.seed))
            if self.attack_steps:
                perturbed.append(self._attack_alone(saliency, classifier, right, epsilon))
            for facts, moved in perturbed:
                if moved is None:
                    yield {**shared, **facts}, None
                    continue
                yield {**shared, **facts, "clipped": False}, moved
                yield {**shared, **facts, "clipped": True}, moved.clamp(0, 1)

    def _attack_alone(
        self, saliency: Any, classifier: Classifier, right: RightImages, epsilon: float
    ) -> tuple[Mapping[str, Any], Images | None]:
        """Attack the map of each image by itself; None and the reason if that works on none of them."""
        facts = {**self.ball_facts(epsilon), "method": ALONE}
        attack = self._make_attack(epsilon, right.batch.seed)

        def attacked(classifier: Classifier, images: Images, classes: Classes) -> Images:
            return attack(classifier, images, classes, saliency)

        try:
            return facts, attacked(classifier, right.batch.images, right.classes)
        except MethodError as error:
            check_none_works(error, attacked, classifier, right.batch.images, right.classes)
            return {**facts, "error": f"{ALONE}: {error}"}, None

    def _make_attack(self, epsilon: float, seed: int) -> InterpretationAttack:
        """Make the attack on each image by itself, in a ball of the study."""
        made: InterpretationAttack = self.sized(
            InterpretationAttack(steps=self.attack_steps, seed=seed, clip=False), epsilon
        )
        return made

    def _attack_lenders(self, fits: Fits, saliency: Any, epsilon: float) -> Iterator[Fitted]:
        """Attack the maps of a few fitting images, each by itself, for perturbations that are added to other images."""
        if not self.attack_steps:
            return
        classifier, attack = fits.setting.classifier, self._make_attack(epsilon, fits.setting.seed)
        facts = {"method": BORROWED, "fit": fits.images.origin, "fit_images": 1}
        for image, seen in islice(_list_right(classifier, fits.images.source), _LENDERS):
            with count_passes(classifier) as passes:
                try:
                    moved = attack(classifier, image, seen, saliency)
                except MethodError as error:
                    yield Fitted(None, {**facts, "error": f"{BORROWED}: {error}"})
                    return
            fits.passes.add(passes)
            delta = (moved - image)[0].cpu()
            yield Fitted(UniversalPerturbation(delta, attack.radius, self.ball), facts)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D under the first perturbation."""
        measured = [row for row in rows if D in row and not row["clipped"]]
        return cls.d_like_first(measured, "saliency", "epsilon", "method")

    summarise = staticmethod(dissimilarity_account.summarise)
    draw = staticmethod(dissimilarity_account.draw)


def _list_right(classifier: Classifier, source: Source) -> Iterator[tuple[Images, Classes]]:
    """Give the images of a source that the classifier gets right, one by one, with what it sees in each."""
    classes = class_map(source, classifier)
    for place in range(len(source)):
        sample = source[place]
        image = sample.fitted(classifier.fit, classifier.channels).unsqueeze(0).to(classifier.mean)
        seen = classifier.predict(image)
        if int(seen) in (mapped(sample.labels, classes) or seen.tolist()):
            yield image, seen
