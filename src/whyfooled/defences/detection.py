"""Whether a detector would have flagged one attack, and one that knows the detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from whyfooled.attacks import run_attack
from whyfooled.attacks.forgery import FACTORS
from whyfooled.classifier import Classifier
from whyfooled.classifier.goals import Targeted
from whyfooled.defences.calibration import Calibration
from whyfooled.defences.evading import Evading, check_evadable
from whyfooled.errors import bad_parameter
from whyfooled.registry import describe, title
from whyfooled.tensors.balls import Ball
from whyfooled.types import Images, Progress, silent


@final
@dataclass(frozen=True)
class Scored:
    """What a detector says of one image.

    Parameters
    ----------
    score
        The larger, the more suspicious.
    p_value
        The share of clean images, and the image itself, with a score at least as large.
    flagged
        Whether that is at most the share of clean images that may be flagged.
    """

    score: float
    p_value: float
    flagged: bool


@final
@dataclass(frozen=True)
class Detection:
    """What a detector says of an image before and after an attack, and after one that knows the detector.

    Parameters
    ----------
    detector, title
        The detector as on the command line, and its name in a report.
    false_positives, clean_images, threshold
        The share of clean images that may be flagged, how many of them it learned from, and the score above which an
        image is flagged.
    clean, adversarial, evading
        What it says of the image, of what the attack made of it, and of what `Evading` did.
    epsilon, ball, factor
        The ball that `Evading` was given last, and how many times as large it is as the attack's own.
    fooled
        Whether it has the classifier see the same wrong class.
    """

    detector: str
    title: str
    false_positives: float
    clean_images: int
    threshold: float
    clean: Scored
    adversarial: Scored
    evading: Scored
    epsilon: float
    ball: Ball
    factor: int
    fooled: bool

    @property
    def evaded(self) -> bool:
        """Whether the attack that knows the detector fools the classifier and is not flagged."""
        return self.fooled and not self.evading.flagged


def check_calibration(calibration: object, classifier: Classifier) -> None:
    """Raise `ParameterError` unless a detector was calibrated on this classifier, and can be attacked."""
    if not isinstance(calibration, Calibration):
        fix = "Give calibrate(detector, classifier, clean)."
        raise bad_parameter("detector", "must be calibrated on clean images", type(calibration).__name__, fix)
    if calibration.classifier is not classifier and calibration.classifier.digest() != classifier.digest():
        rule = "must be calibrated on the model that is explained, since each gives clean images other scores"
        raise bad_parameter("detector", rule, f"one calibrated on another ({calibration.classifier.name})")
    check_evadable(calibration.detector)


def find_detection(
    calibration: Calibration,
    clean: Images,
    adversarial: Images,
    wrong: int,
    size: tuple[float, Ball],
    *,
    progress: Progress = silent,
) -> Detection:
    """Score an image before and after an attack, and attack it once more with the detector in view.

    The attack that knows the detector has to reach the same class, in a ball as large as the attack's own, then in
    larger ones, until it is not flagged.

    Parameters
    ----------
    calibration
        The detector, as `whyfooled.defences.calibrate` returns it.
    clean, adversarial
        (1,c,h,w) The image before and after the attack.
    wrong
        The class that the attack reached.
    size
        Radius and ball of the attack, as of `whyfooled.attacks.forgery.find_size`.
    progress
        Called as the attacks proceed.
    """
    radius, ball = size
    goal = Targeted(torch.tensor([wrong], device=clean.device))
    for factor in FACTORS:
        epsilon = factor * radius if ball == "l2" else min(1.0, factor * radius)
        attack = Evading((calibration.detector,), epsilon=epsilon, ball=ball)
        result = run_attack(attack, calibration.classifier, clean, goal, progress=progress)
        evading, fooled = _score(calibration, result.attempted), bool(result.success)
        if fooled and not evading.flagged:
            break
    return Detection(
        detector=describe(calibration.asked),
        title=title(calibration.asked),
        false_positives=calibration.false_positives,
        clean_images=len(calibration.clean_scores),
        threshold=calibration.threshold,
        clean=_score(calibration, clean),
        adversarial=_score(calibration, adversarial),
        evading=evading,
        epsilon=epsilon,
        ball=ball,
        factor=factor,
        fooled=fooled,
    )


def _score(calibration: Calibration, image: Images) -> Scored:
    judged: Any = calibration.judge(image)
    return Scored(float(judged.scores), float(judged.p_values), bool(judged.flagged))
