"""Reading photographs and adversarial tensors."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from safetensors.torch import save_file

from whyfooled.errors import ImageError, WhyfooledWarning
from whyfooled.images import (
    example_photograph,
    read_adversarial,
    read_photograph,
    to_tensor,
)


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """A colour image without sharp edges: red grows to the right, green downwards, blue stays."""
    picture = np.full((height, width, 3), 128, np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    return picture


def pixels(path: Path) -> np.ndarray:
    photograph = read_photograph(path)
    assert photograph.mode == "RGB"
    return np.asarray(photograph)


def one_bit_png(width: int, height: int) -> bytes:
    """A black PNG of any size; 200 megapixels take 25 kilobytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "options", "tolerance"),
        [
            ("a.png", {}, 0),
            ("a.bmp", {}, 0),
            ("a.tiff", {}, 0),
            ("a.tif", {"compression": "tiff_lzw"}, 0),
            ("a.webp", {"lossless": True}, 0),
            ("a.webp", {"quality": 95}, 12),
            ("a.jpg", {"quality": 95}, 12),
        ],
    )
    def test_every_format_gives_the_colours_that_were_saved(self, tmp_path, name, options, tolerance):
        Image.fromarray(ramp()).save(tmp_path / name, **options)
        found = pixels(tmp_path / name)
        assert found.shape == (24, 32, 3)
        assert np.abs(found.astype(int) - ramp()).max() <= tolerance

    def test_the_content_decides_about_the_format_and_not_the_name(self, tmp_path):
        Image.fromarray(ramp()).save(tmp_path / "a.jpg", "PNG")
        assert np.array_equal(pixels(tmp_path / "a.jpg"), ramp())

    def test_a_path_may_be_text(self, tmp_path):
        Image.fromarray(ramp()).save(tmp_path / "a.png")
        assert read_photograph(str(tmp_path / "a.png")).size == (32, 24)

    def test_other_formats_are_refused(self, tmp_path):
        Image.fromarray(ramp()).save(tmp_path / "a.gif")
        with pytest.raises(ImageError, match="not an image of a known format"):
            read_photograph(tmp_path / "a.gif")

    def test_the_example_photograph_is_a_colour_image(self):
        assert example_photograph().mode == "RGB"
        assert example_photograph().size == (600, 400)


