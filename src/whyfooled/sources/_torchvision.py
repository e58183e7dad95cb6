"""The test images of the small data sets that torchvision reads."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from PIL import Image as PILImage

from whyfooled.errors import ImageError, first_line
from whyfooled.sources._source import Source

_TEST_FILES = {
    "CIFAR10": "cifar-10-batches-py/test_batch",
    "MNIST": "MNIST/raw/t10k-images-idx3-ubyte",
    "FashionMNIST": "FashionMNIST/raw/t10k-images-idx3-ubyte",
}


@final
@dataclass(frozen=True)
class TorchvisionReader:
    """Reads test images of a small data set of torchvision, which holds them in memory once the first is read.

    Parameters
    ----------
    dataset
        ``"CIFAR10"``, ``"MNIST"`` or ``"FashionMNIST"``.
    root
        The folder that torchvision is given, absolute.
    """

    dataset: str
    root: Path

    def read(self, index: int) -> PILImage.Image:
        """Read one picture."""
        return PILImage.fromarray(torch.as_tensor(self.opened.data[index]).numpy().copy())

    def files(self) -> Iterable[Path]:
        """Name the file."""
        return (self.root / _TEST_FILES[self.dataset],)

    @cached_property
    def opened(self) -> Any:
        """The data set of torchvision; downloaded if it is not in the folder."""
        make = getattr(importlib.import_module("torchvision.datasets"), self.dataset)
        try:
            try:
                return make(str(self.root), train=False)
            except RuntimeError:
                return make(str(self.root), train=False, download=True)
        except Exception as error:  # whatever its download and its file formats raise
            raise ImageError(
                f"{self.dataset} is not in {self.root}, or damaged, and cannot be downloaded: {first_line(error)}. "
                f"Put it where torchvision does: {self.root / Path(_TEST_FILES[self.dataset]).parent}."
            ) from None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.dataset, self.root)


def open_cifar10(place: str, title: str) -> Source:
    """List the 10000 test images of CIFAR-10."""
    return _open_torchvision("CIFAR10", place, title)


def open_mnist(place: str, title: str) -> Source:
    """List the 10000 test images of MNIST, which are grey."""
    return _open_torchvision("MNIST", place, title)


def open_fashion_mnist(place: str, title: str) -> Source:
    """List the 10000 test images of Fashion-MNIST, which are grey."""
    return _open_torchvision("FashionMNIST", place, title)


def _open_torchvision(dataset: str, place: str, title: str) -> Source:
    reader = TorchvisionReader(dataset, Path(place).absolute())
    labels = [int(label) for label in reader.opened.targets]
    names = tuple(f"test/{number}" for number in range(len(labels)))
    return Source(title, names, tuple((label,) for label in labels), reader, tuple(reader.opened.classes))
