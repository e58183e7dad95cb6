"""Pictures: their scales, and what they show of a value."""

import numpy as np
import torch

from whyfooled.drawing.pictures import Scale, draw_delta, draw_map, magnification, scale_of


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