class TestModes:
    def test_grey_is_repeated_in_every_channel(self, tmp_path):
        grey = ramp()[..., 0]
        Image.fromarray(grey).save(tmp_path / "a.png")
        assert np.array_equal(pixels(tmp_path / "a.png"), np.stack([grey] * 3, -1))

    def test_one_bit_becomes_black_and_white(self, tmp_path):
        black = np.zeros((8, 8), bool)
        black[2, 3] = True
        Image.fromarray(black).save(tmp_path / "a.png")
        found = pixels(tmp_path / "a.png")
        assert (found[2, 3] == 255).all()
        assert found.sum() == 3 * 255

    @staticmethod
    def palette_image() -> Image.Image:
        image = Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (8, 2))).convert("P")
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
        return image

    def test_a_palette_is_looked_up(self, tmp_path):
        self.palette_image().save(tmp_path / "a.png")
        expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]
        assert pixels(tmp_path / "a.png")[0, :4].tolist() == expected

    def test_a_transparent_palette_entry_becomes_white(self, tmp_path):
        self.palette_image().save(tmp_path / "a.png", transparency=1)
        expected = [[255, 0, 0], [255, 255, 255], [0, 0, 255], [10, 20, 30]]
        assert pixels(tmp_path / "a.png")[0, :4].tolist() == expected

    def test_a_half_transparent_palette_entry_is_laid_on_white(self, tmp_path):
        self.palette_image().save(tmp_path / "a.png", transparency=bytes([255, 51, 255, 0]))
        expected = [[255, 0, 0], [204, 255, 204], [0, 0, 255], [255, 255, 255]]
        assert pixels(tmp_path / "a.png")[0, :4].tolist() == expected

    @pytest.mark.parametrize(("alpha", "expected"), [(255, [100, 50, 0]), (0, [255, 255, 255]), (51, [224, 214, 204])])
    def test_rgba_is_laid_on_white(self, tmp_path, alpha, expected):
        Image.new("RGBA", (8, 8), (100, 50, 0, alpha)).save(tmp_path / "a.png")
        assert (pixels(tmp_path / "a.png") == expected).all()

    @pytest.mark.parametrize(("alpha", "expected"), [(255, 100), (0, 255), (51, 224)])
    def test_grey_with_alpha_is_laid_on_white(self, tmp_path, alpha, expected):
        Image.new("LA", (8, 8), (100, alpha)).save(tmp_path / "a.png")
        assert (pixels(tmp_path / "a.png") == expected).all()

    @pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9))])
    def test_a_colour_that_stands_for_transparent_becomes_white(self, tmp_path, mode, colour):
        image = Image.new(mode, (8, 8))
        image.putpixel((0, 0), colour)
        image.save(tmp_path / "a.png", transparency=colour)
        found = pixels(tmp_path / "a.png")
        assert (found[0, 0] == 255).all()
        assert found.sum() == 3 * 255

    @pytest.mark.parametrize(
        ("ink", "expected"),
        [
            ((0, 255, 255, 0), (255, 0, 0)),
            ((255, 0, 0, 0), (0, 255, 255)),
            ((0, 0, 0, 255), (0, 0, 0)),
            ((0, 0, 0, 0), (255, 255, 255)),
        ],
    )
    def test_cmyk_is_converted(self, tmp_path, ink, expected):
        Image.new("CMYK", (16, 16), ink).save(tmp_path / "a.jpg", quality=100)
        assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - expected).max() <= 4

    @pytest.mark.parametrize("name", ["a.png", "a.tiff"])
    def test_sixteen_bits_are_rounded_to_eight(self, tmp_path, name):
        values = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
        values[0, :6] = [0, 128, 129, 385, 386, 65535]
        Image.fromarray(values).save(tmp_path / name)
        found = pixels(tmp_path / name)
        assert found[0, :6, 0].tolist() == [0, 0, 1, 1, 2, 255]
        assert np.array_equal(found, np.stack([np.round(values / 257)] * 3, -1))

    def test_big_endian_sixteen_bits_are_rounded_to_eight(self, tmp_path):
        values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
        Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes()).save(tmp_path / "a.tiff")
        assert np.array_equal(pixels(tmp_path / "a.tiff")[..., 0], values // 257)

    @pytest.mark.parametrize("values", [np.full((8, 8), 0.5, np.float32), np.full((8, 8), 65536, np.int32)])
    def test_pixels_of_no_known_range_are_refused(self, tmp_path, values):
        Image.fromarray(values).save(tmp_path / "a.tiff")
        with pytest.raises(ImageError, match="no known range"):
            read_photograph(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    ("orientation", "upright"),
    # The quarters of the stored picture are A B / C D; here as the camera saw them, read in lines.
    [(1, "ABCD"), (2, "BADC"), (3, "DCBA"), (4, "CDAB"), (5, "ACBD"), (6, "CADB"), (7, "DBCA"), (8, "BDAC")],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
def test_the_exif_orientation_is_applied(tmp_path, name, orientation, upright):
    levels = {"A": 0, "B": 80, "C": 160, "D": 240}
    quarters = np.array([[levels["A"], levels["B"]], [levels["C"], levels["D"]]], np.uint8)
    stored = np.kron(quarters, np.ones((16, 32), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).convert("RGB").save(tmp_path / name, exif=exif)
    found = pixels(tmp_path / name)
    height, width, _ = found.shape
    assert (height, width) == ((32, 64) if orientation <= 4 else (64, 32))
    centres = found[[height // 4, 3 * height // 4]][:, [width // 4, 3 * width // 4], 0].ravel()
    assert np.abs(centres.astype(int) - [levels[quarter] for quarter in upright]).max() <= 8


@pytest.mark.parametrize("values", [np.arange(120, dtype=np.uint8), 257 * np.arange(120, dtype=np.uint16)])
def test_a_grey_tiff_is_turned_without_being_scrambled(tmp_path, values):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values.reshape(10, 12)).save(tmp_path / "a.tiff", exif=exif)
    assert pixels(tmp_path / "a.tiff")[..., 0].tolist() == np.rot90(np.arange(120).reshape(10, 12), -1).tolist()


class TestSize:
    def test_eight_pixels_a_side_are_enough(self, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        assert read_photograph(tmp_path / "a.png").size == (8, 8)

    @pytest.mark.parametrize("size", [(7, 8), (8, 7), (1, 1)])
    def test_fewer_are_refused(self, tmp_path, size):
        Image.new("RGB", size).save(tmp_path / "a.png")
        with pytest.raises(ImageError, match="at least 8"):
            read_photograph(tmp_path / "a.png")

    # Pillow itself warns above 89 megapixels and refuses above 179.
    @pytest.mark.parametrize(("width", "height"), [(20000, 10000), (10100, 10000)])
    @pytest.mark.filterwarnings("error")
    def test_more_than_100_megapixels_are_refused_before_decoding(self, tmp_path, monkeypatch, width, height):
        (tmp_path / "a.png").write_bytes(one_bit_png(width, height))
        decoded = []
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
        with pytest.raises(ImageError, match="100 megapixels"):
            read_photograph(tmp_path / "a.png")
        assert not decoded

    def test_the_large_images_of_these_tests_would_be_decoded_if_they_were_small(self, tmp_path):
        (tmp_path / "a.png").write_bytes(one_bit_png(50, 40))
        assert read_photograph(tmp_path / "a.png").size == (50, 40)


class TestUnreadable:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ImageError, match=r"no image file .*nowhere\.png"):
            read_photograph(tmp_path / "nowhere.png")

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(ImageError, match="is a folder"):
            read_photograph(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"This is no photograph."])
    def test_an_empty_file_and_a_text_are_no_images(self, tmp_path, content):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ImageError, match="not an image of a known format"):
            read_photograph(tmp_path / "a.jpg")

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    @pytest.mark.parametrize("name", ["a.jpg", "a.png"])
    def test_a_truncated_file_is_refused(self, tmp_path, name, share):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageError, match="cannot be read as an image"):
            read_photograph(tmp_path / name)

    def test_a_tiff_whose_pixels_start_at_a_fraction_is_refused(self, tmp_path):
        buffer = BytesIO()
        Image.fromarray(ramp()).save(buffer, "TIFF")
        strip_offsets, long, float_ = 273, 4, 11
        whole, broken = struct.pack("<HH", strip_offsets, long), struct.pack("<HH", strip_offsets, float_)
        assert whole in buffer.getvalue()
        (tmp_path / "a.tiff").write_bytes(buffer.getvalue().replace(whole, broken))
        with pytest.raises(ImageError, match="cannot be read as an image"):
            read_photograph(tmp_path / "a.tiff")

    def test_a_name_too_long_for_the_file_system_is_refused(self):
        with pytest.raises(ImageError):
            read_photograph("a" * 300 + ".png")


SHAPE = (3, 8, 12)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))


