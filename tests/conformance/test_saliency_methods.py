"""What holds for every saliency method, whichever it is."""

import dataclasses
from copy import deepcopy
from functools import cache

import jaxtyping
import pytest
import torch

import whyfooled.saliency
from tests.helpers.models import resnet20, small
from tests.helpers.quick_methods import ATTENDING, QUICK_MAPS, network_for
from tests.helpers.small_transformers import small_vit
from tests.helpers.torchvision_families import build
from whyfooled import Classifier, Enhanced, enhance, load_classifier, smooth_activations
from whyfooled.errors import MethodError, ParameterError
from whyfooled.registry import available, describe, parse
from whyfooled.saliency import METHODS, check_differentiable, differentiable

# The difference of two maps that are nearly equal on a network with random weights, so that single precision leaves it
# too few digits to be compared.
CANCELLING = {"contrastive-lrp"}
# Methods that say that they do not work on a network.
NETWORKS = ("small", "resnet20", "vgg16", "resnet18", "lite0")
REFUSING = {("cam", "vgg16"), *((name, network) for name in ATTENDING for network in NETWORKS)}
# Whose maps are the same for all classes, by their definition.
CLASS_BLIND = {"attention-rollout"}
METHOD = pytest.mark.parametrize("method", QUICK_MAPS, ids=lambda method: method.card.name)
ONE_CLASS = [method for method in QUICK_MAPS if not isinstance(method, Enhanced)]
SINGLE = pytest.mark.parametrize("method", ONE_CLASS, ids=lambda method: method.card.name)


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))


CLASSES = torch.tensor([0, 1, 2, 3])


def test_every_method_of_the_package_is_in_the_list():
    public = {
        value for value in vars(whyfooled.saliency).values() if isinstance(value, type) and hasattr(value, "card")
    }
    assert public == set(METHODS)
    assert {method.card.name for method in METHODS} <= set(available("saliency"))


@METHOD
def test_it_is_a_frozen_dataclass_that_describes_itself(method):
    assert dataclasses.is_dataclass(method)
    assert type(method).__dataclass_params__.frozen
    card = type(method).card
    assert all([card.name, card.title, card.summary.endswith("."), card.source, card.cost])
    assert parse("saliency", describe(method)) == method


@METHOD
def test_maps_have_the_images_size_and_dtype(method, images):
    maps = method(network_for(method), images, CLASSES)
    assert maps.shape in ((4, 3, 16, 16), (4, 1, 16, 16))
    assert maps.dtype == images.dtype
    assert torch.isfinite(maps).all()
    assert not maps.requires_grad


@METHOD
def test_the_same_call_gives_the_same_maps(method, images):
    classifier = network_for(method)
    assert torch.equal(method(classifier, images, CLASSES), method(classifier, images, CLASSES))


@METHOD
def test_a_map_does_not_depend_on_the_batch(method, images):
    classifier = network_for(method)
    together = method(classifier, images, CLASSES)
    order = torch.tensor([2, 0])
    apart = method(classifier, images[order], CLASSES[order])
    torch.testing.assert_close(apart, together[order], rtol=1e-4, atol=1e-5 * float(together.abs().max()))


@METHOD
def test_a_shift_of_all_logits_changes_nothing(method, images):
    plain, shifted = network_for(method), network_for(method)
    with torch.no_grad():
        shifted.module.head.bias.add_(3)
    expected = method(plain, images, CLASSES)
    # Some methods subtract logits, and these are rounded more coarsely where they are larger.
    atol = 1e-6 + 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(method(shifted, images, CLASSES), expected, rtol=1e-4, atol=atol)


@METHOD
def test_images_and_model_are_left_as_they_were(method, images):
    classifier = network_for(method)
    given, weights = images.clone(), {key: value.clone() for key, value in classifier.state_dict().items()}
    classifier.module.train()
    method(classifier, images, CLASSES)
    assert torch.equal(images, given)
    assert not images.requires_grad
    assert classifier.module.training
    assert all(torch.equal(weights[key], value) for key, value in classifier.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in classifier.module.parameters())
    assert not any(part._forward_hooks or part._backward_hooks for part in classifier.modules())


