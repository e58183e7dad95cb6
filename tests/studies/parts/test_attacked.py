"""What studies ask of an attack's result."""

import torch

from tests.helpers.models import linear
from whyfooled.attacks import AttackResult
from whyfooled.classifier.goals import Targeted, Untargeted
from whyfooled.studies.parts.attacked import choose_promoted

# Each class has a pixel of its own, so that an image's logits are its first four values.
WEIGHT = torch.eye(4, 12)


def result_of(goal, logits):
    classifier = linear(WEIGHT, side=2)
    clean, attempted = torch.zeros(len(logits), 3, 2, 2), torch.zeros(len(logits), 12)
    attempted[:, :4] = torch.tensor(logits)
    return AttackResult.from_images(classifier, clean, attempted.view(clean.shape), goal)


def test_a_target_is_promoted_whether_it_was_reached_or_not():
    result = result_of(Targeted(torch.tensor([2, 3])), [[0.1, 0.2, 0.9, 0.0], [0.1, 0.9, 0.3, 0.0]])
    assert result.success.tolist() == [True, False]
    assert choose_promoted(result, torch.tensor([0, 0])).tolist() == [2, 3]


def test_without_a_target_it_is_the_class_given_now_or_the_strongest_other():
    true = torch.tensor([0, 1])
    result = result_of(Untargeted(true), [[0.1, 0.2, 0.9, 0.0], [0.1, 0.9, 0.3, 0.0]])
    assert choose_promoted(result, true).tolist() == [2, 2]
