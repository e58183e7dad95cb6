"""Arrays of images: shapes, types, prefixes, damage."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from tests.helpers.pictures import assert_shows, listed, pixels
from whyfooled.classifier import Fit
from whyfooled.errors import ImageError
from whyfooled.sources import open_source


class TestNpz:
    @staticmethod
    def arrays(kind="uint8", count=3):
        images = np.stack([pixels(seed) for seed in range(count)])
        return images if kind == "uint8" else (images / 255).astype(kind)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_pictures_come_from_8_bits(self, tmp_path, save, order):
        save(
            tmp_path / "a.npz",
            other=np.zeros(7),
            images=np.asarray(self.arrays(), order=order),
            labels=np.array([2, 0, 1]),
        )
        source = open_source(tmp_path / "a.npz")
        assert listed(source) == {"0": (2,), "1": (0,), "2": (1,)}
        for seed in (2, 0, 1):
            assert_shows(source[seed], seed)

    @pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4"])
    def test_tensors_come_from_floats(self, tmp_path, kind):
        np.savez(tmp_path / "a.npz", images=self.arrays(kind))
        sample = open_source(str(tmp_path / "a.npz"))[1]
        assert sample.labels == ()
        assert sample.image.dtype == torch.float32
        expected = torch.from_numpy(pixels(1)).permute(2, 0, 1) / 255
        torch.testing.assert_close(sample.image, expected, atol=1e-3 if kind == "float16" else 0, rtol=0)
        assert torch.equal(sample.fitted(Fit((10, 12)), 3), sample.image)
        with pytest.raises(ImageError, match=r"1 must have the shape of the classifier's input, \(3, 16, 16\)"):
            sample.fitted(Fit((16, 16)), 3)

    @pytest.mark.parametrize("shape", [(3, 10, 12), (3, 10, 12, 1)])
    def test_grey_images_may_have_a_channel_or_none(self, tmp_path, shape):
        grey = self.arrays()[..., 0].reshape(shape)
        np.savez(tmp_path / "a.npz", eval_images=grey, train_images=(grey / 255).astype(np.float32))
        picture = open_source(f"{tmp_path}/a.npz:eval")[1]
        assert np.array_equal(np.asarray(picture.image), pixels(1)[..., 0])
        tensor = open_source(f"{tmp_path}/a.npz:train")[1]
        assert tensor.image.shape == (1, 10, 12)
        assert torch.equal(tensor.fitted(Fit((10, 12)), 3), picture.fitted(Fit((10, 12)), 3))

    def test_a_prefix_chooses(self, tmp_path):
        images = self.arrays()
        np.savez(
            tmp_path / "a.npz", eval_images=images[:2], eval_labels=np.array([5, 6], np.uint8), train_images=images
        )
        assert listed(open_source(f"{tmp_path}/a.npz:eval")) == {"eval/0": (5,), "eval/1": (6,)}
        with pytest.raises(ImageError, match=r"several arrays of images. Give a.npz:eval or a.npz:train"):
            open_source(tmp_path / "a.npz")
        with pytest.raises(ImageError, match=r"no array evla_images. Did you mean eval\?"):
            open_source(f"{tmp_path}/a.npz:evla")
        np.savez(tmp_path / "b.npz", eval_images=images)
        assert open_source(tmp_path / "b.npz").names[0] == "eval/0"

    @pytest.mark.parametrize(
        ("arrays", "reason"),
        [
            ({"pictures": np.zeros((2, 9, 9, 3), np.uint8)}, "found pictures"),
            ({"images": np.zeros((2, 3, 9, 9), np.uint8)}, r"channels last.*Transpose it"),
            ({"images": np.zeros((2, 9, 9, 4), np.uint8)}, r"must have the shape \(n, h, w, 3\)"),
            ({"images": np.zeros((0, 9, 9, 3), np.uint8)}, "must have the shape"),
            ({"images": np.zeros((2, 9), np.uint8)}, "must have the shape"),
            ({"images": np.zeros((2, 9, 9, 3), np.int64)}, "8-bit values.*got int64"),
            ({"images": np.zeros((2, 9, 9), object)}, "Python objects"),
            ({"labels": np.zeros(3, np.int64)}, r"for each of the 2 images; got the shape \(3,\)"),
            ({"labels": np.array([0, 0.5])}, r"a class index .* float64, with such as 0.5\. Leave out"),
            ({"labels": np.array([0, np.nan])}, "float64, with such as nan"),
            ({"labels": np.array([np.inf, 0])}, "float64, with such as inf"),
            ({"labels": np.array([True, False])}, r"bool. Convert them: labels.astype\(int\)"),
            ({"labels": np.array(["0", "1"])}, r"<U1. Convert them"),
            ({"labels": np.eye(2, 5)}, r"shape \(2, 5\), float64. Of one-hot rows, give labels.argmax\(1\)"),
            ({"labels": np.zeros((1, 2), int)}, r"got the shape \(1, 2\), int64\.$"),
            ({"labels": np.array([0, -1])}, "negative"),
            ({"labels": np.array([0, "a"], object)}, "cannot be read"),
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path, arrays, reason):
        whole = arrays if "labels" not in arrays else {"images": np.zeros((2, 9, 9, 3), np.uint8), **arrays}
        np.savez(tmp_path / "a.npz", **whole)
        with pytest.raises(ImageError, match=f"a.npz.*{reason}"):
            open_source(tmp_path / "a.npz")

    @pytest.mark.parametrize("value", [1.01, -0.01, np.nan, np.inf])
    def test_values_out_of_range_are_named_when_they_are_read(self, tmp_path, value):
        images = self.arrays("float32")
        images[1, 2, 3, 0] = value
        np.savez(tmp_path / "a.npz", images=images)
        source = open_source(tmp_path / "a.npz")
        source[0]
        with pytest.raises(ImageError, match=r"image 1 of images must hold values in \[0, 1\]"):
            source[1]

    @pytest.mark.parametrize("length", [0, 10, 1000, -30])
    def test_a_truncated_file_is_refused(self, tmp_path, length):
        np.savez(tmp_path / "a.npz", images=self.arrays())
        (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:length])
        with pytest.raises(ImageError, match=r"a.npz cannot be read as an .npz file"):
            open_source(tmp_path / "a.npz")

    def test_damaged_data_is_found_when_it_is_read(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", images=self.arrays(count=200))
        content = bytearray((tmp_path / "a.npz").read_bytes())
        content[50_000:50_020] = bytes(20)
        (tmp_path / "a.npz").write_bytes(content)
        source = open_source(tmp_path / "a.npz")
        with pytest.raises(ImageError, match=r"a.npz cannot be read"):
            source[0]

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ImageError, match=r"no file .*a.npz"):
            open_source(f"{tmp_path}/a.npz:eval")

    def test_an_array_without_compression_stays_in_the_file(self, tmp_path):
        np.savez(tmp_path / "a.npz", images=self.arrays(), labels=np.arange(3))
        source = open_source(tmp_path / "a.npz")
        source[0]
        assert isinstance(source.reader._pixels, np.memmap)
        assert len(pickle.dumps(source)) < 1000

    @pytest.mark.parametrize("kind", ["uint8", "int64", "uint64", "float16", "float64", ">f4"])
    @pytest.mark.parametrize("shape", [(3,), (3, 1)])
    def test_labels_are_whole_numbers_of_any_type_in_a_row_or_a_column(self, tmp_path, kind, shape):
        labels = np.array([7, 0, 11]).astype(kind).reshape(shape)
        np.savez(tmp_path / "a.npz", images=self.arrays(), labels=labels)
        source = open_source(tmp_path / "a.npz")
        assert listed(source) == {"0": (7,), "1": (0,), "2": (11,)}
        assert all(type(label) is int for labels in source.all_labels for label in labels)


def write_claim(path, shape, content=b"", compression=zipfile.ZIP_DEFLATED, name="images"):
    """Write an archive with an array whose header claims a shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr(f"{name}.npy", header.getvalue() + content)
    return path