class _Intruder:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class TestAdversarial:
    def test_the_tensor_called_adversarial_is_taken(self, tmp_path, image):
        save_file({"original": torch.zeros(SHAPE), "adversarial": image}, tmp_path / "a.safetensors")
        assert torch.equal(read_adversarial(tmp_path / "a.safetensors", SHAPE), image.unsqueeze(0))

    def test_a_single_tensor_may_be_called_anything(self, tmp_path, image):
        save_file({"x": image.unsqueeze(0)}, tmp_path / "a.safetensors")
        assert torch.equal(read_adversarial(tmp_path / "a.safetensors", SHAPE), image.unsqueeze(0))

    def test_several_tensors_without_that_name_are_refused_and_listed(self, tmp_path, image):
        save_file({"first": image, "second": image.clone()}, tmp_path / "a.safetensors")
        with pytest.raises(ImageError, match="found first, second"):
            read_adversarial(tmp_path / "a.safetensors", SHAPE)

    @pytest.mark.parametrize("name", ["a.npy", "A.NPY"])
    def test_a_numpy_array_is_read(self, tmp_path, image, name):
        with (tmp_path / name).open("wb") as file:
            np.save(file, image.numpy())
        assert torch.equal(read_adversarial(tmp_path / name, SHAPE), image.unsqueeze(0))

    def test_the_channels_may_come_last(self, tmp_path, image):
        np.save(tmp_path / "a.npy", image.permute(1, 2, 0).numpy())
        assert torch.equal(read_adversarial(tmp_path / "a.npy", SHAPE), image.unsqueeze(0))

    def test_bytes_are_divided_by_255(self, tmp_path):
        values = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
        np.save(tmp_path / "a.npy", values)
        expected = torch.from_numpy(values).permute(2, 0, 1).unsqueeze(0) / 255
        assert torch.equal(read_adversarial(tmp_path / "a.npy", SHAPE), expected)

    @pytest.mark.parametrize("name", ["a.pt", "a.pth", "A.PT"])
    def test_a_torch_tensor_is_read(self, tmp_path, image, name):
        torch.save(image, tmp_path / name)
        assert torch.equal(read_adversarial(tmp_path / name, SHAPE), image.unsqueeze(0))

    def test_tensors_by_name_are_read_from_a_torch_file(self, tmp_path, image):
        torch.save({"adversarial": image, "label": torch.tensor(3)}, tmp_path / "a.pt")
        assert torch.equal(read_adversarial(tmp_path / "a.pt", SHAPE), image.unsqueeze(0))

    def test_a_list_is_refused(self, tmp_path, image):
        torch.save([image], tmp_path / "a.pt")
        with pytest.raises(ImageError, match="must hold a tensor; found list"):
            read_adversarial(tmp_path / "a.pt", SHAPE)

    def test_a_pickle_in_a_numpy_file_is_not_run(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([_Intruder(tmp_path / "ran")], dtype=object), allow_pickle=True)
        with pytest.raises(ImageError, match="cannot be read as a tensor"):
            read_adversarial(tmp_path / "a.npy", SHAPE)
        assert not (tmp_path / "ran").exists()
        np.load(tmp_path / "a.npy", allow_pickle=True)
        assert (tmp_path / "ran").exists()

    def test_a_pickle_in_a_torch_file_is_not_run(self, tmp_path):
        torch.save(_Intruder(tmp_path / "ran"), tmp_path / "a.pt")
        with pytest.raises(ImageError, match="was not unpickled"):
            read_adversarial(tmp_path / "a.pt", SHAPE)
        assert not (tmp_path / "ran").exists()
        torch.load(tmp_path / "a.pt", weights_only=False)
        assert (tmp_path / "ran").exists()

    def test_the_refusal_of_a_pickle_does_not_tell_how_to_run_it(self, tmp_path):
        torch.save(_Intruder(tmp_path / "ran"), tmp_path / "a.pt")
        with pytest.raises(ImageError) as caught:
            read_adversarial(tmp_path / "a.pt", SHAPE)
        assert "weights_only" not in str(caught.value)

    @pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".pt"])
    def test_a_truncated_file_is_refused(self, tmp_path, image, suffix):
        path = tmp_path / f"a{suffix}"
        {
            ".safetensors": lambda: save_file({"x": image}, path),
            ".npy": lambda: np.save(path, image.numpy()),
            ".pt": lambda: torch.save(image, path),
        }[suffix]()
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(ImageError, match="cannot be read as a tensor"):
            read_adversarial(path, SHAPE)

    def test_a_picture_is_read_with_a_warning(self, tmp_path):
        Image.fromarray(ramp(8, 12)).save(tmp_path / "a.png")
        with pytest.warns(WhyfooledWarning, match="8 bits a channel"):
            found = read_adversarial(tmp_path / "a.png", SHAPE)
        assert torch.equal(found, to_tensor(Image.fromarray(ramp(8, 12))).unsqueeze(0))

    @pytest.mark.parametrize("shape", [(3, 12, 8), (2, 3, 8, 12), (8, 12), (1, 8, 12), (0,)])
    def test_another_size_is_refused(self, tmp_path, shape):
        np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
        with pytest.raises(ImageError, match=r"must have the shape of the classifier's input, \(3, 8, 12\)"):
            read_adversarial(tmp_path / "a.npy", SHAPE)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite_are_refused(self, tmp_path, image, value):
        image[1, 2, 3] = value
        torch.save(image, tmp_path / "a.pt")
        with pytest.raises(ImageError, match="finite"):
            read_adversarial(tmp_path / "a.pt", SHAPE)

    @pytest.mark.parametrize(
        ("change", "advice"),
        [(lambda x: 255 * x, "Divide it by 255"), (lambda x: (x - 0.5) / 0.25, "normalisation")],
    )
    def test_values_out_of_range_are_refused_with_advice(self, tmp_path, image, change, advice):
        torch.save(change(image), tmp_path / "a.pt")
        with pytest.raises(ImageError, match=advice):
            read_adversarial(tmp_path / "a.pt", SHAPE)

    def test_rounding_beyond_the_range_is_forgiven_and_clamped(self, tmp_path, image):
        image[0, 0, :2] = torch.tensor([-1e-7, 1 + 1e-6])
        torch.save(image, tmp_path / "a.pt")
        assert read_adversarial(tmp_path / "a.pt", SHAPE)[0, 0, 0, :2].tolist() == [0, 1]

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ImageError, match=r"no file .*nowhere\.pt"):
            read_adversarial(tmp_path / "nowhere.pt", SHAPE)


