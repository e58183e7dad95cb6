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


@pytest.mark.parametrize("name", ["labels.png", "labels.tiff"])
@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_label_map_is_turned_as_the_photograph_is(tmp_path, name, mode, orientation):
    values = VALUES.astype(np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.fromarray(values)
    if mode == "P":
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([7, 9, 11] * 256)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / name, exif=exif)
    # The quarter turns and mirrorings that the EXIF standard means by 1 to 8.
    turned = [
        values,
        values[:, ::-1],
        values[::-1, ::-1],
        values[::-1],
        values.T,
        np.rot90(values, -1),
        values[::-1, ::-1].T,
        np.rot90(values),
    ][orientation - 1]
    assert read_label_map(tmp_path / name).tolist() == turned.tolist()


def test_a_header_that_claims_more_than_there_is_costs_no_memory(tmp_path):
    for shape, size in (((2**20, 2**20), 0), ((2**16, 2**16), 2**32)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(max(file.tell(), size + 128 if size else 0))
        with pytest.raises(ImageError, match="cannot be read as a label map"):
            read_label_map(tmp_path / "a.npy")
