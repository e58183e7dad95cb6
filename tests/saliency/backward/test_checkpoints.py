"""Checkpointed, scripted and cut-off models: the map of the plain one, or a sentence that says what to do."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from whyfooled import LRP, Classifier, Deconvnet, DeepLIFT, GradCAM, Gradient, GuidedBackprop, IntegratedGradients
from whyfooled.errors import MethodError, ModelError


class Network(nn.Module):
    """A part of it is checkpointed, by either way or not at all."""

    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 8, 3)
        self.part = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 5)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        x = self.part(x) if self.reentrant is None else checkpoint(self.part, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


IMAGES, CLASSES = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([1])


def maps_of(reentrant, method):
    return method(Classifier(Network(reentrant).eval(), size=(16, 16)), IMAGES, CLASSES)


GRADIENTS = pytest.mark.parametrize(
    "method", [Gradient(), IntegratedGradients(steps=2)], ids=lambda method: method.card.name
)


@GRADIENTS
def test_a_gradient_is_right_behind_a_checkpoint(method):
    torch.testing.assert_close(maps_of(False, method), maps_of(None, method))


@GRADIENTS
def test_a_reentrant_checkpoint_is_named(method):
    with pytest.raises(ModelError, match=r"re-entrant checkpoint.* use_reentrant=False, or switch checkpoints off\."):
        maps_of(True, method)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "method", [GuidedBackprop(), Deconvnet(), LRP(), DeepLIFT()], ids=lambda method: method.card.name
)
def test_a_rule_cannot_hold_in_a_checkpoint(method, reentrant):
    with pytest.raises(MethodError, match=r"checkpointed.* Give the .*without checkpoints"):
        maps_of(reentrant, method)


def test_grad_cam_is_right_behind_a_checkpoint():
    torch.testing.assert_close(maps_of(False, GradCAM("first")), maps_of(None, GradCAM("first")))


class Nested(nn.Module):
    """A scripted part in a plain model."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.head, self.part = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), part

    def forward(self, x):
        return self.head(self.part(self.first(x).relu()).mean((2, 3)))


class Rectifying(nn.Module):
    def forward(self, a):
        return a * (a > 0)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_has_gradients_and_no_rules(whole):
    module = Nested(Rectifying())
    scripted = torch.jit.script(module) if whole else Nested(torch.jit.script(Rectifying()))
    plain, classifier = (Classifier(each.eval(), size=(16, 16)) for each in (module, scripted))
    torch.testing.assert_close(Gradient()(classifier, IMAGES, CLASSES), Gradient()(plain, IMAGES, CLASSES))
    for method in (GuidedBackprop(), Deconvnet(), LRP(), DeepLIFT()):
        with pytest.raises(MethodError, match=r"scripted.* Give the plain Python module"):
            method(classifier, IMAGES, CLASSES)


class Detached(Network):
    """Its logits have a gradient, but none that leads to the image."""

    def forward(self, x):
        return self.head(self.part(self.first(x.detach())).mean((2, 3)))


@pytest.mark.parametrize("method", [Gradient(), GuidedBackprop(), DeepLIFT()], ids=lambda method: method.card.name)
def test_logits_without_a_gradient_at_the_image_are_named(method):
    with pytest.raises(ModelError, match="do not depend on the images by operations that have a gradient"):
        method(Classifier(Detached(None).eval(), size=(16, 16)), IMAGES, CLASSES)
