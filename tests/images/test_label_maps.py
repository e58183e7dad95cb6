"""Label maps are read as they were written; everything else is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from whyfooled.errors import ImageError
from whyfooled.images.label_maps import read_label_map

VALUES = np.arange(10 * 12).reshape(10, 12) % 7


@pytest.mark.parametrize(("mode", "dtype"), [("L", np.uint8), ("P", np.uint8), ("I;16", np.uint16)])
def test_pictures_of_whole_numbers(tmp_path, mode, dtype):
    values = VALUES * (100 if mode.startswith("I") else 1)
    picture = Image.fromarray(values.astype(dtype))
    if mode == "P":
        picture = Image.fromarray(values.astype(dtype)).convert("L")
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([7, 9, 11] * 256)
    picture.save(tmp_path / "labels.png")
    found = read_label_map(tmp_path / "labels.png")
    assert found.dtype == torch.int64
    assert found.tolist() == values.tolist()


def test_arrays(tmp_path):
    np.save(tmp_path / "labels.npy", VALUES.astype(np.int16))
    assert read_label_map(tmp_path / "labels.npy").tolist() == VALUES.tolist()


def test_what_is_no_label_map_is_refused(tmp_path):
    np.save(tmp_path / "real.npy", VALUES.astype(np.float32))
    np.save(tmp_path / "cube.npy", np.zeros((3, 10, 12), dtype=np.uint8))
    (tmp_path / "damaged.npy").write_bytes(b"no array")
    Image.new("RGB", (12, 10)).save(tmp_path / "colour.png")
    Image.new("L", (12, 10)).save(tmp_path / "changed.jpg")
    for name, reason in (
        ("real.npy", "must hold a whole number for every pixel.*found float32"),
        ("cube.npy", r"found uint8 of the shape \(3, 10, 12\)"),
        ("damaged.npy", "cannot be read as a label map"),
        ("none.npy", "cannot be read as a label map"),
        ("colour.png", "must have one whole number for every pixel.*mode RGB"),
        ("changed.jpg", "a JPEG, which changes them"),
        ("none.png", "There is no image file"),
    ):
        with pytest.raises(ImageError, match=reason):
            read_label_map(tmp_path / name)
