"""Interpretation and dissimilarity, by hand; slopes, against finite differences."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.models import small
from tests.helpers.planted_maps import Dark, noise
from whyfooled import Classifier
from whyfooled.errors import ParameterError
from whyfooled.saliency import Gradient, IntegratedGradients
from whyfooled.saliency.interpretations import smoothed
from whyfooled.universal import dissimilarity, interpretation
from whyfooled.universal.dissimilarity import distance
from whyfooled.universal.maps import interpret, slopes


def test_an_interpretation_by_hand():
    maps = torch.tensor([[[[1.0, -2.0]], [[0.0, 1.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    assert interpretation(maps).tolist() == [[[0.25, 0.75]], [[0, 0]]]


def test_a_dissimilarity_by_hand():
    maps = torch.tensor([[[[3.0, -1.0]]], [[[0.0, 2.0]]], [[[0.0, 0.0]]], [[[1.0, 1.0]]]])
    others = torch.tensor([[[[2.0, 2.0]]], [[[-5.0, 0.0]]], [[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    found = dissimilarity(maps, others)
    # (3/4, 1/4) and (1/2, 1/2); (0, 1) and (1, 0); an empty map on either side.
    assert found[0] == pytest.approx(math.sqrt(2) / 4 / (math.sqrt(10) / 4))
    assert found[1] == pytest.approx(math.sqrt(2))
    assert found[2].isnan()
    assert found[3] == 1


def test_shapes_must_agree(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=r"`others` must have the shape of `maps`, \(1, 3, 4, 4\)"):
        dissimilarity(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 5))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), other=st.floats(-1e3, -1e-3), seed=st.integers(0, 100))
def test_the_size_and_the_sign_of_maps_do_not_matter(scale, other, seed):
    first, second = noise(4, seed=seed) - 0.5, noise(4, seed=seed + 1) - 0.5
    expected = dissimilarity(first, second)
    torch.testing.assert_close(dissimilarity(scale * first, other * second), expected)
    assert dissimilarity(first, other * first).abs().max() < 1e-5


@pytest.mark.parametrize("beta", [3.0, 10.0])
@pytest.mark.parametrize("saliency", [Gradient(), IntegratedGradients(steps=3)], ids=["gradient", "integrated"])
def test_slopes_are_those_of_finite_differences(saliency, beta):
    classifier = small(side=6).double()
    images = noise(3, side=6).double()
    classes = torch.tensor([0, 1, 2])
    moved = images + 0.1 * noise(3, side=6, seed=1)
    with smoothed(beta):
        clean = interpret(saliency, classifier, images, classes)

    def apart(at):
        with smoothed(beta):
            return distance(clean, interpret(saliency, classifier, at, classes))

    found, values = slopes(saliency, classifier, moved, classes, clean, beta)
    torch.testing.assert_close(values, apart(moved), rtol=1e-10, atol=1e-12)
    for seed in range(3):
        way = noise(3, side=6, seed=seed).double() - 0.5
        expected = (apart(moved + 1e-6 * way) - apart(moved - 1e-6 * way)) / 2e-6
        assert expected.abs().min() > 1e-4
        torch.testing.assert_close((found * way).sum((1, 2, 3)), expected, rtol=1e-5, atol=1e-8)


def test_there_is_no_slope_where_a_map_is_empty_and_other_images_keep_theirs():
    classifier = Classifier(Dark(small(side=6).module), mean=(0.0,) * 3, std=(1.0,) * 3, size=(6, 6))
    images = noise(3, side=6)
    # Dark without noise, and dark only with it.
    images[0] *= 0.1
    moved = images.clone()
    moved[1] *= 0.1
    classes = torch.tensor([0, 1, 2])
    clean = interpret(Gradient(), classifier, images, classes)
    found, apart = slopes(Gradient(), classifier, moved + 0.05, classes, clean, 10.0)
    assert clean[0].sum() == 0
    assert apart[1] == 1
    assert not found[:2].any()
    alone, _ = slopes(Gradient(), classifier, moved[2:] + 0.05, classes[2:], clean[2:], 10.0)
    assert alone.any()
    torch.testing.assert_close(found[2:], alone, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was():
    classifier = small(side=6)
    images = noise(2, side=6)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    clean = interpret(Gradient(), classifier, images, torch.tensor([0, 1]))
    slopes(Gradient(), classifier, images + 0.1, torch.tensor([0, 1]), clean, 10.0)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not images.requires_grad
