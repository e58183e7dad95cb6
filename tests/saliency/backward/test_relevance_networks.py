"""Relevance on the networks that people use: all of torchvision's families, and a network for small images."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.torchvision_families import REFUSED, RULED, SIDES, build
from whyfooled import LRP, Classifier, ContrastiveLRP, load_classifier
from whyfooled.images import example_photograph


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*RULED, *REFUSED])
def test_every_torchvision_family_has_finite_relevance(name):
    side = SIDES.get(name, 64)
    classifier = Classifier(build(name), size=(side, side))
    maps = LRP()(classifier, torch.rand(1, 3, side, side), torch.tensor([[3, 4]]))
    assert torch.isfinite(maps).all()
    assert maps.flatten(2).any(2).all()


# Without biases but in the last layer, or with biases of 0, nothing is lost: whatever the network is made of.
@pytest.mark.parametrize("name", ["vgg11", "resnet18", "densenet121", "squeezenet1_1", "regnet_y_400mf"])
def test_an_untrained_network_keeps_the_logit(name):
    module = build(name).double()
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
    classifier = Classifier(module, (0.5,) * 3, (0.25,) * 3, (64, 64)).double()
    x, y = torch.rand(1, 3, 64, 64, dtype=torch.float64), torch.tensor([[3, 4]])
    assert LRP().leak(classifier, x, y).abs().max() < 0.01


class Block(nn.Module):
    """ReLUs as functions, and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, before, after):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, after // before, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        self.stride, self.grown = after // before, after - before

    def forward(self, x):
        y = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.grown // 2, self.grown - self.grown // 2))
        return F.relu(y + x)


class SmallResNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(Block(*widths) for widths in ((16, 16), (16, 16), (16, 32), (32, 32), (32, 64))))
        self.head = nn.Linear(64, 10)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def test_a_network_for_small_images_keeps_the_logit():
    classifier = Classifier(SmallResNet(), (0.5,) * 3, (0.25,) * 3, (32, 32))
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    for method in (LRP(), LRP("alpha-beta"), LRP("epsilon")):
        assert method.leak(classifier, x, y).abs().max() < 0.01


@pytest.fixture(scope="module")
def bundled():
    return load_classifier()


def test_the_bundled_classifier_has_maps_and_a_leak(bundled):
    x = bundled.prepare(example_photograph())
    y = bundled.predict(x)
    maps = LRP()(bundled, x, y)
    assert (maps >= 0).all()
    leak = LRP().leak(bundled, x, y)
    torch.testing.assert_close(1 - maps.sum((1, 2, 3)) / bundled.logits(x)[0, y], leak, rtol=1e-3, atol=0)
    # Depthwise convolutions have neurons that are active by their bias alone.
    assert 0.5 < leak < 1


@pytest.mark.parametrize("variant", ["clrp1", "clrp2"])
def test_contrastive_maps_of_the_bundled_classifier_differ_between_classes(bundled, variant):
    x = bundled.prepare(example_photograph())
    y = bundled.logits(x).topk(2).indices
    plain = torch.cosine_similarity(*LRP("alpha-beta")(bundled, x, y)[0].flatten(1), dim=0)
    contrastive = torch.cosine_similarity(*ContrastiveLRP(variant)(bundled, x, y)[0].flatten(1), dim=0)
    assert contrastive < plain
