"""Whether detectors tell attacked images from clean and noisy ones, and what is left when they are attacked too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import BIM, FGSM, FMN, PGD, AttackResult, CarliniWagner, run_attack
from whyfooled.classifier import Classifier, Untargeted
from whyfooled.defences import (
    BitDepth,
    EvadableDetector,
    Evading,
    GradCAMShift,
    LargestSoftmax,
    Mahalanobis,
    MedianFilter,
    TwoSidedMargin,
    UnderNoise,
)
from whyfooled.defences.calibration import find_p_values, fit_to_some
from whyfooled.defences.detector import Detector, check_detectors
from whyfooled.errors import WhyfooledError, at_least
from whyfooled.registry import Card, title
from whyfooled.studies.defences import detectors_account
from whyfooled.studies.defences.detectors_account import EVADING
from whyfooled.studies.parts.attacked import CLEAN, FOOLED, outcomes_of, run_or_load_attacks
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.held_out import check_share, over_batches, split
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.tensors.balls import check_epsilon, measure
from whyfooled.tensors.randomness import add_noise
from whyfooled.types import Images, PerImage


@final
@dataclass(frozen=True, eq=False)
class Learned:
    """A detector and what it learned from clean images.

    Parameters
    ----------
    name
        What it is called in the table.
    detector
        The detector, fitted if it had to be.
    clean_scores
        (m,) The scores of clean images that it was not fitted to, in rising order.
    """

    name: str
    detector: Detector
    clean_scores: Tensor

    def keys(self, attack: str) -> dict[str, Any]:
        """Return what its rows of an attack have in common."""
        return {"attack": attack, "detector": self.name, "known": len(self.clean_scores)}


@final
@dataclass(frozen=True)
class DetectorsUnderAttack(AttackedStudy):
    """Score clean images, attacked ones and noisy ones by each detector; then attack each detector by who knows it.

    Detectors learn from some of the images, whose clean scores give the p-values, and are tested on the others. A noisy
    image has as much noise in ℓ2 as the attack changed it by: what a detector of any change would flag too. Then each
    detector's score is in the loss of `whyfooled.defences.Evading`, with any wrong class for a goal.

    Parameters
    ----------
    attacks
        What the images are attacked with, by who does not know the detectors; not used on saved adversarial images.
    detectors
        The detectors.
    learn
        The share of the images that detectors learn from, drawn at random. A share of 1 % false positives takes 99 of
        them; twice as many for detectors that have to be fitted.
    epsilon
        Radius of the ℓ∞ ball that the attack on the detectors stays in.
    steps
        How many steps it takes.
    """

    attacks: tuple[Any, ...] = (FGSM(), BIM(), PGD(), CarliniWagner(), FMN())
    target: str | None = None
    detectors: tuple[Any, ...] = (
        LargestSoftmax(),
        TwoSidedMargin(),
        BitDepth(),
        MedianFilter(),
        UnderNoise(),
        Mahalanobis(),
        GradCAMShift(),
    )
    learn: float = 0.5
    epsilon: float = 4 / 255
    steps: int = 100

    card: ClassVar[Card] = Card(
        name="detectors",
        title="Detectors under attack",
        summary="How well detectors tell attacked images from clean and noisy ones, and what is left once they are "
        "attacked themselves.",
        source="this package; Carlini & Wagner 2017, arXiv 1705.07263, on how detectors are to be tested",
        cost="each attack once; 3 scores for each attack and detector; for each detector (`steps` + 1) x 2 forwards "
        "and backwards at least",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "detector": "text",
        "known": "whole",
        "outcome": "text",
        "score": "real",
        "p_value": "real",
        "noise_score": "real",
        "noise_p_value": "real",
        "l2": "real",
        "linf": "real",
    }
    controls: ClassVar[tuple[str, ...]] = (CLEAN,)
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_detectors(self.detectors)
        check_share("learn", self.learn)
        check_epsilon(self.epsilon)
        at_least("steps", self.steps, 1)

    def prepare(self, setting: Setting) -> Prepared:
        """Let every detector learn from some of the images."""
        known, tested = split(setting.places, self.learn, setting.seed, "detectors learn from some, and judge others")
        parts, notes = over_batches(setting, known, lambda batch: batch.images, "learning")
        clean = torch.cat(parts) if parts else torch.zeros(0, setting.classifier.channels, *setting.classifier.size)
        learned = [_learn(detector, setting.classifier, clean, setting.batch_size) for detector in self.detectors]
        return Prepared(tested, learned, notes=(*notes, _LEARNED.format(len(clean))))

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Score the batch as it is, after each attack and with as much noise, and after attacks on each detector."""
        working = [learned for learned in batch.prepared if isinstance(learned, Learned)]
        rows: list[Mapping[str, Any]] = [
            {"place": place, "error": error}
            for error in batch.prepared
            if isinstance(error, str)
            for place in range(len(batch.names))
        ]
        for learned in working:
            rows += _make_clean_rows(classifier, batch, learned)
        for name, result in run_or_load_attacks(classifier, batch, self.attacks, self.target):
            rows += _make_rows(classifier, batch, name, result, working)
        true = batch.true_classes(classifier.predict(batch.images))
        for learned in working:
            if isinstance(learned.detector, EvadableDetector):
                attack = Evading((learned.detector,), self.epsilon, self.steps)
                result = run_attack(attack, classifier, batch.images, Untargeted(true))
                rows += _make_rows(classifier, batch, EVADING, result, [learned])
        return Measured(rows)

    summarise = staticmethod(detectors_account.summarise)
    draw = staticmethod(detectors_account.draw)