@METHOD
def test_it_works_where_gradients_are_switched_off(method, images):
    expected = method(network_for(method), images, CLASSES)
    with torch.no_grad():
        assert torch.equal(method(network_for(method), images, CLASSES), expected)


@METHOD
def test_a_class_out_of_range_is_refused(method, images):
    with pytest.raises(ParameterError, match="from 0 to 4"):
        method(network_for(method), images, torch.tensor([0, 1, 2, 5]))


@METHOD
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_classes_that_are_no_whole_numbers_are_refused(method, images, dtype, monkeypatch):
    # As users have it, without these tests' own check of every argument's type.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError) as caught:
        method(network_for(method), images, CLASSES.to(dtype))
    assert str(caught.value) == (
        f"`classes` must be class indices, whole numbers; got {dtype}. "
        "If that is what they are, convert them: classes.long()."
    )


@SINGLE
def test_several_classes_at_once_are_as_good_as_one_by_one(method, images):
    classifier = network_for(method)
    many = torch.stack([CLASSES, CLASSES + 1], dim=1)
    together = method(classifier, images, many)
    for k in range(2):
        expected = method(classifier, images, many[:, k])
        torch.testing.assert_close(together[:, k], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@SINGLE
def test_it_can_be_enhanced(method, images):
    classifier = network_for(method)
    both = method(classifier, images, torch.stack([CLASSES, CLASSES + 1], dim=1))
    for norm in ("channel", "energy", "max"):
        maps = Enhanced(method, norm)(classifier, images, CLASSES, contrast=CLASSES + 1)
        assert torch.equal(maps, enhance(both[:, 0], both[:, 1], norm))
        assert bool(maps.any()) != (method.card.name in CLASS_BLIND)


DIFFERENTIABLE = [method for method in QUICK_MAPS if differentiable(method)]
TWICE = pytest.mark.parametrize("method", DIFFERENTIABLE, ids=lambda method: method.card.name)
ONCE = pytest.mark.parametrize(
    "method", [method for method in QUICK_MAPS if method not in DIFFERENTIABLE], ids=lambda method: method.card.name
)


@METHOD
def test_maps_carry_no_graph_unless_it_is_asked_for(method, images):
    plain = method(network_for(method), images, CLASSES)
    maps = method(network_for(method), images.requires_grad_(), CLASSES)
    assert not maps.requires_grad
    assert torch.equal(maps, plain)
    assert images.grad is None


@TWICE
def test_a_differentiable_map_has_the_same_values_and_leaves_the_model_alone(method, images):
    assert check_differentiable(method) is method
    classifier, before = small(), images.clone()
    expected, state_before = method(classifier, images, CLASSES), state(classifier)
    maps = method(classifier, images.requires_grad_(), CLASSES, create_graph=True)
    assert torch.equal(maps, expected)
    (change,) = torch.autograd.grad(maps.square().sum(), images)
    assert torch.isfinite(change).all()
    assert state(classifier) == state_before
    assert torch.equal(images, before)
    assert images.grad is None


@TWICE
def test_the_derivative_of_a_smooth_map_is_there_and_does_not_depend_on_the_batch(method, images):
    classifier, images = small().double(), images.double()

    def change(images, classes):
        images = images.requires_grad_()
        with smooth_activations(10):
            maps = method(classifier, images, classes, create_graph=True)
        return torch.autograd.grad(maps.square().sum(), images)[0]

    together = change(images, CLASSES)
    assert together.flatten(1).any(1).all()
    order = torch.tensor([2, 0])
    apart = change(images.detach()[order], CLASSES[order])
    torch.testing.assert_close(apart, together[order], rtol=1e-6, atol=1e-8 * float(together.abs().max()))


@ONCE
def test_a_method_that_is_not_differentiable_says_so(method, images):
    with pytest.raises(MethodError) as error:
        check_differentiable(method)
    names = ", ".join(one.card.name for one in DIFFERENTIABLE)
    start = f"The maps of {describe(method)} cannot be differentiated with respect to the image; take {names}"
    assert str(error.value).startswith(start)
    with pytest.raises(TypeError, match="create_graph"):
        method(network_for(method), images.requires_grad_(), CLASSES, create_graph=True)


@cache
def model(name):
    """Make a classifier, and two images for it."""
    if name == "lite0":
        classifier = load_classifier()
    elif name in ("small", "resnet20", "vit"):
        classifier = {"small": small, "resnet20": resnet20, "vit": small_vit}[name]()
    else:
        classifier = Classifier(build(name), (0.5,) * 3, (0.25,) * 3, (64, 64))
    side = {"small": 16, "resnet20": 32, "vit": 16}.get(name, 64)
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return classifier, torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


def mapped(method, classifier, images):
    """Compute the maps of classes 1 and 3, (n,2,d,h,w)."""
    classes = torch.tensor([[1, 3]]).expand(len(images), 2)
    if isinstance(method, Enhanced):
        return torch.stack([method(classifier, images, some) for some in classes.unbind(1)], dim=1)
    return method(classifier, images, classes)


@cache
def maps_on(method, name):
    return mapped(method, *model(name))


def state(classifier):
    """Tell what must not change: values (by their version), gradients, flags, modes and hooks."""
    tensors = [*classifier.parameters(), *classifier.buffers()]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        [(id(one), one._version, one.grad, one.requires_grad) for one in tensors],
        [(part.training, *(len(getattr(part, name)) for name in hooks)) for part in classifier.modules()],
    )


