"""What scores mean: p-values by counting, thresholds that agree with them, combinations that stay valid."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jaxtyping
import pytest
import torch
from scipy import stats

from tests.helpers.models import linear, small
from whyfooled.defences import Combination, Detector, Mahalanobis, MedianFilter, TwoSidedMargin, calibrate
from whyfooled.defences.calibration import Calibration, find_fewest, find_p_values, find_threshold
from whyfooled.errors import ParameterError
from whyfooled.registry import Card

FLAT = linear(torch.eye(3, 192))


@dataclass(frozen=True)
class Pixel(Detector):
    """The value of one pixel."""

    place: int = 0

    card: ClassVar[Card] = Card("pixel", "Pixel", "A pixel.", "nobody", "nothing")

    def score(self, classifier, images):
        return images.flatten(1)[:, self.place]


def images_of(*columns):
    """Make images whose first values are these."""
    images = torch.zeros(len(columns[0]), 3, 8, 8)
    for place, column in enumerate(columns):
        images.view(len(images), -1)[:, place] = torch.as_tensor(column)
    return images


def test_p_values_are_the_shares_of_clean_images_that_score_as_high():
    clean = torch.tensor([1.0, 2.0, 2.0, 5.0])
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 6.0])
    assert find_p_values(clean, scores).tolist() == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]


@pytest.mark.parametrize("count", [1, 5, 19, 20, 99, 100, 137])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.29, 0.5, 0.999])
def test_an_image_is_above_the_threshold_just_where_its_p_value_is_small_enough(count, share):
    generator = torch.Generator().manual_seed(count)
    clean = torch.randint(0, 40, (count,), generator=generator).float().sort().values
    scores = torch.arange(-1, 42).float()
    flagged = find_p_values(clean, scores) <= share
    assert torch.equal(flagged, scores > find_threshold(clean, share))
    assert flagged.any() == (count >= find_fewest(share))


@pytest.mark.parametrize(("share", "fewest"), [(0.05, 19), (0.01, 99), (0.5, 1), (0.999, 1), (0.3, 3), (0.1, 9)])
def test_the_fewest_images_are_those_of_which_the_largest_is_unusual_enough(share, fewest):
    assert find_fewest(share) == fewest
    assert 1 / (fewest + 1) <= share
    assert fewest == 1 or 1 / fewest > share


def test_images_are_judged_by_score_p_value_and_threshold():
    calibration = calibrate(Pixel(), FLAT, images_of(torch.arange(1, 20) / 20))
    judged = calibration.judge(images_of([0.5, 0.96, 0.94]))
    assert judged.scores.tolist() == pytest.approx([0.5, 0.96, 0.94])
    assert judged.p_values.tolist() == pytest.approx([11 / 20, 1 / 20, 2 / 20])
    assert judged.flagged.tolist() == [False, True, False]
    assert calibration.threshold == pytest.approx(0.95)
    assert calibration.clean_scores.tolist() == pytest.approx([n / 20 for n in range(1, 20)])


def test_what_is_fitted_is_calibrated_on_the_other_images():
    clean = torch.rand(41, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    calibration = calibrate(TwoSidedMargin(), small(), clean)
    fitted = TwoSidedMargin().fit(small(), clean[::2])
    assert torch.equal(calibration.detector.margins, fitted.margins)
    assert torch.equal(calibration.clean_scores, fitted(small(), clean[1::2]).sort().values)


@pytest.mark.parametrize(
    ("detector", "count", "share", "sentence"),
    [
        (Pixel(), 18, 0.05, "`clean` must be at least 19 images for a share of 0.05 false positives; got 18."),
        (Pixel(), 98, 0.01, "`clean` must be at least 99 images for a share of 0.01 false positives; got 98."),
        (
            Mahalanobis(),
            37,
            0.05,
            "`clean` must be at least 38 images for a share of 0.05 false positives, half of which mahalanobis is "
            "fitted to; got 37.",
        ),
        (Pixel(), 40, 0.0, "`false_positives` must be above 0 and under 1; got 0.0."),
        (Pixel(), 40, 5.0, "`false_positives` must be above 0 and under 1; got 5.0."),
        (Pixel, 40, 0.05, "`detector` must be a detector, such as MedianFilter(); got Pixel."),
        ("median", 40, 0.05, "`detector` must be a detector, such as MedianFilter(); got 'median'."),
    ],
)
def test_what_cannot_be_calibrated_is_refused(detector, count, share, sentence, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError) as caught:
        calibrate(detector, small(), torch.rand(count, 3, 16, 16), false_positives=share)
    assert str(caught.value) == sentence


def brute_force(clean, own):
    """Take the combined p-value from its definition: all p-values of all images among all of them."""
    everything = torch.cat([clean, own[None]])
    shares = (everything[None] >= everything[:, None]).double().mean(1)
    sums = -2 * shares.log().sum(1)
    return float((sums >= sums[-1] - 1e-9).double().mean())


def calibrated(*columns):
    clean = images_of(*columns)
    return [calibrate(Pixel(place), FLAT, clean) for place in range(len(columns))]


def test_a_combination_is_the_share_of_images_whose_p_values_are_as_small_together():
    clean = torch.rand(25, 2, generator=torch.Generator().manual_seed(1))
    new = torch.rand(30, 2, generator=torch.Generator().manual_seed(2))
    combination = Combination(tuple(calibrated(*clean.T)))
    judged = combination.judge(images_of(*new.T))
    assert judged.p_values.tolist() == pytest.approx([brute_force(clean, own) for own in new])
    assert torch.equal(judged.flagged, judged.p_values <= 0.05)
    each = [find_p_values(column.sort().values, own) for column, own in zip(clean.T, new.T, strict=True)]
    torch.testing.assert_close(judged.scores, -2 * (each[0].log() + each[1].log()))


def test_detectors_that_agree_are_combined_without_more_false_positives():
    # Twice the same: Fisher's own distribution would make p² · (1 − log p²) of p.
    scores = torch.rand(199, generator=torch.Generator().manual_seed(3))
    new = torch.rand(2000, generator=torch.Generator().manual_seed(4))
    combination = Combination(tuple(calibrated(scores, scores)))
    judged = combination.judge(images_of(new, new))
    assert judged.p_values.tolist() == pytest.approx(find_p_values(scores.sort().values, new).tolist())
    naive = stats.chi2.sf(judged.scores.numpy(), df=4)
    assert (naive <= 0.05).mean() > 1.5 * float(judged.flagged.double().mean())


def test_only_images_that_all_were_calibrated_on_count():
    clean = torch.rand(120, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    classifier = small()
    pair = [calibrate(detector, classifier, clean) for detector in (MedianFilter(), Mahalanobis(by_class=False))]
    combination = Combination(tuple(pair))
    assert combination.clean_scores.shape == (60, 2)
    assert combination.clean_scores[:, 1].sort().values.tolist() == pytest.approx(pair[1].clean_scores.tolist())


def test_calibrations_that_do_not_go_together_are_refused():
    first, second = calibrated(torch.rand(30), torch.rand(30))
    with pytest.raises(ParameterError, match=r"^`calibrations` must be at least two; got 1\.$"):
        Combination((first,))
    other = Calibration(Pixel(), Pixel(), small(), first.clean_scores, first.clean_digests, 0.05)
    with pytest.raises(ParameterError, match=r"^`calibrations` must be for one classifier; got several\.$"):
        Combination((first, other))
    elsewhere = calibrate(Pixel(), FLAT, images_of(torch.rand(30)))
    with pytest.raises(ParameterError, match=r"^`calibrations` must have at least 19 clean images in common.*; got 0"):
        Combination((second, elsewhere))


def test_a_threshold_of_too_few_images_is_never_passed():
    assert find_threshold(torch.tensor([1.0, 2.0]), 0.05) == math.inf
