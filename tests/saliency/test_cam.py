"""Grad-CAM, by hand and against Captum."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedGradCam, LayerGradCam
from torch import nn
from torchvision import models

from tests.helpers.models import SmallNet, small
from tests.helpers.oracles import grad_cam_by_hand, grad_cam_plus_plus_by_derivatives
from whyfooled import CAM, Classifier, GradCAM, GradCAMPlusPlus, GuidedBackprop, GuidedGradCAM, count_passes
from whyfooled.errors import MethodError, ParameterError


class Pooled(nn.Module):
    """SmallNet with its last ReLU as a module, so that it can be named."""

    def __init__(self):
        super().__init__()
        net = SmallNet()
        self.features = nn.Sequential(net.first, nn.ReLU(), net.second, nn.ReLU())
        self.head = net.head

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def test_it_is_the_definition_for_a_pooled_linear_head():
    module, x = Pooled().double(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    found = GradCAM()(Classifier(module, size=(16, 16)), x, torch.tensor([[0, 1], [2, 3]]))
    assert found.shape == (2, 2, 1, 16, 16)
    with torch.no_grad():
        features = module.features(x)
        for i in range(2):
            for k, cls in enumerate([[0, 1], [2, 3]][i]):
                cam = grad_cam_by_hand(features[i], module.head, cls)
                expected = F.interpolate(cam[None, None], size=(16, 16), mode="bilinear")[0]
                torch.testing.assert_close(found[i, k], expected)


def test_it_equals_captums_at_the_same_layer():
    torch.manual_seed(0)
    module = models.resnet18(weights=None).eval()
    x, y = torch.rand(2, 3, 96, 96), torch.tensor([1, 7])
    cam = LayerGradCam(module, module.layer4).attribute(x, target=y, relu_attributions=True)
    theirs = F.interpolate(cam, size=(96, 96), mode="bilinear")
    for method in (GradCAM(layer="layer4"), GradCAM()):
        torch.testing.assert_close(method(Classifier(module), x, y), theirs.detach(), rtol=1e-4, atol=1e-6)


class Spread(nn.Module):
    """Features whose places have weights of their own, so that gradients differ from place to place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


def test_grad_cam_plus_plus_is_its_definition_by_derivatives():
    module, x = Spread().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    classes = torch.tensor([[0, 1], [2, 0]])
    found = GradCAMPlusPlus(layer="features")(Classifier(module, size=(8, 8)), x, classes)
    features = module.features(x).detach()
    for i in range(2):
        for k in range(2):
            cls = int(classes[i, k])
            cam = grad_cam_plus_plus_by_derivatives(features[i], lambda a, cls=cls: module.head(a.flatten())[cls])
            expected = F.interpolate(cam[None, None], size=(8, 8), mode="bilinear")[0]
            assert expected.any()
            torch.testing.assert_close(found[i, k], expected)


def test_grad_cam_plus_plus_is_zero_where_the_gradient_is():
    module = Pooled()
    with torch.no_grad():
        module.head.weight[1] = 0
    assert not GradCAMPlusPlus()(Classifier(module), torch.rand(1, 3, 16, 16), torch.tensor([1])).any()


def test_guided_grad_cam_equals_captums():
    torch.manual_seed(0)
    module = models.resnet18(weights=None).eval()
    x, y = torch.rand(2, 3, 64, 64), torch.tensor([1, 7])
    theirs = GuidedGradCam(module, module.layer3).attribute(x.clone().requires_grad_(), y, interpolate_mode="bilinear")
    found = GuidedGradCAM(layer="layer3")(Classifier(module), x, y)
    torch.testing.assert_close(found, theirs.detach(), rtol=1e-4, atol=1e-5 * float(found.abs().max()))


def test_guided_grad_cam_is_a_product():
    classifier, x, y = small(), torch.rand(2, 3, 16, 16), torch.tensor([[0, 1], [2, 3]])
    product = GuidedBackprop()(classifier, x, y) * GradCAM()(classifier, x, y)
    assert torch.equal(GuidedGradCAM()(classifier, x, y), product)


@pytest.mark.parametrize("method", [CAM(), GradCAM(), GradCAMPlusPlus(), GuidedGradCAM()])
@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_of_no_images_there_are_no_maps(method, shape):
    maps = method(small(), torch.zeros(0, 3, 16, 16), torch.zeros(shape, dtype=torch.int64))
    assert maps.shape[: len(shape)] == shape
    assert maps.shape[-2:] == (16, 16)


def test_no_hook_stays_behind():
    classifier = small()
    GradCAM()(classifier, torch.rand(1, 3, 16, 16), torch.tensor([0]))
    assert not any(part._forward_hooks for part in classifier.modules())


def test_all_classes_share_one_forward_pass():
    classifier = small()
    with count_passes(classifier) as passes:
        GradCAM()(classifier, torch.rand(2, 3, 16, 16), torch.tensor([[0, 1, 2], [2, 3, 4]]))
    assert passes.forwards == 2


@pytest.mark.parametrize("method", [GradCAM, GradCAMPlusPlus, GuidedGradCAM])
def test_an_unknown_layer_is_named_with_the_nearest(method):
    with pytest.raises(ParameterError, match="Did you mean second"):
        method(layer="secnd")(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


def test_a_layer_that_is_not_spatial_is_refused():
    with pytest.raises(MethodError, match="'head'"):
        GradCAM(layer="head")(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


def test_a_transformer_without_late_spatial_layers_is_refused():
    torch.manual_seed(0)
    classifier = Classifier(models.vit_b_16(weights=None))
    with pytest.raises(MethodError, match="tokens"):
        GradCAM()(classifier, torch.rand(1, 3, 224, 224), torch.tensor([0]))
