"""Photographs as tensors, and tensors as pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from whyfooled.errors import ImageError
from whyfooled.images import to_picture, to_tensor


def test_every_value_goes_to_a_tensor_and_back():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = np.stack([values, values[::-1], values.T], -1)
    tensor = to_tensor(Image.fromarray(picture))
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor[0, 0, 1] == torch.tensor(1 / 255)
    assert np.array_equal(np.asarray(to_picture(tensor)), picture)


def test_channels_rows_and_columns_keep_their_places():
    picture = np.zeros((8, 10, 3), np.uint8)
    picture[2, 7, 1] = 255
    assert to_tensor(Image.fromarray(picture)).nonzero().tolist() == [[1, 2, 7]]


def test_grey_has_one_channel():
    tensor = to_tensor(Image.fromarray(np.full((8, 10, 3), (255, 0, 0), np.uint8)), 1)
    assert tensor.shape == (1, 8, 10)
    # Of pure red, 29.9 % are left (ITU-R BT.601).
    assert torch.equal(tensor, torch.full((1, 8, 10), 76 / 255))
    levels = np.arange(80, dtype=np.uint8).reshape(8, 10)
    for picture in (Image.fromarray(levels), Image.fromarray(levels).convert("RGB")):
        assert torch.equal(to_tensor(picture, 1)[0] * 255, torch.from_numpy(levels).float())


def test_a_grey_tensor_becomes_a_picture():
    grey = torch.rand(1, 8, 10, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(np.asarray(to_picture(grey)), np.asarray(to_picture(grey.expand(3, -1, -1))))


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ImageError, match="3 channels, or 1 in grey; 4 cannot"):
        to_tensor(Image.new("RGBA", (8, 8)), 4)


def test_a_picture_is_rounded_and_clamped():
    image = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.5]).view(1, 2, 2).expand(3, 2, 2)
    assert np.asarray(to_picture(image))[..., 0].tolist() == [[0, 0], [1, 255]]


@pytest.mark.parametrize("channels", [2, 4, 5, 16])
def test_other_numbers_of_channels_are_shown_by_their_mean(channels):
    levels = torch.rand(channels, 8, 10, generator=torch.Generator().manual_seed(0))
    picture = np.asarray(to_picture(levels))
    assert picture.shape == (8, 10, 3)
    assert np.array_equal(picture[..., 0], (levels.mean(0) * 255).round().numpy())
    assert np.array_equal(picture, picture[..., :1].repeat(3, 2))
