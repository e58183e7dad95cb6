"""Penalties by hand, on networks whose maps are known."""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from whyfooled import Classifier, Deconvnet, DeepLIFT, Enhanced, Gradient, GuidedBackprop
from whyfooled.defences import DiscriminativePenalty, InputGradientPenalty
from whyfooled.defences.discriminative import change, concentration, step_to_rival
from whyfooled.errors import MethodError, ParameterError


def linear(rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def rectified(inside, bias, outside):
    """Make ``outside · relu(inside · x + bias)``, for images (n,1,1,w)."""
    first = linear(inside)
    first.bias = nn.Parameter(torch.tensor(bias))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), linear(outside)).train()


def test_concentration_by_hand():
    network = nn.Sequential(nn.Flatten(), linear([[2.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0, -9.0, 0.0, 0.0]]))
    penalty = DiscriminativePenalty("concentration", method=Enhanced(Gradient()), beta=None)
    # (2,1,1,0)/4 less (0,0,1,1)/2 has the positive part (1/2, 1/4, 0, 0): two thirds and one third.
    found = penalty(network, torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))
    assert float(found.detach()) == pytest.approx(1 + math.log(5 / 9) / math.log(4))


INSIDE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 1.0, 0.0]]
BIAS = [0.0, 0.0, 0.0, 0.05]
OUTSIDE = [[3.0, 1.0, 3.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
IMAGE = torch.tensor([0.5, 0.4, 0.6]).view(1, 1, 1, 3)


def test_stability_by_hand():
    # Guided maps (3,1,3)/7 and (1,1,1)/3, so Dis lies half on the first and half on the third pixel. The lead over the
    # rival falls with these two; a step of .1 opens the fourth unit, whose part of the first class is (-1,1,0). Then
    # (2,2,3)/7 less a third leaves the third pixel alone: the cosine is 1/√2.
    network = rectified(INSIDE, BIAS, OUTSIDE)
    found = DiscriminativePenalty(epsilon=0.1, beta=None)(network, IMAGE, torch.tensor([0]))
    assert float(found.detach()) == pytest.approx(1 - math.sqrt(0.5), abs=1e-6)
    closed = DiscriminativePenalty(epsilon=0.04, beta=None)(network, IMAGE, torch.tensor([0]))
    assert float(closed.detach()) == pytest.approx(0, abs=1e-6)


def test_a_step_goes_to_the_rival_and_stays_in_the_box():
    classifier = Classifier(rectified(INSIDE, BIAS, OUTSIDE), (0.0,), (1.0,))
    moved = step_to_rival(classifier, IMAGE, torch.tensor([0]), torch.tensor([1]), 0.55)
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.0, 0.4, 0.05]))
    back = step_to_rival(classifier, IMAGE, torch.tensor([1]), torch.tensor([0]), 0.45)
    torch.testing.assert_close(back.flatten(), torch.tensor([0.95, 0.4, 1.0]))


def test_the_input_gradient_by_hand():
    rows = [[2.0, -1.0, 0.0, 1.0], [0.5, 1.0, -1.0, 0.0]]
    image = np.array([0.1, 0.9, 0.3, 0.5])
    powers = np.exp(np.array(rows) @ image)
    slope = (powers / powers.sum() - [0, 1]) @ np.array(rows)
    network = nn.Sequential(nn.Flatten(), linear(rows))
    images = torch.tensor(image, dtype=torch.float32).view(1, 1, 2, 2)
    found = InputGradientPenalty(3.0)(network, images, torch.tensor([1]))
    assert float(found.detach()) == pytest.approx(3 * (slope**2).sum())


def test_a_map_as_even_as_can_be_and_one_of_a_pixel():
    maps = torch.tensor([[[0.25, 0.25], [0.25, 0.25]], [[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(concentration(maps), torch.tensor([0.0, 1.0, 0.0]))
    assert concentration(torch.ones(1, 1, 1)).tolist() == [1.0]


def test_empty_maps_have_no_slope_and_are_alike_only_among_themselves():
    one = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]], [[0.5, 0.5]]], requires_grad=True)
    other = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]], [[0.5, 0.5]]], requires_grad=True)
    found = change(one, other)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    for slope in torch.autograd.grad((found + concentration(one)).sum(), [one, other]):
        assert slope.isfinite().all()
        assert not slope[1:3].any()


def test_a_network_with_nothing_to_show_leaves_training_whole():
    # Both classes see the same, so Dis is 0 everywhere.
    network = rectified(INSIDE, BIAS, [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    for form in ("stability", "concentration"):
        found = DiscriminativePenalty(form)(network, IMAGE, torch.tensor([0]))
        found.backward()
        assert float(found.detach()) == pytest.approx(0, abs=1e-6)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())


def test_smooth_activations_are_for_rectifiers():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(144, 3))
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(MethodError, match=r"^smooth_activations replaces ReLU, ReLU6 and Hardtanh"):
        DiscriminativePenalty()(network, images, labels)
    assert DiscriminativePenalty(beta=None)(network, images, labels).requires_grad


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "stable"}, "`form` must be one of stability, concentration; got stable."),
        (
            {"method": GuidedBackprop()},
            "`method` must be an Enhanced method, such as Enhanced(); got GuidedBackprop().",
        ),
    ],
)
def test_parameters_that_are_none_are_refused(options, sentence, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError) as caught:
        DiscriminativePenalty(**options)
    assert str(caught.value) == sentence


def test_a_base_without_derivatives_is_refused():
    with pytest.raises(MethodError, match=r"cannot be differentiated with respect to the image because those of"):
        DiscriminativePenalty(method=Enhanced(Deconvnet()))
    DiscriminativePenalty(method=Enhanced(DeepLIFT()))