PAIRS = [(method, name) for method in QUICK_MAPS for name in NETWORKS]
PAIRS += [(method, "vit") for method in QUICK_MAPS if method.card.name in ATTENDING]
WORKING = [pair for pair in PAIRS if (pair[0].card.name, pair[1]) not in REFUSING]


def named(pairs):
    return {"argvalues": pairs, "ids": [f"{name}-{method.card.name}" for method, name in pairs]}


@pytest.mark.parametrize(("method", "name"), **named([pair for pair in PAIRS if pair not in WORKING]))
def test_a_refusal_says_why_and_leaves_the_model_alone(method, name):
    classifier, _ = model(name)
    before = state(classifier)
    with pytest.raises(MethodError, match=rf"^{method.card.title} .*\. Use "):
        maps_on(method, name)
    assert state(classifier) == before


@pytest.mark.parametrize(("method", "name"), **named(WORKING))
class TestOnModels:
    def test_maps_have_the_images_size_and_leave_the_model_alone(self, method, name):
        classifier, images = model(name)
        before = state(classifier)
        maps = maps_on(method, name)
        assert state(classifier) == before
        assert maps.shape in ((2, 2, 3, *images.shape[-2:]), (2, 2, 1, *images.shape[-2:]))
        assert torch.isfinite(maps).all()
        assert maps.dtype == images.dtype

    def test_a_map_does_not_depend_on_the_batch(self, method, name):
        classifier, images = model(name)
        if method.card.name in CANCELLING:
            classifier, images = deepcopy(classifier).double(), images.double()
        together = mapped(method, classifier, images)[1]
        alone = mapped(method, classifier, images[1:])[0]
        torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4 * float(together.abs().max()))

    def test_maps_of_two_classes_differ(self, method, name):
        first, second = maps_on(method, name).unbind(1)
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one, other) == (method.card.name in CLASS_BLIND)
            assert method.card.name in CLASS_BLIND or (one - other).norm() > 0.01 * one.norm()

    def test_a_class_out_of_range_is_refused(self, method, name):
        classifier, images = model(name)
        with pytest.raises(ParameterError, match="`classes` must be class indices from 0 to"):
            method(classifier, images[:1], torch.tensor([1000]))
