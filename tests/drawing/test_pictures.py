"""Pictures: their scales, and what they show of a value."""

import re

import numpy as np
import torch

from whyfooled.drawing.html import load_template
from whyfooled.drawing.pictures import (
    Scale,
    draw_delta,
    draw_heat,
    draw_map,
    draw_signed_layer,
    magnification,
    scale_of,
)


def test_a_row_has_one_scale_of_its_strongest_values():
    maps = torch.zeros(2, 2, 1, 10, 10)
    maps[0, 0, 0, 0, :3] = torch.tensor([3.0, 7.0, 5.0])
    # 400 values: the 0.5 % that are drawn alike are two.
    assert scale_of(maps) == Scale(end=5.0, signed=False)
    assert scale_of(-maps) == Scale(end=5.0, signed=True)
    assert scale_of(torch.zeros(1, 1, 4, 4)).end == 1


def test_a_single_strong_pixel_still_has_a_scale():
    maps = torch.zeros(1, 100, 100)
    maps[0, 3, 3] = 2
    assert scale_of(maps).end == 2


def test_values_beyond_the_scale_look_like_its_end():
    scale = Scale(end=2.0, signed=False)
    picture = np.asarray(draw_map(torch.tensor([[[0.0, 2.0, 9.0, -1.0]]]), scale))
    assert picture.shape == (1, 4, 3)
    assert (picture[0, 1] == picture[0, 2]).all()
    assert (picture[0, 0] == picture[0, 3]).all()
    assert picture[0, 1].sum() > picture[0, 0].sum()


def test_zero_is_white_on_a_signed_scale_and_signs_have_their_colours():
    picture = np.asarray(draw_map(torch.tensor([[[0.0, 1.0, -1.0]]]), Scale(end=1.0, signed=True))).astype(int)
    assert picture[0, 0].min() > 240
    assert picture[0, 1, 0] > picture[0, 1, 2]
    assert picture[0, 2, 2] > picture[0, 2, 0]


def test_channels_are_summed():
    maps = torch.tensor([[[1.0]], [[-1.0]], [[0.5]]])
    one = torch.tensor([[[0.5]]])
    scale = Scale(end=1.0, signed=False)
    assert (np.asarray(draw_map(maps, scale)) == np.asarray(draw_map(one, scale))).all()


def test_a_perturbation_is_magnified_to_grey_levels_that_can_be_told_apart():
    delta = torch.full((3, 20, 20), 0.004)
    delta[:, :10] = -0.004
    factor = magnification(delta)
    assert factor == 120  # 0.5 / 0.004 = 125, to two digits
    picture = np.asarray(draw_delta(delta, factor))
    assert set(np.unique(picture)) == {round(255 * (0.5 - 0.48)), round(255 * (0.5 + 0.48))}
    assert magnification(torch.zeros(3, 4, 4)) == 1
    assert magnification(torch.ones(3, 4, 4)) == 1


def test_of_many_channels_the_one_that_changes_most_is_drawn():
    delta = torch.tensor([[0.1, -0.1], [0.05, 0.2], [-0.2, 0.0], [0.0, 0.0], [0.0, -0.1]]).view(5, 1, 2)
    picture = np.asarray(draw_delta(delta, 2))
    # Their mean would be 0 in both.
    assert picture.tolist() == [[[round(255 * level)] * 3 for level in (0.5 - 0.4, 0.5 + 0.4)]]


def luminance(picture):
    """Return the relative luminance of the pixels, from 0 for black to 1, as contrast on pages is counted."""
    share = np.asarray(picture)[..., :3] / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_weak_values_of_a_map_are_seen_and_stronger_ones_are_lighter():
    values = torch.linspace(0, 1, 101).view(1, 1, -1)
    light = luminance(draw_map(values, Scale(end=1.0, signed=False)))[0]
    assert (np.diff(light) > 0).mean() > 0.95
    # A tenth of the end differs from none by the 1.5 that lines within pictures need, and none is not black.
    assert (light[10] + 0.05) / (light[0] + 0.05) > 1.5
    assert light[0] > 0.01


def test_heat_is_seen_and_does_not_glare():
    sizes = torch.ones(2, 2)
    sizes[0, 0] = 0.0
    for grey in (0.0, 1.0):
        light = luminance(draw_heat(sizes, 1.0, torch.full((3, 2, 2), grey)))
        assert light.max() < 0.45
        assert light[1, 1] != light[0, 0]


def test_a_signed_layer_is_seen_on_the_grey_that_a_dark_page_lays_below_it():
    page = load_template("whyfooled.drawing", "base.html.j2").render(numbers=NUMBERS)
    dark = re.findall(r"prefers-color-scheme: dark.*?--tile:#([0-9a-f]{6})", page)[0]
    tile = np.array([int(dark[place : place + 2], 16) for place in (0, 2, 4)])
    layer = np.asarray(draw_signed_layer(torch.tensor([[0.0, 0.1, -0.1, 1.0, -1.0]]), 1.0)).astype(float)
    alpha = layer[..., 3:] / 255
    none, *shown = luminance(alpha * layer[..., :3] + (1 - alpha) * tile)[0] + 0.05
    # Neither black, in which weak colours go under, nor a white that glares.
    assert 0.2 < none - 0.05 < 0.6
    weak, strong = [none / light for light in shown[:2]], [none / light for light in shown[2:]]
    assert min(weak) > 1.2
    assert min(strong) > 2


NUMBERS = {"parameters": {"versions": {}}, "seconds": {}, "passes": {}, "seconds_in_all": 0.0}
