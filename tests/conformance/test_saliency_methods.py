"""What holds for every saliency method, whichever it is."""

import dataclasses

import pytest
import torch

import whyfooled.saliency
from tests.models import small
from whyfooled import Enhanced
from whyfooled.errors import ParameterError
from whyfooled.registry import available, describe, parse
from whyfooled.saliency import METHODS

EVERY = [method() for method in METHODS]
METHOD = pytest.mark.parametrize("method", EVERY, ids=lambda method: method.card.name)
SINGLE = pytest.mark.parametrize("method", [m for m in EVERY if not isinstance(m, Enhanced)], ids=lambda m: m.card.name)


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
    maps = method(small(), images, CLASSES)
    assert maps.shape in ((4, 3, 16, 16), (4, 1, 16, 16))
    assert maps.dtype == images.dtype
    assert torch.isfinite(maps).all()
    assert not maps.requires_grad


@METHOD
def test_the_same_call_gives_the_same_maps(method, images):
    classifier = small()
    assert torch.equal(method(classifier, images, CLASSES), method(classifier, images, CLASSES))


@METHOD
def test_a_map_does_not_depend_on_the_batch(method, images):
    classifier = small()
    together = method(classifier, images, CLASSES)
    order = torch.tensor([2, 0])
    apart = method(classifier, images[order], CLASSES[order])
    torch.testing.assert_close(apart, together[order], rtol=1e-4, atol=1e-5 * float(together.abs().max()))


@METHOD
def test_a_shift_of_all_logits_changes_nothing(method, images):
    plain, shifted = small(), small()
    with torch.no_grad():
        shifted.module.head.bias.add_(3)
    expected = method(plain, images, CLASSES)
    # Some methods subtract logits, and these are rounded more coarsely where they are larger.
    atol = 1e-6 + 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(method(shifted, images, CLASSES), expected, rtol=1e-4, atol=atol)


@METHOD
def test_images_and_model_are_left_as_they_were(method, images):
    classifier = small()
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
    expected = method(small(), images, CLASSES)
    with torch.no_grad():
        assert torch.equal(method(small(), images, CLASSES), expected)


@METHOD
def test_a_class_out_of_range_is_refused(method, images):
    with pytest.raises(ParameterError, match="from 0 to 4"):
        method(small(), images, torch.tensor([0, 1, 2, 5]))


@SINGLE
def test_several_classes_at_once_are_as_good_as_one_by_one(method, images):
    classifier = small()
    many = torch.stack([CLASSES, CLASSES + 1], dim=1)
    together = method(classifier, images, many)
    for k in range(2):
        expected = method(classifier, images, many[:, k])
        torch.testing.assert_close(together[:, k], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
