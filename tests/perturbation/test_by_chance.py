"""How many random perturbations fool: those that are as long as the attack's."""

import pytest
import torch

from tests.helpers.models import linear
from whyfooled.errors import ParameterError
from whyfooled.perturbation.by_chance import count_fooled_by_chance
from whyfooled.tensors.randomness import add_noise


def half_space(bias):
    """Make a classifier that sees class 1 where the sum of all values is above 96 + bias."""
    weight = torch.stack([-torch.ones(192), torch.ones(192)])
    return linear(weight, torch.tensor([96.0 + bias, -96.0 - bias]), side=8)


CLEAN = torch.full((1, 3, 8, 8), 0.5)


@pytest.mark.parametrize("true", [0, 1])
def test_half_of_all_directions_cross_a_plane_through_the_image(true):
    found = count_fooled_by_chance(half_space(0.0), CLEAN, (CLEAN + 0.01), true, draws=200)
    assert found.draws == 200
    assert found.fooled / 200 == pytest.approx(0.5, abs=0.1)


def test_what_is_counted_are_predictions_under_noise_of_that_length():
    adversarial, classifier = (CLEAN + 0.02), half_space(0.3)
    length = float((adversarial - CLEAN).norm())
    noisy = torch.cat([add_noise(CLEAN, length, 5 + number) for number in range(30)])
    assert (noisy - CLEAN).flatten(1).norm(dim=1).tolist() == pytest.approx([length] * 30, rel=1e-4)
    expected = int((classifier.logits(noisy).argmax(1) != 0).sum())
    assert 0 < expected < 30
    assert count_fooled_by_chance(classifier, CLEAN, adversarial, 0, draws=30, seed=5, batch_size=7).fooled == expected


def test_a_plane_that_is_farther_is_never_crossed():
    # The attack goes straight to it, and hardly any other direction does.
    adversarial = CLEAN + 0.02
    assert count_fooled_by_chance(half_space(3.0), CLEAN, adversarial, 0, draws=50).fooled == 0
    assert int(half_space(3.0).predict(adversarial)) == 1
    with pytest.raises(ParameterError, match="`draws` must be"):
        count_fooled_by_chance(half_space(0.0), CLEAN, adversarial, 0, draws=0)
