"""Grad-CAM, by hand and against Captum."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import nn
from torchvision import models

from tests.models import SmallNet, small
from tests.oracles import grad_cam_by_hand
from whyfooled import Classifier, GradCAM, count_passes
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


def test_no_hook_stays_behind():
    classifier = small()
    GradCAM()(classifier, torch.rand(1, 3, 16, 16), torch.tensor([0]))
    assert not any(part._forward_hooks for part in classifier.modules())


def test_all_classes_share_one_forward_pass():
    classifier = small()
    with count_passes(classifier) as passes:
        GradCAM()(classifier, torch.rand(2, 3, 16, 16), torch.tensor([[0, 1, 2], [2, 3, 4]]))
    assert passes.forwards == 2


def test_an_unknown_layer_is_named_with_the_nearest():
    with pytest.raises(ParameterError, match="Did you mean second"):
        GradCAM(layer="secnd")(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


def test_a_layer_that_is_not_spatial_is_refused():
    with pytest.raises(MethodError, match="'head'"):
        GradCAM(layer="head")(small(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


def test_a_transformer_without_late_spatial_layers_is_refused():
    torch.manual_seed(0)
    classifier = Classifier(models.vit_b_16(weights=None))
    with pytest.raises(MethodError, match="tokens"):
        GradCAM()(classifier, torch.rand(1, 3, 224, 224), torch.tensor([0]))
