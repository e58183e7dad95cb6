"""Carlini & Wagner's attack against the closed form of a linear classifier."""

import pytest
import torch

from tests.helpers.linear_optimum import distance, linear_case
from tests.helpers.models import linear
from whyfooled import CarliniWagner, Targeted, Untargeted, run_attack
from whyfooled.errors import ParameterError


@pytest.mark.parametrize("n", [1, 2, 7])
def test_it_is_within_2_percent_of_the_optimum_on_a_linear_classifier(n):
    classifier, images, labels, weight = linear_case(n, seed=n)
    others = torch.stack([distance(weight, images, labels, (labels + k) % 4) for k in (1, 2, 3)])
    optimum = others.amin(0)
    result = run_attack(CarliniWagner(), classifier, images, Untargeted(labels))
    assert result.success.all()
    assert (result.l2 / optimum).max() <= 1.02
    assert (result.l2 / optimum).min() >= 1


def test_it_is_within_2_percent_of_the_optimum_when_targeted():
    # With two classes the target's hyperplane is the only one.
    classifier, images, labels, weight = linear_case(5, seed=11, classes=2)
    optimum = distance(weight, images, labels, 1 - labels)
    result = run_attack(CarliniWagner(), classifier, images, Targeted(1 - labels))
    assert result.success.all()
    assert 1 <= (result.l2 / optimum).min() <= (result.l2 / optimum).max() <= 1.02


def test_confidence_is_kept():
    classifier, images, labels, _ = linear_case(3, seed=2)
    result = run_attack(CarliniWagner(confidence=2.0), classifier, images, Untargeted(labels))
    assert Untargeted(labels).margin(result.logits).max() <= -2


def test_it_gives_up_where_no_adversarial_image_exists():
    classifier = linear(torch.zeros(3, 192), torch.tensor([0.0, 1.0, 0.5]))
    images = torch.rand(2, 3, 8, 8)
    result = run_attack(CarliniWagner(steps=20, rounds=3), classifier, images, Untargeted(torch.tensor([1, 1])))
    assert not result.success.any()
    assert result.forwards.tolist() == result.backwards.tolist() == [1, 1]
    assert torch.equal(result.adversarial, images)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1; got 0"),
        ({"rounds": 0}, "`rounds` must be at least 1; got 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number above 0"),
        ({"confidence": -1.0}, "`confidence` must be at least 0"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ParameterError, match=message):
        CarliniWagner(**parameters)
