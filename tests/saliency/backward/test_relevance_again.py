"""Relevance that is differentiated again: finite differences, wherever a rule is at work."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.finite_differences import random, slope_error
from tests.helpers.middles import Middle, maps_of
from tests.helpers.small_transformers import MODELS, classifier_of
from tests.helpers.sums import accumulated, in_slices
from whyfooled import LRP, Classifier, ContrastiveLRP, smooth_activations
from whyfooled.errors import MethodError

SIDE = 8
CLASSES = torch.tensor([[0, 3], [2, 1]])


def in_place(a):
    F.relu(a, inplace=True)
    a.add_(0.1).mul_(2)
    return a.clamp_(min=0)


def gated(a):
    return a * torch.sigmoid(3 * a.relu().mean((2, 3), keepdim=True))


def convolved(a):
    torch.manual_seed(1)
    return nn.Sequential(nn.ReLU(True), nn.Conv2d(16, 16, 3).double(), NORM, nn.ReLU(True))(a)


NORM = nn.BatchNorm2d(16).double().eval()
NORM.running_mean.fill_(0.1)
STEPS = {
    "in place": in_place,
    "cut off": lambda a: F.relu6(4 * a),
    "written out": lambda a: a * (a > 0),
    "written out over itself": lambda a: a.mul_(a > 0),
    "leaky": lambda a: F.leaky_relu(a, 0.1, inplace=True),
    "GELU": F.gelu,
    "SiLU in place": lambda a: F.silu(a, inplace=True),
    "SiLU written out": lambda a: a * torch.sigmoid(1.7 * a),
    "sum": lambda a: a.relu() - a.roll(1, 1),
    "sum in place": lambda a: a.relu().add_(a.roll(1, 1), alpha=2),
    "accumulated": accumulated,
    "in slices": in_slices,
    "batch norm": convolved,
    "batch norm after a sum": lambda a: NORM(a.relu() + a),
    "gate": gated,
    "hard gate": lambda a: a.relu() * F.relu6(a.mean((2, 3), keepdim=True) + 3) / 6,
    "product": lambda a: a.roll(1, 1) * a.relu(),
    "largest of a window": lambda a: F.max_pool2d(a.relu(), 3, 2),
    "mean of a window": lambda a: F.avg_pool2d(a.relu(), 2),
    "group norm": lambda a: F.group_norm(a.relu(), 4),
    "unit length": lambda a: F.normalize(a.relu()),
}
REFUSED = {
    "refused": F.softplus,
}
METHODS = [LRP(bias=True), LRP("epsilon", epsilon=0.1), LRP("alpha-beta", alpha=2.0, first="flat")]
SOME = ("leaky", "in slices", "batch norm", "gate")
CASES = [(step, METHODS[0]) for step in STEPS] + [(step, method) for method in METHODS[1:] for step in SOME]


def check(method, classifier, classes):
    images = random(2, 3, *classifier.size)

    def compute(images, create_graph):
        return method(classifier, images, classes, create_graph=create_graph)

    assert torch.equal(compute(images.clone().requires_grad_(), True), compute(images, False))
    assert slope_error(compute, images, step=1e-6) < 1e-5


def with_middle(step):
    torch.manual_seed(0)
    return Classifier(Middle({**STEPS, **REFUSED}[step]).double(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(SIDE, SIDE))


@pytest.mark.parametrize(("step", "method"), CASES, ids=lambda value: getattr(value, "rule", value))
def test_derivatives_of_relevance_agree_with_finite_differences(step, method):
    check(method, with_middle(step), CLASSES)


def test_smooth_activations_leave_it_as_it_is_and_what_comes_after_smooth():
    classifier, images = with_middle("written out"), random(2, 3, SIDE, SIDE)
    expected = LRP()(classifier, images, CLASSES)
    with smooth_activations(5.0):
        assert torch.equal(LRP()(classifier, images, CLASSES), expected)
        with pytest.raises(MethodError):
            LRP()(with_middle("refused"), images, CLASSES)
        with smooth_activations(1.0):
            assert torch.equal(LRP()(classifier, images.requires_grad_(), CLASSES, create_graph=True), expected)
        torch.testing.assert_close(F.relu(images), F.softplus(images, 5.0))


@pytest.mark.parametrize("attention", ["value", "attnlrp"])
@pytest.mark.parametrize("name", ["ViT, attention written out", "torchvision's ViT", "EVA", "Swin"])
def test_through_attention_whose_weights_are_held(name, attention):
    make, side, _ = MODELS[name]
    # ε, because with nearly none the map has poles where terms of a sum cancel, too close for a finite difference.
    method = LRP(attention=attention, epsilon=0.5)
    check(method, classifier_of(make(), side), torch.tensor([[0, 1], [2, 1]]))


@pytest.mark.parametrize("variant", ["clrp1", "clrp2"])
def test_of_contrastive_relevance_too(variant):
    check(ContrastiveLRP(variant), with_middle("cut off"), CLASSES)


def test_an_activation_in_place_is_one_whether_or_not_its_result_is_taken():
    def statement(a):
        F.silu(a, inplace=True)
        return a

    taken, left = (maps_of(function, LRP()) for function in (F.silu, statement))
    assert torch.equal(taken, left)