_LEARNED = "Detectors learned from {} images, those that have to be fitted from every other, and judge the others."


def _learn(detector: Detector, classifier: Classifier, clean: Images, batch_size: int) -> Learned | str:
    """Fit a detector, and score clean images that it has not seen; or say why that is not possible."""
    try:
        fitted, rest = fit_to_some(detector, classifier, clean)
        scores = torch.cat([fitted(classifier, some) for some in torch.split(rest, batch_size)])
    except WhyfooledError as error:
        return f"{title(detector)}: {error}"
    return Learned(title(detector), fitted, scores.sort().values)


def _make_clean_rows(classifier: Classifier, batch: Batch, learned: Learned) -> Iterator[dict[str, Any]]:
    scores = learned.detector(classifier, batch.images)
    p_values = find_p_values(learned.clean_scores, scores)
    for place, (score, p_value) in enumerate(zip(scores.tolist(), p_values.tolist(), strict=True)):
        yield {"place": place, **learned.keys(CLEAN), "outcome": "", "score": score, "p_value": p_value}


def _make_rows(
    classifier: Classifier, batch: Batch, attack: str, result: AttackResult, detectors: Sequence[Learned]
) -> Iterator[dict[str, Any]]:
    """Give for each image and detector what the attack came to, with the scores where it fools the classifier."""
    outcomes = outcomes_of(batch, result)
    places = [place for place, outcome in enumerate(outcomes) if outcome == FOOLED]
    # Not the result's own norms: one that misses its target may fool the classifier all the same.
    delta = result.attempted - result.clean
    norms = {"l2": measure(delta, "l2"), "linf": measure(delta, "linf")}
    noisy = _add_noise(batch, norms["l2"], places)
    for learned in detectors:
        for place, outcome in enumerate(outcomes):
            if outcome != FOOLED:
                yield {"place": place, **learned.keys(attack), "outcome": outcome}
        numbers = _score(classifier, result.attempted[places], learned, "") if places else {}
        numbers |= _score(classifier, noisy, learned, "noise_") if places else {}
        for number, place in enumerate(places):
            yield {
                "place": place,
                **learned.keys(attack),
                "outcome": FOOLED,
                **{column: float(values[number]) for column, values in numbers.items()},
                **{norm: float(values[place]) for norm, values in norms.items()},
            }


def _score(classifier: Classifier, images: Images, learned: Learned, start: str) -> dict[str, PerImage]:
    scores = learned.detector(classifier, images)
    return {f"{start}score": scores, f"{start}p_value": find_p_values(learned.clean_scores, scores)}


def _add_noise(batch: Batch, lengths: PerImage, places: Sequence[int]) -> Images:
    """Add to some clean images noise of these lengths (n,), in ℓ2."""
    noisy = [
        add_noise(batch.images[place : place + 1].cpu(), float(lengths[place]), batch.seed).to(batch.images)
        for place in places
    ]
    return torch.cat(noisy) if noisy else batch.images[:0]
