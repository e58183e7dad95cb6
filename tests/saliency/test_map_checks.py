"""What maps stand and depend on, for maps of the image alone, of the weights, and of a seed."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from tests.helpers.models import LateStart, small
from tests.helpers.untouched import state
from whyfooled import Classifier
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.saliency import Enhanced, Gradient, SmoothGrad
from whyfooled.saliency.map_checks import DRAWS, SHIFTS, check_maps
from whyfooled.saliency.recovery import shifted_maps
from whyfooled.tensors.measures import rank_correlation
from whyfooled.tensors.randomness import add_noise

CLEAN = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
ADVERSARIAL = (CLEAN + 0.02 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


@dataclass(frozen=True)
class OfImage:
    """The image, whatever the model."""

    card: ClassVar[Card] = Card("of-image", "Of the image", "The image.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        return images.unsqueeze(1).expand(-1, classes.shape[1], -1, -1, -1)


@dataclass(frozen=True)
class OfHead:
    """The image times a sign that the head decides about."""

    card: ClassVar[Card] = Card("of-head", "Of the head", "The head.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        changed = not torch.equal(classifier.module.head.bias, small().module.head.bias)
        return (-images if changed else images).unsqueeze(1).expand(-1, classes.shape[1], -1, -1, -1)


@dataclass(frozen=True)
class OfSeed:
    """Noise of a seed."""

    seed: int = 0
    card: ClassVar[Card] = Card("of-seed", "Of the seed", "Noise.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(self.seed))
        return noise.expand(*classes.shape, 3, 16, 16)


def checked(*methods, **more):
    return check_maps(small(), methods, CLEAN, ADVERSARIAL, 1, 2, **more)


def test_noise_is_as_long_as_what_was_added_and_chance_is_the_map_at_other_places():
    checks = checked(OfImage())
    (check,) = checks.methods
    assert checks.l2 == pytest.approx(float((ADVERSARIAL - CLEAN).norm()))
    noisy = torch.cat([add_noise(CLEAN, checks.l2, number) for number in range(DRAWS)])
    noise, shifted = check.likeness["noise"], shifted_maps(CLEAN, CLEAN, SHIFTS)
    assert noise.value == pytest.approx(float(rank_correlation(CLEAN.expand_as(noisy), noisy).mean()))
    chance = rank_correlation(CLEAN.expand_as(shifted), shifted)
    assert (noise.chance, noise.highest) == pytest.approx((float(chance.mean()), float(chance.max())))
    assert set(check.likeness) == {"noise", "cascading", "independent"}


def test_a_map_of_the_image_does_not_depend_on_the_weights_and_one_of_the_head_on_those_of_the_head_alone():
    image, head = checked(OfImage(), OfHead()).methods
    assert [image.likeness[kind].value for kind in ("cascading", "independent")] == pytest.approx([1, 1])
    assert [head.likeness[kind].value for kind in ("cascading", "independent")] == pytest.approx([-1, 1])
    assert head.part == "second"
    assert (image.method, image.title) == ("of-image", "Of the image")


def test_another_seed_is_that_of_the_method_and_of_its_base():
    of_seed, enhanced, gradient = checked(OfSeed(seed=3), Enhanced(base=SmoothGrad(samples=2)), Gradient()).methods
    assert set(of_seed.likeness) - {"cascading", "independent"} == {"noise", "method seed"}
    assert (of_seed.likeness["noise"].value, of_seed.likeness["cascading"].value) == pytest.approx((1, 1))
    expected = [OfSeed(seed)(small(), CLEAN, torch.zeros(1, 1))[:, 0] for seed in (3, 4)]
    assert of_seed.likeness["method seed"].value == pytest.approx(float(rank_correlation(*expected)))
    assert enhanced.likeness["method seed"].value < 1
    assert "method seed" not in gradient.likeness


def test_the_attacks_seed_is_about_the_wrong_class_and_a_universal_perturbation_about_the_true_one():
    again, universal = ADVERSARIAL.flip(3), CLEAN.flip(2)
    (check,) = checked(Gradient(), again=again, universal=universal).methods
    of = {
        kind: [Gradient()(small(), image, torch.tensor([cls])) for image in images]
        for kind, cls, images in (("attack seed", 2, (ADVERSARIAL, again)), ("universal", 1, (CLEAN, universal)))
    }
    for kind, maps in of.items():
        assert check.likeness[kind].value == pytest.approx(float(rank_correlation(*maps)), abs=1e-5)
    # One image of noise fewer would leave the draws of noise alone.
    assert check.likeness["noise"].value > check.likeness["universal"].value


def test_without_a_perturbation_there_is_no_noise_and_an_empty_map_is_like_nothing():
    (check,) = check_maps(small(), [Gradient()], CLEAN, CLEAN, 1, 2).methods
    assert set(check.likeness) == {"cascading", "independent"}
    (empty,) = check_maps(small(), [replace(Enhanced(), base=Gradient())], CLEAN, CLEAN, 1, 1).methods
    assert all(math.isnan(measured.value) for measured in empty.likeness.values())


def test_the_model_stays_as_it_was_and_passes_of_the_random_ones_are_counted():
    classifier = small()
    before, digest = state(classifier.module), classifier.digest()
    checks = check_maps(classifier, [Gradient()], CLEAN, ADVERSARIAL, 1, 2)
    # All weights random, and each of three parts.
    assert (checks.passes.forwards, checks.passes.backwards) == (4, 4)
    assert (state(classifier.module), classifier.digest()) == (before, digest)


def test_a_model_without_weights_is_refused_in_a_sentence():
    with pytest.raises(MethodError, match="The model has no weights that are floating-point numbers"):
        check_maps(Classifier(LateStart(), size=(16, 16)), [Gradient()], CLEAN, ADVERSARIAL, 0, 1)
