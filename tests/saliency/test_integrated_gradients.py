"""Integrated gradients, against closed forms, completeness and Captum."""

from inspect import unwrap

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients

from tests.helpers.models import Cubes, LateStart, linear, small
from whyfooled import Classifier, IntegratedGradients, count_passes
from whyfooled.errors import ParameterError, WhyfooledWarning
from whyfooled.saliency import _samples
from whyfooled.saliency._baselines import BASELINES
from whyfooled.tensors.fills import filled


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_linear_model_gives_weight_times_distance(baseline):
    weight = torch.randn(4, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([[1, 3], [0, 2]])
    found = IntegratedGradients(steps=3, baseline=baseline)(linear(weight), x, y)
    expected = weight[y].view(2, 2, 3, 8, 8) * (x - filled(x, baseline)).unsqueeze(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_two_points_integrate_a_cubic_exactly():
    weight = torch.randn(3, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([2, 0])
    found = IntegratedGradients(steps=2)(Classifier(Cubes(weight), size=(8, 8)), x, y)
    torch.testing.assert_close(found, weight[y].view_as(x) * x**3, rtol=1e-4, atol=1e-6)


def test_a_map_adds_up_to_the_difference_of_the_logits():
    classifier, x, y = small(), torch.rand(3, 3, 16, 16), torch.tensor([0, 2, 4])
    found = IntegratedGradients(steps=300)(classifier, x, y).sum((1, 2, 3))
    expected = (classifier.logits(x) - classifier.logits(torch.zeros_like(x))).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_it_equals_captums():
    classifier, x, y = small(), torch.rand(3, 3, 16, 16), torch.tensor([0, 2, 4])
    theirs = CaptumIntegratedGradients(classifier).attribute(x, target=y, n_steps=20, method="gausslegendre")
    torch.testing.assert_close(IntegratedGradients(steps=20)(classifier, x, y), theirs.float(), rtol=1e-4, atol=1e-6)


def test_passes_are_counted_and_bounded(monkeypatch):
    classifier, x, y = small(), torch.rand(2, 3, 16, 16), torch.tensor([[0, 1], [2, 3]])
    sizes = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with count_passes(classifier) as passes:
        expected = IntegratedGradients(steps=11)(classifier, x, y)
    assert (passes.forwards, passes.backwards) == (22, 44)
    assert sizes == [8, 8, 6]
    handle.remove()
    monkeypatch.setattr(_samples, "AT_ONCE", 1)
    torch.testing.assert_close(IntegratedGradients(steps=11)(classifier, x, y), expected, rtol=1e-4, atol=1e-6)


def test_only_a_gradient_that_is_zero_all_the_way_is_an_empty_map():
    x = torch.full((1, 3, 8, 8), 0.9)
    method = IntegratedGradients(steps=10)
    assert method(Classifier(LateStart(), size=(8, 8)), x, torch.tensor([0])).sum() > 0
    with pytest.warns(WhyfooledWarning, match="zero at every pixel"):
        method(Classifier(LateStart(), size=(8, 8)), x / 2, torch.tensor([0]))


def test_bad_parameters_are_named():
    with pytest.raises(ParameterError, match="`steps` must be at least 1; got 0"):
        IntegratedGradients(steps=0)
    with pytest.raises(ParameterError, match="`baseline` must be one of zero, mean, blur; got black"):
        unwrap(IntegratedGradients.__init__)(object.__new__(IntegratedGradients), 5, "black")
