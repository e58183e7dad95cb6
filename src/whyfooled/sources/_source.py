"""A source lists images with what they show, and reads each one when it is asked for."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from PIL import Image as PILImage
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Fit
from whyfooled.errors import ImageError
from whyfooled.images import to_tensor
from whyfooled.types import Image


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a source.

    Parameters
    ----------
    name
        Its name, unique within its source, such as ``"cats/1.jpg"`` or ``"test/17"``.
    image
        A picture of any size, or a tensor (c,h,w) with values in [0, 1] that goes into the classifier as it is.
    labels
        What it shows, as indices into the source's class names; empty if that is not known.
    adversaries
        For each attack, as on the command line, what it made of the image, as a batch of one, if the source is saved
        adversarial images; `image` is then the clean one. Empty for other sources.
    """

    name: str
    image: PILImage.Image | Image
    labels: tuple[int, ...]
    adversaries: Mapping[str, AttackResult] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the picture; None for a tensor, which goes in as it is."""
        return None if isinstance(self.image, Tensor) else (self.image.height, self.image.width)

    def fitted(self, fit: Fit, channels: int = 3) -> Image:
        """Bring the image to a classifier's input: (c,h,w), values in [0, 1], on the CPU.

        Parameters
        ----------
        fit, channels
            The classifier's own; pictures become grey for one channel, grey tensors are repeated for three.

        Raises
        ------
        ImageError
            If the image is a tensor of another size, or of three channels where one is wanted.
        """
        if not isinstance(self.image, Tensor):
            return to_tensor(fit(self.image), channels)
        shape = tuple(self.image.shape)
        if shape[1:] != fit.size or shape[0] not in (1, channels):
            raise ImageError(
                f"{self.name} must have the shape of the classifier's input, {(channels, *fit.size)}, because it is an "
                f"array of floats and goes in as it is; got {shape}. Store 8-bit pictures to have them resized."
            )
        return self.image.expand(channels, -1, -1)


@runtime_checkable
class Reader(Protocol):
    """What reads the images of a source."""

    def read(self, index: int) -> PILImage.Image | Image | Mapping[str, AttackResult]:
        """Read one image, or what attacks made of it; raise `ImageError` if it cannot be read."""

    def files(self) -> Iterable[Path]:
        """Name the files that the images are in: a source's digest changes with their sizes."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Source:
    """Images with what they show, listed but not read: ``source[3]`` reads one.

    In memory there are names and labels only (and an array, once an image of it was read). A source can be pickled: a
    worker process receives the list, and opens the files by itself.

    Parameters
    ----------
    title
        What was opened, as it was written.
    names
        The images' names, each once.
    all_labels
        For each image, what it shows, as indices into `class_names`; empty where that is not known.
    reader
        Reads the images.
    class_names
        The names of the classes; None if labels are the classifier's own indices, or there are none.
    synsets
        The classes' WordNet ids, such as ``"n01440764"``, where they have them.
    attacks
        What the images were attacked with, as on the command line, if they are saved adversarial images; else empty.
    """

    title: str
    names: tuple[str, ...]
    all_labels: tuple[tuple[int, ...], ...]
    reader: Reader
    class_names: tuple[str, ...] | None = None
    synsets: tuple[str, ...] | None = None
    attacks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        classes = "" if self.class_names is None else f", {len(self.class_names)} classes"
        return f"Source({self.title}: {len(self)} images{classes})"

    def name(self, index: int) -> str:
        """Return an image's name, without reading the image."""
        return self.names[index]

    def labels(self, index: int) -> tuple[int, ...]:
        """Return what an image shows, without reading the image."""
        return self.all_labels[index]

    def __getitem__(self, index: int) -> Sample:
        """Read one image, and no other.

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        place = range(len(self))[index]
        content = self.reader.read(place)
        if isinstance(content, Mapping):
            clean = next(iter(content.values())).clean[0]
            return Sample(self.names[place], clean, self.all_labels[place], content)
        return Sample(self.names[place], content, self.all_labels[place])

    def only(self, places: Sequence[int]) -> Source:
        """Return the images at some places alone, in that order; nothing is read."""
        names = tuple(self.names[place] for place in places)
        labels = tuple(self.all_labels[place] for place in places)
        return replace(self, names=names, all_labels=labels, reader=_Some(self.reader, tuple(places)))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def digest(self) -> str:
        """Return a digest that changes when names, labels, class names or files change.

        Pictures are not read: one that is replaced by another of the same number of bytes goes unnoticed. The arrays of
        ``.npz`` files are known by their checksums, saved adversarial images by what their runs were.
        """
        digest = hashlib.blake2b(json.dumps([self.class_names, self.synsets]).encode(), digest_size=16)
        for name, labels in zip(self.names, self.all_labels, strict=True):
            digest.update(json.dumps([name, labels]).encode())
        for path in self.reader.files():
            digest.update(f"{_fingerprint(path)} ".encode())
        return digest.hexdigest()


@final
@dataclass(frozen=True, eq=False)
class _Some:
    """Reads the images at some places of another reader."""

    reader: Reader
    places: tuple[int, ...]

    def read(self, index: int) -> PILImage.Image | Image | Mapping[str, AttackResult]:
        return self.reader.read(self.places[index])

    def files(self) -> Iterable[Path]:
        return self.reader.files()


def _fingerprint(path: Path) -> str:
    """Tell a file from another of its name, without reading what may be large."""
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return str([(entry.filename, entry.CRC) for entry in archive.infolist()])
        return path.read_text(encoding="utf-8") if path.suffix == ".json" else str(path.stat().st_size)
    except Exception:  # damaged archives make zipfile stumble in many ways
        return "missing"
