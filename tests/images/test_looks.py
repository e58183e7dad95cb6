"""Pictures that look alike are known again when their pixels differ, and others are not taken for them."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageEnhance

from whyfooled.images import looks_like, perceptual_hash, to_tensor


def scene(seed=0, side=96):
    """Draw discs of random colours, as unlike one another as photographs are."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    pixels = np.zeros((side, side, 3)) + random.integers(0, 256, 3)
    for _ in range(12):
        row, column, radius = [*random.uniform(0, side, 2).tolist(), random.uniform(5, side / 3)]
        pixels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = random.integers(0, 256, 3)
    return Image.fromarray(pixels.astype(np.uint8))


def compressed(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "change",
    [
        compressed,
        lambda picture: picture.resize((150, 150)),
        lambda picture: picture.resize((48, 48)),
        lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
        lambda picture: picture.convert("L"),
        lambda picture: to_tensor(picture),
        lambda picture: to_tensor(picture, 1),
        lambda picture: to_tensor(picture, 1).expand(5, -1, -1),
    ],
)
def test_a_picture_is_known_again(change):
    for picture in (scene(), Image.fromarray(skimage.data.coffee())):
        assert looks_like(perceptual_hash(change(picture)), {perceptual_hash(scene(9)), perceptual_hash(picture)})


def test_other_pictures_are_not_taken_for_it():
    hashes = [perceptual_hash(scene(seed)) for seed in range(60)]
    for number, one in enumerate(hashes):
        assert not looks_like(one, hashes[:number])
    assert not looks_like(hashes[0], ())


def test_a_mirror_image_is_another_picture():
    picture = Image.fromarray(skimage.data.coffee())
    assert not looks_like(
        perceptual_hash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), {perceptual_hash(picture)}
    )


def test_bits_are_those_of_the_lowest_frequencies():
    assert perceptual_hash(torch.full((3, 40, 40), 0.5)) == f"{0:016x}"
    rows = torch.cos(torch.pi * (torch.arange(32) + 0.5) / 32)
    waves = 0.5 + 0.4 * rows[:, None].expand(1, 32, 32)
    # One frequency, the first down the rows: the eighth after the constant one.
    assert int(perceptual_hash(waves), 16) >> (63 - 8) & 1 == 1
