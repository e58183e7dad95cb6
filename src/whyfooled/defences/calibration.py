"""What a score means: how often clean images have one as large, by one detector or by several together."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_images
from whyfooled.defences.detector import Detector, FittingDetector, check_detector
from whyfooled.errors import ParameterError, bad_parameter
from whyfooled.types import Flags, Images, PerImage

CleanScores = Float[Tensor, " m"]
"""The scores of m clean images."""

_AT_ONCE = 32
"""Clean images whose scores are computed together."""


@final
@dataclass(frozen=True, eq=False)
class Judgement:
    """What a calibrated detector says of images.

    Parameters
    ----------
    scores
        (n,) The larger, the more suspicious.
    p_values
        (n,) The share of clean images with a score as large, the image itself counted among them.
    flagged
        (n,) Whether the p-value is at most the share of false positives that was asked for.
    """

    scores: PerImage
    p_values: PerImage
    flagged: Flags


@final
@dataclass(frozen=True, eq=False)
class Calibration:
    """A detector that knows the scores of clean images, for one classifier.

    Parameters
    ----------
    asked
        The detector as it was given.
    detector
        The same, fitted if it had to be.
    classifier
        The classifier. Another one gives clean images other scores.
    clean_scores
        (m,) The scores of the clean images that it was not fitted to, in rising order.
    clean_digests
        Digests of these images, in the order of their scores.
    false_positives
        The share of clean images that may be flagged.
    """

    asked: Detector
    detector: Detector
    classifier: Classifier
    clean_scores: CleanScores
    clean_digests: tuple[str, ...]
    false_positives: float

    @property
    def threshold(self) -> float:
        """The score above which an image is flagged."""
        return find_threshold(self.clean_scores, self.false_positives)

    def p_values(self, scores: PerImage) -> PerImage:
        """Return (n,) the share of clean images with a score as large, as `find_p_values` does."""
        return find_p_values(self.clean_scores, scores)

    def judge(self, images: Images) -> Judgement:
        """Score images (n,c,h,w), and say how unusual each is."""
        scores = self.detector(self.classifier, images)
        p_values = self.p_values(scores)
        return Judgement(scores, p_values, p_values <= self.false_positives)


@one_thread()
def calibrate(
    detector: Detector, classifier: Classifier, clean: Images, *, false_positives: float = 0.05
) -> Calibration:
    """Find out which scores clean images have, and from which on to flag an image.

    A detector that has to be fitted is fitted to every other image, the first included, and calibrated on the rest:
    images that it was fitted to look cleaner than others.

    Parameters
    ----------
    detector
        One of `whyfooled.defences.DETECTORS`, or another package's.
    classifier
        The classifier that an attack would have to fool.
    clean
        (n,c,h,w), values in [0, 1]: images that nobody has attacked, like those to be judged in every other way. If
        those have been through a camera and a JPEG file, so should these.
    false_positives
        The share of clean images that may be flagged, above 0 and under 1. Of images drawn like `clean` no more are
        flagged on average over such draws (Vovk et al. 2005: the p-values are conformal).

    Raises
    ------
    ParameterError
        If there are too few images for so small a share, or the share is none.
    ImageError
        If the images are not a batch of finite values in [0, 1].
    """
    check_detector(detector)
    check_classifier(classifier)
    check_images(clean)
    if not 0 < false_positives < 1:
        raise bad_parameter("false_positives", "must be above 0 and under 1", false_positives)
    _check_enough(detector, len(clean), false_positives)
    fitted, rest = fit_to_some(detector, classifier, clean)
    scores = torch.cat([fitted(classifier, some) for some in torch.split(rest, _AT_ONCE)])
    order = scores.argsort(stable=True)
    digests = _digest_each(rest)
    ordered = tuple(digests[place] for place in order.tolist())
    return Calibration(detector, fitted, classifier, scores[order], ordered, false_positives)


def fit_to_some(detector: Detector, classifier: Classifier, clean: Images) -> tuple[Detector, Tensor]:
    """Fit a detector that has to be to every other clean image; return it, and (m,c,h,w) those it has not seen."""
    if isinstance(detector, FittingDetector):
        return detector.fit(classifier, clean[::2]), clean[1::2]
    return detector, clean


def _digest_each(images: Images) -> list[str]:
    """Return a digest of each image's very values; of equal images each has one of its own."""
    times = Counter[str]()
    digests = []
    for image in images.detach().cpu():
        digest = hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        times[digest] += 1
        digests.append(f"{digest} {times[digest]}")
    return digests