class TestClaims:
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_images_that_are_not_there_are_not_listed(self, tmp_path, compression):
        path = write_claim(tmp_path / "a.npz", (2**40, 9, 9, 3), bytes(1000), compression)
        size = 2**40 * 243
        with pytest.raises(ImageError, match=rf"a.npz is damaged: images should have {size} bytes, .* and has 1000\."):
            open_source(path)

    def test_labels_that_are_not_there_are_not_read(self, tmp_path):
        path = write_claim(tmp_path / "a.npz", (2, 9, 9, 3), bytes(486))
        write_claim(path, (2**40,), name="labels")
        with pytest.raises(ImageError, match=r"labels must hold a class index .* got the shape \(1099511627776,\)"):
            open_source(path)
        path = write_claim(tmp_path / "b.npz", (2, 9, 9, 3), bytes(486))
        write_claim(path, (2,), name="labels")
        with pytest.raises(ImageError, match=r"b.npz is damaged: labels should have 2 bytes"):
            open_source(path)

    def test_what_decompresses_to_more_than_the_memory_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("whyfooled.sources._npz.memory_built_in", lambda: 1_000_000)
        images = np.zeros((1000, 36, 36, 1), np.uint8)
        np.savez_compressed(tmp_path / "a.npz", images=images)
        with pytest.raises(
            ImageError, match=r"images takes 0.00121 GiB .*decompressed.*Save it with numpy.savez, with"
        ):
            open_source(tmp_path / "a.npz")
        # Without compression it stays in the file.
        np.savez(tmp_path / "b.npz", images=images)
        assert len(open_source(tmp_path / "b.npz")) == 1000
        np.savez(tmp_path / "c.npz", images=np.zeros((5000, 4, 4), np.uint8))
        with pytest.raises(ImageError, match="has 5000 images, and this machine's memory cannot list as many"):
            open_source(tmp_path / "c.npz")

    def test_an_archive_that_grew_since_it_was_listed_is_refused_when_it_is_read(self, tmp_path, monkeypatch):
        np.savez_compressed(tmp_path / "a.npz", images=np.zeros((1000, 36, 36, 1), np.uint8))
        source = open_source(tmp_path / "a.npz")
        monkeypatch.setattr("whyfooled.sources._npz.memory_built_in", lambda: 1_000_000)
        with pytest.raises(ImageError, match="when it is decompressed"):
            source[0]