class TestRange:
    @pytest.mark.parametrize(
        "values",
        [
            np.tile(np.arange(256, dtype=np.int32), (16, 1)),
            np.full((8, 8), 65535, np.int32),
            np.full((8, 8), -3, np.int32),
        ],
        ids=["8 bits", "16 bits", "signed"],
    )
    def test_whole_numbers_of_32_bits_are_refused(self, tmp_path, values):
        Image.fromarray(values).save(tmp_path / "a.tiff")
        with pytest.raises(ImageError, match=r"no known range; save it with 8 or 16 bits a channel\."):
            read_photograph(tmp_path / "a.tiff")

    @staticmethod
    def save_deep_colours(path, values):
        """Write a PNG with 16 bits a channel, which Pillow does not."""

        def chunk(name, content):
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        height, width, channels = values.shape
        header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        )

    @pytest.mark.parametrize("name", ["a.png", "a.tiff"])
    def test_12_bits_in_16_are_warned_of(self, tmp_path, name):
        values = np.linspace(0, 4095, 16 * 16).astype(np.uint16).reshape(16, 16)
        Image.fromarray(values).save(tmp_path / name)
        with pytest.warns(WhyfooledWarning, match=r"no value above 4095 of 65535, as if it held values of 12 bits"):
            assert pixels(tmp_path / name).max() == 16

    @pytest.mark.parametrize("channels", [3, 4])
    def test_12_bits_in_16_are_warned_of_in_colours(self, tmp_path, channels):
        values = np.full((8, 8, channels), 3000, np.uint16)
        values[..., 3:] = 65535
        self.save_deep_colours(tmp_path / "a.png", values)
        with pytest.warns(WhyfooledWarning, match="values of 12 bits"):
            assert (pixels(tmp_path / "a.png") == 3000 >> 8).all()

    @pytest.mark.filterwarnings("error")
    def test_what_has_more_than_12_bits_or_only_8_is_not_warned_of(self, tmp_path):
        for name, values in (
            ("deep.png", np.full((8, 8), 4096, np.uint16)),
            ("black.png", np.zeros((8, 8), np.uint16)),
            ("dark.png", np.full((8, 8, 3), 15, np.uint8)),
            ("grey.png", np.full((8, 8), 15, np.uint8)),
        ):
            Image.fromarray(values).save(tmp_path / name)
            read_photograph(tmp_path / name)
        self.save_deep_colours(tmp_path / "colours.png", np.full((8, 8, 3), 4096, np.uint16))
        read_photograph(tmp_path / "colours.png")


