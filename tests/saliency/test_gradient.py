"""The gradient and its product with the image, against a linear model and Captum."""

from inspect import unwrap

import jaxtyping
import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient

from tests.helpers.models import linear, small
from whyfooled import UPIPCA, Gradient, InputXGradient, IntegratedGradients
from whyfooled.errors import ModelError, ParameterError, WhyfooledWarning
from whyfooled.saliency.backward.gradients import check_pairs


def test_the_gradient_of_a_linear_model_is_its_weight():
    weight = torch.randn(4, 3 * 8 * 8)
    x = torch.rand(2, 3, 8, 8)
    y = torch.tensor([[1, 3], [0, 2]])
    found = Gradient()(linear(weight), x, y)
    torch.testing.assert_close(found, weight[y].view(2, 2, 3, 8, 8))
    torch.testing.assert_close(InputXGradient()(linear(weight), x, y), found * x.unsqueeze(1))


def test_the_gradient_of_a_probability_is_that_of_the_softmax():
    weight = torch.randn(4, 3 * 8 * 8) / 10
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([[1, 3], [0, 2]])
    classifier = linear(weight)
    p = classifier.logits(x).softmax(1)
    # dp_k = p_k (dz_k − Σ_j p_j dz_j)
    expected = p.gather(1, y)[:, :, None] * (weight[y] - (p @ weight)[:, None])
    found = Gradient(output="probability")(classifier, x, y)
    torch.testing.assert_close(found, expected.view(2, 2, 3, 8, 8))


def test_integrated_gradients_of_a_probability_add_up_to_its_change():
    classifier, x, y = small(), torch.rand(3, 3, 16, 16), torch.tensor([0, 2, 4])
    maps = IntegratedGradients(steps=100, output="probability")(classifier, x, y)
    before, after = (classifier.logits(one).softmax(1).gather(1, y[:, None])[:, 0] for one in (torch.zeros_like(x), x))
    torch.testing.assert_close(maps.flatten(1).sum(1), after - before, rtol=0.02, atol=1e-4)


def test_a_universal_perturbation_can_be_fitted_to_maps_of_probabilities():
    x, y = torch.rand(8, 3, 16, 16), torch.arange(8) % 5
    both = [UPIPCA(epsilon=1.0).fit(small(), (x, y), Gradient(output=output)) for output in ("logit", "probability")]
    assert [one.saliency for one in both] == ["gradient", "gradient(output=probability)"]
    assert not torch.allclose(both[0].delta, both[1].delta, atol=1e-3)


def test_another_output_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for method in (Gradient, IntegratedGradients):
        with pytest.raises(ParameterError, match="`output` must be one of logit, probability; got odds"):
            method(output="odds")


def test_input_times_gradient_equals_captums():
    classifier, x, y = small(), torch.rand(3, 3, 16, 16), torch.tensor([0, 2, 4])
    theirs = CaptumInputXGradient(classifier).attribute(x.clone().requires_grad_(), target=y)
    torch.testing.assert_close(InputXGradient()(classifier, x, y), theirs.detach())


def test_a_dead_network_is_named():
    with pytest.warns(WhyfooledWarning, match="zero at every pixel"):
        Gradient()(linear(torch.zeros(3, 192)), torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_logits_without_gradient_are_refused():
    classifier = linear(torch.randn(3, 192))
    classifier.module.forward = lambda x: x.detach().flatten(1)[:, :3]
    with pytest.raises(ModelError, match="do not depend on the images"):
        Gradient()(classifier, torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_a_wrong_number_of_classes_is_refused():
    # Without the shape checks of the tests, as a user calls it.
    with pytest.raises(ParameterError, match=r"`classes` must have the shape \(4,\) or \(4, k\)"):
        unwrap(check_pairs)(torch.rand(4, 3, 16, 16), torch.tensor([0, 1]))


def test_half_precision_is_refused():
    with pytest.raises(ParameterError, match="float32 or float64"):
        Gradient()(small(), torch.rand(1, 3, 16, 16).half(), torch.tensor([0]))
