"""SmoothGrad, against closed forms and a plain loop."""

import pytest
import torch

from tests.helpers.models import Cubes, LateStart, linear, small
from whyfooled import (
    Classifier,
    Enhanced,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    count_passes,
)
from whyfooled.errors import ParameterError, WhyfooledWarning
from whyfooled.saliency import _samples
from whyfooled.tensors.randomness import image_generators, normal


def test_the_gradient_of_a_linear_model_does_not_see_the_noise():
    weight = torch.randn(4, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([[1, 3], [0, 2]])
    torch.testing.assert_close(SmoothGrad(samples=3)(linear(weight), x, y), weight[y].view(2, 2, 3, 8, 8))


@pytest.mark.parametrize("base", [Gradient(), GuidedBackprop(), GradCAM(), Enhanced(), IntegratedGradients(steps=3)])
def test_without_noise_it_is_the_base_method(base):
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    classifier, y = small(), torch.tensor([0, 2, 4])
    expected = base(classifier, x, y)
    near = {"rtol": 1e-4, "atol": 1e-5 * float(expected.abs().max())}
    torch.testing.assert_close(SmoothGrad(base, samples=3, noise=0.0)(classifier, x, y), expected, **near)
    far = SmoothGrad(base, samples=3)(classifier, x, y)
    assert (far - expected).norm() > 0.05 * expected.norm()
    close = SmoothGrad(base, samples=3, noise=1e-5)(classifier, x, y)
    assert (close - expected).norm() < 0.2 * (far - expected).norm()


def test_noise_has_the_stated_share_of_the_value_range():
    # The gradient of a sum of cubes is 3x², whose mean under noise is 3(x² + σ²).
    x = torch.full((1, 3, 8, 8), 0.4)
    x[0, 0, 0] = 0.9
    x[0, 1, 0] = 0.1
    classifier = Classifier(Cubes(torch.ones(2, 3 * 8 * 8)), size=(8, 8))
    found = SmoothGrad(samples=400, noise=0.25)(classifier, x, torch.tensor([0]))
    assert float((found / 3 - x**2).mean()) == pytest.approx((0.25 * 0.8) ** 2, rel=0.05)


def test_it_is_the_mean_over_a_plain_loop():
    classifier, x, y = small(), torch.rand(2, 3, 16, 16), torch.tensor([[0, 1], [2, 3]])
    generators = image_generators(x, 5)
    spread = 0.2 * torch.stack([image.max() - image.min() for image in x]).view(2, 1, 1, 1)
    maps = [Gradient()(classifier, x + spread * normal(x, generators), y) for _ in range(5)]
    found = SmoothGrad(samples=5, noise=0.2, seed=5)(classifier, x, y)
    torch.testing.assert_close(found, torch.stack(maps).mean(0), rtol=1e-4, atol=1e-7)


def test_passes_are_counted_and_bounded(monkeypatch):
    classifier, x, y = small(), torch.rand(3, 3, 16, 16), torch.tensor([[0, 1], [2, 3], [0, 4]])
    sizes = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with count_passes(classifier) as passes:
        expected = SmoothGrad(samples=5)(classifier, x, y)
    assert (passes.forwards, passes.backwards) == (15, 30)
    assert sizes == [6, 6, 3]
    handle.remove()
    monkeypatch.setattr(_samples, "AT_ONCE", 100)
    torch.testing.assert_close(SmoothGrad(samples=5)(classifier, x, y), expected, rtol=1e-4, atol=1e-6)


def test_only_a_map_that_is_zero_for_every_sample_is_named():
    x = torch.full((1, 3, 2, 2), 0.3)
    x[0, :, 0, 0] = 0.4
    classifier = Classifier(LateStart(), size=(2, 2))
    assert SmoothGrad(samples=30, noise=0.5)(classifier, x, torch.tensor([0])).any()
    with pytest.warns(WhyfooledWarning, match="that of input-x-gradient is for every noisy version"):
        SmoothGrad(InputXGradient(), samples=5, noise=0.01)(classifier, x, torch.tensor([0]))


def test_bad_parameters_are_named():
    with pytest.raises(ParameterError, match="`samples` must be at least 1; got 0"):
        SmoothGrad(samples=0)
    for noise in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="`noise` must be a share of the image's value range, at least 0"):
            SmoothGrad(noise=noise)