class TestHostileTensors:
    @pytest.mark.parametrize(
        ("change", "kind"),
        [
            (lambda x: x.to_sparse(), "a sparse tensor"),
            (lambda x: x.flatten(1).to_sparse_csr(), "a sparse tensor"),
            (lambda x: x.to("meta"), "a tensor without data"),
            (lambda x: torch.quantize_per_tensor(x, 1 / 255, 0, torch.quint8), "a quantised tensor"),
        ],
        ids=["sparse", "rows", "meta", "quantised"],
    )
    @pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
    def test_what_is_no_plain_tensor_is_refused(self, tmp_path, image, change, kind):
        torch.save(change(image), tmp_path / "a.pt")
        with pytest.raises(ImageError, match=f"must hold a plain tensor of numbers; got {kind}"):
            read_adversarial(tmp_path / "a.pt", SHAPE)

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            (np.full(SHAPE, "a"), "must hold numbers; got <U1"),
            (np.zeros(SHAPE, [("x", "f4")]), "must hold numbers"),
            (np.zeros(SHAPE, "M8[s]"), "must hold numbers"),
            (np.zeros(SHAPE, np.complex64), "must hold real numbers"),
            (np.zeros(SHAPE, np.longdouble), "cannot be read as a tensor"),
        ],
        ids=["text", "records", "dates", "complex", "long"],
    )
    def test_arrays_of_other_types_are_refused(self, tmp_path, values, reason):
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(ImageError, match=reason):
            read_adversarial(tmp_path / "a.npy", SHAPE)

    def test_the_other_byte_order_is_read(self, tmp_path, image):
        np.save(tmp_path / "a.npy", image.numpy().astype(">f4"))
        assert torch.equal(read_adversarial(tmp_path / "a.npy", SHAPE), image.unsqueeze(0))

    @pytest.mark.parametrize("claimed", [2**40, 2**200])
    def test_a_header_that_claims_more_than_there_is_costs_no_memory(self, tmp_path, claimed):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (claimed, 3, 8, 12)}
            )
        with pytest.raises(ImageError, match="cannot be read as a tensor"):
            read_adversarial(tmp_path / "a.npy", SHAPE)

    def test_more_numbers_than_an_image_has_are_not_read(self, tmp_path):
        # Holes take no place on the disk, and would take 4 GiB of memory.
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**30,)})
            file.truncate(2**32 + 128)
        with pytest.raises(ImageError, match=r"it has 1073741824 numbers, in the shape \(1073741824,\); at most 3000"):
            read_adversarial(tmp_path / "a.npy", SHAPE)

    def test_an_archive_of_arrays_is_no_array(self, tmp_path, image):
        with (tmp_path / "a.npy").open("wb") as file:
            np.savez(file, image.numpy())
        with pytest.raises(ImageError, match="cannot be read as a tensor: it is a ZIP archive"):
            read_adversarial(tmp_path / "a.npy", SHAPE)

    def test_of_many_tensors_five_are_named(self, tmp_path):
        save_file({f"tensor {number}": torch.zeros(1) for number in range(1000)}, tmp_path / "a.safetensors")
        with pytest.raises(ImageError) as caught:
            read_adversarial(tmp_path / "a.safetensors", SHAPE)
        assert str(caught.value).endswith("995 more.")
        assert len(str(caught.value)) < 400

    @pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
    def test_the_refusal_of_a_program_does_not_tell_how_to_run_it(self, tmp_path):
        torch.jit.save(torch.jit.script(torch.nn.Flatten()), tmp_path / "a.pt")
        with pytest.raises(ImageError, match="it is a TorchScript archive") as caught:
            read_adversarial(tmp_path / "a.pt", SHAPE)
        assert "weights_only" not in str(caught.value)


def test_a_photograph_that_has_not_been_fetched_is_told_from_a_damaged_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ImageError, match=r"not an image of a known format \(.*\): it is a Git LFS pointer"):
        read_photograph(tmp_path / "a.jpg")
