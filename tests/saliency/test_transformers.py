"""Gradients, guided and enhanced maps of transformers, and their derivatives, without a special option."""

import pytest
import torch

from tests.helpers.small_transformers import MODELS, classifier_of, random
from whyfooled import Enhanced, GradCAM, Gradient, GuidedBackprop, smooth_activations
from whyfooled.universal import UPIGrad


@pytest.mark.parametrize("method", [Gradient(), Enhanced()], ids=lambda method: method.card.name)
@pytest.mark.parametrize("name", ["ViT", "torchvision's ViT", "EVA", "Swin", "ConvNeXt", "MLP-Mixer"])
def test_derivatives_of_maps_agree_with_finite_differences(name, method):
    make, side, _ = MODELS[name]
    classifier, images, classes = classifier_of(make(), side), random(2, 3, side, side), torch.tensor([0, 1])
    contrast = {"contrast": torch.tensor([1, 2])} if isinstance(method, Enhanced) else {}
    weights, direction = random(*images.shape, seed=4) - 0.5, random(*images.shape, seed=3) - 0.5

    def total(given, **options):
        with smooth_activations(10):
            return (method(classifier, given, classes, **contrast, **options) * weights).sum()

    leaf, step = images.clone().requires_grad_(), 1e-6
    (slope,) = torch.autograd.grad(total(leaf, create_graph=True), leaf)
    expected = float(total(images + step * direction) - total(images - step * direction)) / (2 * step)
    assert expected != 0
    assert float((slope * direction).sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_grad_cam_finds_a_layer(name):
    make, side, _ = MODELS[name]
    classes = torch.tensor([[0, 1, 2]]).expand(2, 3)
    assert GradCAM()(classifier_of(make(), side), random(2, 3, side, side), classes).flatten(1).any(1).all()


@pytest.mark.parametrize("name", ["ViT", "Swin", "MLP-Mixer"])
def test_a_universal_perturbation_is_fitted(name):
    make, side, _ = MODELS[name]
    classifier = classifier_of(make(), side).float()
    found = UPIGrad(epsilon=1.0, passes=1).fit(
        classifier, (random(4, 3, side, side).float(), torch.tensor([0, 1, 2, 0])), GuidedBackprop()
    )
    assert float(found.delta.norm()) == pytest.approx(1.0, rel=1e-3)
