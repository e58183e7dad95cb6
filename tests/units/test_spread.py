"""How much units vary over a dissection's images and a clean one: the same by hand, over all values at once."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.made_dissections import made_layer
from whyfooled.units._spread import clean_std


def a_layer(values):
    """Make a layer whose mean and standard deviation are those of values (u,m)."""
    exact = values.double()
    return replace(
        made_layer("a", len(values), 3),
        positions=values.shape[1],
        dead=(values == values[:, :1]).all(1),
        mean=exact.mean(1),
        std=exact.std(1, correction=0),
    )


def test_it_is_that_of_all_values_at_once():
    generator = torch.Generator().manual_seed(0)
    values = 3 + torch.randn(4, 60, generator=generator)
    clean = 5 * torch.randn(4, 3, 2, generator=generator)
    by_hand = torch.cat([values, clean.flatten(1)], 1).double().std(1, correction=0)
    torch.testing.assert_close(clean_std(a_layer(values), clean, floor=0.0), by_hand)


def test_a_unit_that_wakes_in_the_clean_image_is_measured_there():
    values, clean = torch.randn(3, 60, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 2, 2)
    # Unit 0 is silent everywhere; unit 1 but in the clean image; unit 2 gives its one value with a rounding error.
    values[0] = values[1] = 0
    clean[1] = 4.0
    values[2], clean[2] = 0.1, 0.1 + 1e-8
    std = clean_std(a_layer(values), clean)
    share = 4 / 64
    assert std.tolist() == [0, pytest.approx(4 * (share * (1 - share)) ** 0.5), 0]


def test_no_unit_that_varies_has_less_than_half_the_layers():
    values = torch.zeros(4, 60)
    # Unit 0 does next to nothing, once; unit 3 nothing at all.
    values[0, 0] = 1e-3
    values[1, ::2], values[2, ::2] = 2.0, 4.0
    clean = values[:, :4].reshape(4, 2, 2)
    own = torch.cat([values, values[:, :4]], 1).double().std(1, correction=0)
    least = 0.5 * own[:3].square().mean().sqrt()
    assert float(own[1]) < 2 * float(least)
    torch.testing.assert_close(clean_std(a_layer(values), clean), torch.stack([least, *own[1:]]))
    # Whatever the dissection says of a dead unit's spread, it is none.
    made = replace(a_layer(values), std=torch.ones(4).double())
    assert float(clean_std(made, clean)[3]) == 0
