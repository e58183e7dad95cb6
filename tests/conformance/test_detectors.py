"""What holds for every detector, whichever it is."""

import dataclasses
from functools import cache

import jaxtyping
import pytest
import torch

import whyfooled.defences
from tests.helpers.models import linear, small
from tests.helpers.quick_methods import QUICK_DETECTORS
from tests.helpers.untouched import state
from whyfooled import Classifier
from whyfooled.defences import DETECTORS, Detector, EvadableDetector, FittingDetector, calibrate
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.registry import available, describe, parameter_texts, parameters, parse

DETECTOR = pytest.mark.parametrize("detector", QUICK_DETECTORS, ids=describe)
FITTING = pytest.mark.parametrize(
    "detector", [d for d in QUICK_DETECTORS if isinstance(d, FittingDetector)], ids=describe
)
CLEAN = 120


def draw(count, seed):
    """Draw images whose brightness, contrast and blur differ, as photographs' do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    fine = torch.rand(count, 3, 16, 16, generator=generator)
    share = torch.rand(count, 3, 1, 1, generator=generator)
    return share * torch.nn.functional.interpolate(coarse, size=16, mode="bilinear") + (1 - share) * fine


@cache
def classifier():
    """Make a classifier that is sure of some images, and of each class of some."""
    made = small()
    with torch.no_grad():
        logits = made(draw(CLEAN, seed=1))
        spread = logits.std(0)
        made.module.head.weight.mul_(3 / spread.unsqueeze(1))
        made.module.head.bias.copy_((made.module.head.bias - logits.mean(0)) * 3 / spread)
    return made


@cache
def fitted(detector):
    """Fit a detector that has to be."""
    return detector.fit(classifier(), draw(CLEAN, seed=1)) if isinstance(detector, FittingDetector) else detector


def close(scores, expected):
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_every_detector_of_the_package_is_in_the_list():
    abstract = {Detector, EvadableDetector, FittingDetector}
    public = {v for v in vars(whyfooled.defences).values() if isinstance(v, type) and issubclass(v, Detector)}
    assert public - abstract == set(DETECTORS)
    assert {detector.card.name for detector in DETECTORS} <= set(available("detectors"))


@DETECTOR
def test_it_is_a_frozen_dataclass_that_describes_itself(detector):
    assert dataclasses.is_dataclass(detector)
    assert type(detector).__dataclass_params__.frozen
    card = type(detector).card
    assert all([card.name, card.title, card.summary.endswith("."), card.source, card.cost])
    assert list(parameter_texts(type(detector))) == list(parameters(type(detector)))
    assert parse("detectors", describe(detector)) == detector


@DETECTOR
def test_scores_are_one_number_for_each_image_and_differ(detector):
    images = draw(40, seed=2)
    scores = fitted(detector)(classifier(), images)
    assert scores.shape == (40,)
    assert torch.isfinite(scores).all()
    assert not scores.requires_grad
    assert len(scores.unique()) > 5


@DETECTOR
def test_a_score_does_not_depend_on_the_batch(detector):
    images = draw(6, seed=2)
    together = fitted(detector)(classifier(), images)
    apart = fitted(detector)(classifier(), images[[4, 1]])
    close(apart, together[[4, 1]])


@DETECTOR
def test_no_image_has_no_score(detector):
    assert fitted(detector)(classifier(), draw(1, seed=2)[:0]).shape == (0,)


@DETECTOR
def test_the_same_call_gives_the_same_scores_with_or_without_gradients(detector):
    images = draw(4, seed=2)
    expected = fitted(detector)(classifier(), images)
    with torch.no_grad():
        assert torch.equal(fitted(detector)(classifier(), images), expected)
    assert torch.equal(fitted(detector)(classifier(), images.requires_grad_()), expected)


@DETECTOR
def test_a_shift_of_all_logits_changes_nothing(detector):
    images, shifted = draw(20, seed=2), small()
    shifted.module.load_state_dict(classifier().module.state_dict())
    with torch.no_grad():
        shifted.module.head.bias.add_(3)
    close(fitted(detector)(shifted, images), fitted(detector)(classifier(), images))


@DETECTOR
def test_images_and_model_are_left_as_they_were(detector):
    images, made = draw(30, seed=2), classifier()
    given, before = images.clone(), state(made)
    weights = {key: value.clone() for key, value in made.state_dict().items()}
    scores = (detector.fit(made, images) if isinstance(detector, FittingDetector) else detector)(made, images)
    inputs = images.clone().requires_grad_()
    torch.autograd.grad(fitted(detector).loss(made, inputs).sum(), inputs)
    assert len(scores) == 30
    assert torch.equal(images, given)
    assert state(made) == before
    assert all(torch.equal(weights[key], value) for key, value in made.state_dict().items())


@DETECTOR
def test_p_values_of_clean_images_that_it_has_not_seen_are_uniform(detector):
    count = CLEAN if isinstance(detector, FittingDetector) else CLEAN // 2
    calibration = calibrate(detector, classifier(), draw(count, seed=3), false_positives=0.1)
    assert len(calibration.clean_scores) == CLEAN // 2
    p_values = calibration.judge(draw(200, seed=4)).p_values.sort().values
    below = torch.arange(1, 201) / 200 - p_values
    # Kolmogorov and Smirnov, for samples of 60 and 200: beyond it in one of a thousand.
    furthest = 1.95 * (1 / 60 + 1 / 200) ** 0.5
    assert below.max() < furthest
    # Equal scores have p-values that are too large, if anything.
    if len(calibration.clean_scores.unique()) == len(calibration.clean_scores):
        assert below.min() > -furthest


@DETECTOR
def test_the_loss_falls_along_its_slope_and_the_score_with_it(detector):
    made, detector = classifier(), fitted(detector)
    images = draw(40, seed=5).requires_grad_()
    loss = detector.loss(made, images)
    assert loss.shape == (40,)
    (slope,) = torch.autograd.grad(loss.sum(), images)
    assert torch.isfinite(slope).all()
    moved = (images - 0.003 * slope.sign()).clamp(0, 1).detach()
    suspicious = loss.argsort()[-20:]
    assert slope[suspicious].flatten(1).any(1).all()
    assert (detector.loss(made, moved.requires_grad_()) < loss)[suspicious].float().mean() > 0.7
    before, after = (detector(made, some)[suspicious].mean() for some in (images, moved))
    assert after < before - 0.1 * before.abs()


@DETECTOR
def test_it_finds_the_same_slope_for_an_image_alone(detector):
    made, detector = classifier(), fitted(detector)

    def slope(images):
        images = images.clone().requires_grad_()
        return torch.autograd.grad(detector.loss(made, images).sum(), images)[0]

    images = draw(3, seed=5)
    close(slope(images[1:2]), slope(images)[1:2])


@FITTING
def test_one_that_has_to_be_fitted_says_so(detector):
    with pytest.raises(ParameterError) as caught:
        detector(classifier(), draw(2, seed=2))
    assert str(caught.value) == (
        f"`{detector.card.name}` must be fitted to clean images before it can judge others. "
        "Call calibrate(detector, classifier, clean), or detector.fit(classifier, clean)."
    )


@FITTING
@pytest.mark.parametrize("count", [0, 1])
def test_too_few_clean_images_to_fit_to_are_refused(detector, count):
    with pytest.raises(ParameterError, match=rf"^`clean` must .*two|2.*; got {count}"):
        detector.fit(classifier(), draw(2, seed=2)[:count])


@DETECTOR
@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (
            torch.full((2, 3, 16, 16), torch.nan),
            "Images must have finite values in [0, 1]; got values from nan to nan.",
        ),
        (
            torch.full((2, 3, 16, 16), 255.0),
            "Images must have finite values in [0, 1]; got values from 255 to 255. Divide them by 255.",
        ),
        (
            torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
            "Images must be a tensor of torch.float32; got a tensor of torch.uint8. Give images.float() / 255.",
        ),
        (
            torch.zeros(3, 16, 16),
            "Images must be a batch (n, channels, height, width); got the shape (3, 16, 16).",
        ),
    ],
)
def test_bad_images_are_refused(detector, images, sentence, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ImageError) as caught:
        fitted(detector)(classifier(), images)
    assert str(caught.value) == sentence


@DETECTOR
def test_a_bare_module_is_refused(detector, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=r"^`classifier` must be a Classifier; got SmallNet\. Wrap the model"):
        fitted(detector)(classifier().module, draw(2, seed=2))


@DETECTOR
def test_logits_that_are_not_finite_are_refused(detector):
    broken = small()
    with torch.no_grad():
        broken.module.head.bias[0] = torch.nan
    with pytest.raises(ModelError, match="must return finite logits"):
        fitted(detector)(broken, draw(2, seed=2))


@pytest.mark.parametrize("name", ["mahalanobis", "gradcam-shift"])
def test_a_model_without_places_is_refused_by_those_that_look_inside(name):
    detector = parse("detectors", name)
    flat: Classifier = linear(torch.eye(3, 192))
    with pytest.raises(ModelError, match="No layer of this model gives an output"):
        calibrate(detector, flat, draw(60, seed=2)[:, :, :8, :8])
