"""Randomness that belongs to an image and not to its place in a batch."""

from __future__ import annotations

import pytest
import torch

from whyfooled.tensors.randomness import add_noise, image_generators, normal, uniform


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[uniform, normal], ids=["uniform", "normal"])
def draw(request):
    """Draw for every image of a batch, with a seed."""
    return lambda images, seed=0: request.param(images, image_generators(images, seed))


def test_an_image_alone_gets_the_numbers_it_gets_in_a_batch(images, draw):
    together = draw(images)
    alone = torch.cat([draw(images[place : place + 1]) for place in range(len(images))])
    assert torch.equal(alone, together)


def test_an_image_gets_the_same_numbers_at_any_place(images, draw):
    order = [2, 0, 3, 1]
    assert torch.equal(draw(images[order]), draw(images)[order])


def test_an_image_gets_the_same_numbers_in_any_memory_format(images, draw):
    assert torch.equal(draw(images.to(memory_format=torch.channels_last)), draw(images))


def test_different_images_get_different_numbers(images, draw):
    changed = images[:1].clone()
    changed[0, 2, 7, 7] += 1e-3
    drawn = draw(torch.cat([images, changed])).flatten(1)
    assert len(drawn.unique(dim=0)) == 5


def test_the_same_image_twice_gets_the_same_numbers_twice(images, draw):
    drawn = draw(images[[1, 1]])
    assert torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("seed", [1, -1, 2**63 - 1, -(2**63)])
def test_another_seed_gives_other_numbers(images, draw, seed):
    usual, other = draw(images), draw(images, seed)
    assert not any(torch.equal(usual[place], other[place]) for place in range(len(images)))
    assert torch.equal(draw(images, seed), other)


def test_a_generator_goes_on_after_each_draw(images):
    generators = image_generators(images, 0)
    assert not torch.equal(uniform(images, generators), uniform(images, generators))


def test_the_global_random_state_is_neither_used_nor_changed(images, draw):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draw(images), first)


def test_uniform_values_fill_the_range_from_0_to_1():
    images = torch.zeros(1, 3, 64, 64)
    drawn = uniform(images, image_generators(images, 0))
    assert 0 <= drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)


def test_normal_values_have_mean_0_and_variance_1():
    images = torch.zeros(1, 3, 64, 64)
    drawn = normal(images, image_generators(images, 0))
    assert drawn.mean().item() == pytest.approx(0, abs=0.04)
    assert drawn.var().item() == pytest.approx(1, abs=0.06)


def test_the_values_have_the_images_precision(images, draw):
    assert draw(images.double()).dtype == torch.float64
    assert draw(images.double()).shape == images.shape


def test_noise_has_its_length_after_it_was_clipped(images):
    for image in (images[:1], torch.ones(1, 3, 8, 8), (images[:1] > 0.5).float()):
        noisy = add_noise(image, 0.7, 3)
        assert float((noisy - image).norm()) == pytest.approx(0.7, rel=1e-4)
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert torch.equal(noisy, add_noise(image, 0.7, 3))
        assert not torch.equal(noisy, add_noise(image, 0.7, 4))


def test_noise_that_stays_inside_is_not_bent():
    grey = torch.full((1, 3, 8, 8), 0.5)
    drawn = normal(grey, image_generators(grey, 3))
    torch.testing.assert_close(add_noise(grey, 0.1, 3) - grey, 0.1 * drawn / drawn.norm(), atol=1e-6, rtol=1e-5)


def test_noise_that_does_not_fit_is_as_long_as_it_can_be():
    grey = torch.full((1, 3, 8, 8), 0.5)
    noisy = add_noise(grey, 100.0, 3)
    assert float((noisy - grey).norm()) == pytest.approx(0.5 * (3 * 64) ** 0.5, rel=1e-2)
