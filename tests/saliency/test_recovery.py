"""Recovery, against classifiers whose answer is known for every pixel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.models import small
from whyfooled import Classifier, recovery_curve
from whyfooled.errors import ParameterError
from whyfooled.saliency.recovery import random_maps, shifted_maps
from whyfooled.tensors.fills import FILLS, blurred


class Patch(nn.Module):
    """Class 1 as long as the pixel at (2, 3) is brighter than 0.5, else class 0."""

    def forward(self, x):
        bright = x[:, :, 2, 3].mean(1) - 0.5
        return torch.stack([torch.zeros_like(bright), 100 * bright], dim=1)


def patch():
    return Classifier(Patch(), size=(10, 10))


def map_with_order(first):
    """Rank one pixel first, and all others behind it."""
    maps = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    maps[0, :, first[0], first[1]] = 5
    return maps


def test_removing_the_pixel_that_matters_brings_the_answer_back():
    image, true = torch.ones(1, 3, 10, 10), torch.tensor([0])
    found = recovery_curve(patch(), image, true, map_with_order((2, 3)), fractions=[0.0, 0.01, 0.5])
    assert found.recovered.tolist() == [[False, True, True]]
    assert found.probability[0, 0] < 0.01
    assert found.probability[0, 1] > 0.99
    torch.testing.assert_close(found.mean, torch.tensor([2 / 3]))
    last = recovery_curve(patch(), image, true, -map_with_order((2, 3)), fractions=[0.5, 0.99, 1.0])
    assert last.recovered.tolist() == [[False, False, True]]


def test_saliency_is_summed_over_channels():
    image = torch.ones(1, 3, 10, 10)
    maps = torch.zeros(1, 3, 10, 10)
    maps[0, :, 2, 3] = torch.tensor([2.0, 2.0, 2.0])
    maps[0, 0, 5, 5] = 5.0
    found = recovery_curve(patch(), image, torch.tensor([0]), maps, fractions=[0.01, 0.02])
    assert found.recovered.tolist() == [[True, True]]


def test_equally_salient_pixels_are_ranked_at_random():
    # With ties in reading order the pixel (2, 3) would go among the first quarter in every image.
    images = torch.rand(300, 3, 10, 10, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.6
    found = recovery_curve(
        patch(), images, torch.zeros(300, dtype=torch.int64), torch.zeros(300, 1, 10, 10), fractions=[0.25, 0.5]
    )
    share = found.recovered.float().mean(0)
    assert 0.17 < share[0] < 0.33
    assert 0.41 < share[1] < 0.59


def test_fills_are_what_they_say():
    image = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return x.flatten(1)[:, :2] + 2

    for fill in FILLS:
        recovery_curve(
            Classifier(Spy(), size=(10, 10)), image, torch.tensor([0]), random_maps(image), fractions=[1.0], fill=fill
        )
    zero, mean, noise, blur = seen
    assert not zero.any()
    torch.testing.assert_close(mean, image.mean((2, 3), keepdim=True).expand_as(image))
    assert noise.min() >= 0
    assert noise.max() <= 1
    assert noise.std() > 0.2
    torch.testing.assert_close(blur, blurred(image, 0.5))


@pytest.mark.parametrize("fill", FILLS)
def test_an_image_does_not_depend_on_its_batch(fill):
    classifier = small()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    true, maps = classifier.predict(images), random_maps(images)
    together = recovery_curve(classifier, images, true, maps, fill=fill, batch_size=3)
    apart = recovery_curve(classifier, images[[4, 1]], true[[4, 1]], maps[[4, 1]], fill=fill)
    torch.testing.assert_close(apart.probability, together.probability[[4, 1]], rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_only_the_order_of_a_map_matters(scale, shift):
    classifier = small()
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    maps = torch.linspace(-1, 1, 256)[torch.randperm(256, generator=torch.Generator().manual_seed(1))].view(
        1, 1, 16, 16
    )
    true = classifier.predict(image)
    expected = recovery_curve(classifier, image, true, maps).probability
    assert torch.equal(recovery_curve(classifier, image, true, scale * maps + shift).probability, expected)


def test_the_table_has_a_row_for_each_image_and_share():
    classifier, images = small(), torch.rand(2, 3, 16, 16)
    frame = recovery_curve(
        classifier, images, torch.tensor([0, 1]), random_maps(images), fractions=[0.1, 0.3]
    ).to_frame()
    assert frame["image"].tolist() == [0, 0, 1, 1]
    assert frame["fraction"].tolist() == [0.1, 0.3, 0.1, 0.3]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"fractions": [1.5]}, "`fractions` must be shares of the pixels"),
        ({"fractions": []}, "`fractions` must be shares of the pixels"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
    ],
)
def test_bad_arguments_are_named(bad, message):
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(ParameterError, match=message):
        recovery_curve(small(), image, torch.tensor([0]), random_maps(image), **bad)


def test_shifted_maps_are_the_map_elsewhere():
    image = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    maps = torch.arange(35.0).view(1, 1, 5, 7)
    shifted = shifted_maps(maps, image, 200, seed=1)
    assert shifted.shape == (200, 1, 5, 7)
    every = {tuple(maps.roll((row, column), (2, 3)).flatten().tolist()) for row in range(5) for column in range(7)}
    found = {tuple(one.flatten().tolist()) for one in shifted}
    # All places but its own.
    assert found == every - {tuple(maps.flatten().tolist())}
    assert torch.equal(shifted_maps(maps, image, 3, seed=1), shifted[:3])
    assert not torch.equal(shifted_maps(maps, image, 3, seed=2), shifted[:3])
