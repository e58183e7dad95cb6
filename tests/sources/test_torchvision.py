"""CIFAR-10 and MNIST as torchvision keeps them."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from tests.helpers.pictures import listed, pixels
from whyfooled.classifier import Fit
from whyfooled.errors import ImageError
from whyfooled.sources import open_source


class TestTorchvision:
    @pytest.fixture
    def cifar(self, tmp_path, monkeypatch):
        """Write two test images as CIFAR-10 does; torchvision is told the sums of these files."""
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        whole = np.stack([pixels(seed, 32, 32).transpose(2, 0, 1).reshape(-1) for seed in range(2)])
        contents = {
            "test_batch": {"data": whole, "labels": [3, 9]},
            "data_batch_1": {"data": whole, "labels": [0, 0]},
            "batches.meta": {"label_names": ["airplane", *"bcdefghi", "truck"]},
        }
        sums = {}
        for name, content in contents.items():
            (folder / name).write_bytes(pickle.dumps(content))
            sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
        data_set = torchvision.datasets.CIFAR10
        monkeypatch.setattr(data_set, "train_list", [["data_batch_1", sums["data_batch_1"]]])
        monkeypatch.setattr(data_set, "test_list", [["test_batch", sums["test_batch"]]])
        monkeypatch.setattr(data_set, "meta", {**data_set.meta, "md5": sums["batches.meta"]})
        return tmp_path

    def test_cifar10_has_its_test_images(self, cifar):
        source = open_source(f"cifar10:{cifar}")
        assert listed(source) == {"test/0": (3,), "test/1": (9,)}
        assert (source.class_names[0], source.class_names[9]) == ("airplane", "truck")
        assert np.array_equal(np.asarray(source[1].image), pixels(1, 32, 32))

    @staticmethod
    def write_mnist(raw: Path, packed: bool) -> None:
        raw.mkdir(parents=True)
        for part, count in (("train", 1), ("t10k", 2)):
            images = np.stack([pixels(seed, 28, 28)[..., 0] for seed in range(count)])
            files = {
                "images-idx3": struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes(),
                "labels-idx1": struct.pack(">II", 0x801, count) + bytes([7, 2][:count]),
            }
            for name, content in files.items():
                path = raw / f"{part}-{name}-ubyte"
                path.write_bytes(content)
                if packed:
                    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
                    path.unlink()

    @pytest.mark.parametrize(("prefix", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
    def test_grey_images_become_what_the_classifier_wants(self, tmp_path, prefix, folder):
        self.write_mnist(tmp_path / folder / "raw", packed=False)
        source = open_source(f"{prefix}:{tmp_path}")
        assert listed(source) == {"test/0": (7,), "test/1": (2,)}
        assert len(source.class_names) == 10
        expected = torch.from_numpy(pixels(1, 28, 28)[..., 0]).float() / 255
        for channels in (1, 3):
            found = source[1].fitted(Fit((28, 28)), channels)
            assert torch.equal(found, expected.expand(channels, 28, 28))

    def test_packed_files_are_downloaded_once_and_unpacked(self, tmp_path, monkeypatch):
        self.write_mnist(tmp_path / "served", packed=True)
        fetched = []

        def serve(url, download_root, filename, md5):
            fetched.append(filename)
            target = Path(download_root) / filename.removesuffix(".gz")
            target.write_bytes(gzip.decompress((tmp_path / "served" / filename).read_bytes()))

        monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", serve)
        for _ in range(2):
            assert len(open_source(f"mnist:{tmp_path / 'root'}")) == 2
            assert len(fetched) == 4

    def test_without_a_network_it_says_where_the_files_belong(self, tmp_path, monkeypatch):
        def unreachable(*_, **__):
            raise OSError("Name or service not known")

        for module in ("mnist", "cifar"):
            monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", unreachable)
        for prefix, folder in (("mnist", "MNIST/raw"), ("cifar10", "cifar-10-batches-py")):
            with pytest.raises(ImageError, match=f"cannot be downloaded.*Put it where torchvision does: .*{folder}"):
                open_source(f"{prefix}:{tmp_path}")