def _check_enough(detector: Detector, count: int, false_positives: float) -> None:
    """Raise `ParameterError` if no score could be unusual enough among so few clean images."""
    fits = isinstance(detector, FittingDetector)
    if find_fewest(false_positives) > (count // 2 if fits else count):
        fewest = find_fewest(false_positives) * (2 if fits else 1)
        why = f", half of which {detector.card.name} is fitted to" if fits else ""
        rule = f"must be at least {fewest} images for a share of {false_positives:g} false positives{why}"
        raise bad_parameter("clean", rule, count)


def find_fewest(false_positives: float) -> int:
    """Return of how many clean images the largest score has a p-value of at most this share."""
    fewest = max(1, math.floor(1 / false_positives) - 1)
    return fewest if 1 / (fewest + 1) <= false_positives else fewest + 1


def find_p_values(clean_scores: CleanScores, scores: PerImage) -> PerImage:
    """Return (n,) which share of clean images, and the image itself, has a score at least as large as each.

    ``(1 + #{clean ≥ score}) / (1 + m)``: for a clean image drawn like the others, it is at most p with a probability of
    at most p, for any p and any detector. `clean_scores` are in rising order.
    """
    at_least_as_large = len(clean_scores) - torch.searchsorted(
        clean_scores, scores.to(clean_scores).contiguous(), right=False
    )
    return (1 + at_least_as_large.double()) / (1 + len(clean_scores))


def find_threshold(clean_scores: CleanScores, false_positives: float) -> float:
    """Return the score above which p-values are at most this share; infinite if there are too few clean images."""
    shares = (1 + torch.arange(len(clean_scores), dtype=torch.float64)) / (1 + len(clean_scores))
    allowed = int((shares <= false_positives).sum())
    return float(clean_scores[len(clean_scores) - allowed]) if allowed else math.inf


@final
@dataclass(frozen=True, eq=False)
class Combination:
    """Several calibrated detectors as one: Fisher's ``−2 Σ log p``, whose distribution is taken from clean images.

    Detectors agree on clean images, so Fisher's own distribution, which holds for independent ones, would flag far too
    many. Here the sum of an image is compared with the sums of clean images, each with its p-values among the same
    images, so that the combined p-value is as valid as those of one detector.

    Parameters
    ----------
    calibrations
        At least two, for one classifier; of their clean images those count that all were calibrated on.

    Raises
    ------
    ParameterError
        If there are fewer than two, they are for different classifiers, or too few clean images are common to all.
    """

    calibrations: tuple[Calibration, ...]

    def __post_init__(self) -> None:
        if len(self.calibrations) < 2:
            raise bad_parameter("calibrations", "must be at least two", len(self.calibrations))
        if len({id(calibration.classifier) for calibration in self.calibrations}) > 1:
            raise ParameterError("`calibrations` must be for one classifier; got several.")
        fewest = find_fewest(self.false_positives)
        if len(self.clean_scores) < fewest:
            rule = f"must have at least {fewest} clean images in common, that none was fitted to"
            raise bad_parameter("calibrations", rule, len(self.clean_scores))

    @property
    def false_positives(self) -> float:
        """The smallest share of false positives that one of them was calibrated for."""
        return min(calibration.false_positives for calibration in self.calibrations)

    @property
    def clean_scores(self) -> Tensor:
        """(m,k) The scores of the clean images that all were calibrated on."""
        of_detector = [
            dict(zip(one.clean_digests, one.clean_scores.tolist(), strict=True)) for one in self.calibrations
        ]
        common = [digest for digest in of_detector[0] if all(digest in scores for scores in of_detector)]
        rows = [[scores[digest] for scores in of_detector] for digest in common]
        return torch.tensor(rows, dtype=torch.float64).view(len(common), len(self.calibrations))

    def p_values(self, scores: Sequence[PerImage]) -> PerImage:
        """Return (n,) the combined p-values of images, from their scores (n,) by each detector."""
        together = torch.stack([values.double().cpu() for values in scores], dim=1)
        clean = self.clean_scores
        ranks = (clean.unsqueeze(0) >= clean.unsqueeze(1)).sum(1)
        return torch.tensor([_combine(clean, ranks, row) for row in together], dtype=torch.float64)

    def judge(self, images: Images) -> Judgement:
        """Score images (n,c,h,w): the score is ``−2 Σ log p``, the p-value that of clean images' sums."""
        judged = [calibration.judge(images) for calibration in self.calibrations]
        p_values = self.p_values([one.scores for one in judged])
        sums = -2 * torch.stack([one.p_values for one in judged]).log().sum(0)
        return Judgement(sums, p_values, p_values <= self.false_positives)


def _combine(clean: Tensor, ranks: Tensor, scores: Tensor) -> float:
    """Return the combined p-value of one image's scores (k,) among (m,k) those of clean images.

    `ranks` are how many clean images score as high as each. Every image's p-values are taken among all m + 1, so that
    the m + 1 sums can change places if the images can.
    """
    # Of each clean image, the new one is among those that score as high, or is not.
    sums = ((ranks + (scores >= clean)) / (len(clean) + 1)).log().sum(1)
    new_sum = ((1 + (clean >= scores).sum(0)) / (len(clean) + 1)).log().sum()
    # Equal sums may differ in their last digit.
    as_far = sums <= new_sum + 1e-9
    return (1 + int(as_far.sum())) / (len(clean) + 1)
