"""What a perturbation does on regions with names, on a linear model where every number is known."""

import pytest
import torch

from tests.helpers.models import linear
from whyfooled.perturbation.named_effect import find_named_effect


def test_energy_area_and_what_cleaning_one_region_does_are_as_computed_by_hand():
    # The logit of class 1 is the sum of the left half's reds, that of class 0 what is left to the right half, turned.
    weight = torch.zeros(2, 3, 4, 4)
    weight[1, 0, :, :2] = 1.0
    weight[0, 0, :, 2:] = -1.0
    classifier = linear(weight.flatten(1), torch.tensor([1.0, 0.0]), side=4)
    clean = torch.full((1, 3, 4, 4), 0.25)
    clean[:, :, :, :2] = 0.0
    adversarial = clean.clone()
    adversarial[0, 0, :, 0] += 0.5  # 4 pixels of the left half
    adversarial[0, 0, 0, 3] += 0.5  # and one of the right half
    labels = torch.tensor([[0, 0, 1, 1]] * 3 + [[0, 0, 2, 2]])
    named = {"labels": labels, "names": ("cup", "table", "spoon")}
    found = find_named_effect(classifier, clean, adversarial, 0, 1, **named)
    assert found.area.tolist() == pytest.approx([8 / 16, 6 / 16, 2 / 16])
    assert found.energy.tolist() == pytest.approx([4 / 5, 1 / 5, 0])
    assert found.wrong_change.tolist() == pytest.approx([2.0, 0.0, 0.0])
    assert found.true_change.tolist() == pytest.approx([0.0, -0.5, 0.0])
    # Logits of (true, wrong): attacked (-1.5, 2); cleaned on the cup (-1.5, 0), on the table (-1, 2).
    assert found.predictions.tolist() == [1, 1, 1]
    surer = linear(weight.flatten(1), torch.tensor([3.0, 0.0]), side=4)
    # Of one that is surer, attacked (0.5, 2), and (0.5, 0) when cleaned on the cup: the true class is back.
    assert find_named_effect(surer, clean, adversarial, 0, 1, **named).predictions.tolist() == [0, 1, 1]
    frame = found.to_frame()
    assert frame["region"].tolist() == ["cup", "table", "spoon"]
    assert frame["energy"].tolist() == pytest.approx([0.8, 0.2, 0.0])
