"""Images from the arrays of an ``.npz`` file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image as PILImage

from whyfooled.classifier.memory import memory_built_in
from whyfooled.errors import ImageError, did_you_mean, first_line
from whyfooled.images import is_file
from whyfooled.sources._source import Source
from whyfooled.types import Image


@final
@dataclass(frozen=True)
class NpzReader:
    """Reads images from one array of an ``.npz`` file.

    An array that is stored without compression (``numpy.savez``) stays in the file, and processes share its pages; a
    compressed one is decompressed into memory when its first image is read.

    Parameters
    ----------
    path
        The file, absolute.
    array
        The array's name.
    """

    path: Path
    array: str

    def read(self, index: int) -> PILImage.Image | Image:
        """Read one image: an 8-bit picture, or a tensor of an array of floats."""
        return _as_image(self._pixels[index], f"{self.path}: image {index} of {self.array}")

    def files(self) -> Iterable[Path]:
        """Name the file."""
        return (self.path,)

    @cached_property
    def _pixels(self) -> Any:
        try:
            return _mapped(self.path, self.array)
        except Exception as error:  # zipfile, zlib and NumPy each have their own
            raise error if isinstance(error, ImageError) else _unreadable(self.path, error) from None

    def __reduce__(self) -> tuple[object, ...]:
        # Without the array, which another process opens by itself.
        return type(self), (self.path, self.array)


@final
@dataclass(frozen=True)
class _Array:
    """What the header of an array says of it, and where its values are: in an archive's entry, after the header."""

    name: str
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    entry: zipfile.ZipInfo
    header: int

    @staticmethod
    def of(archive: zipfile.ZipFile, name: str) -> _Array:
        entry = archive.getinfo(f"{name}.npy")
        with archive.open(entry) as member:
            shape, fortran, dtype = _header(member)
            return _Array(name, shape, fortran, dtype, entry, member.tell())

    def check_size(self, path: Path) -> None:
        """Raise `ImageError` if there are fewer values than the header says, or more than can be decompressed."""
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > self.entry.file_size - self.header:
            raise ImageError(
                f"{path} is damaged: {self.name} should have {size} bytes, for the shape {self.shape}, and has "
                f"{self.entry.file_size - self.header}."
            )
        if self.entry.compress_type != zipfile.ZIP_STORED and size > memory_built_in():
            raise ImageError(
                f"{path}: {self.name} takes {_gigabytes(size)} when it is decompressed, and this machine has "
                f"{_gigabytes(memory_built_in())} of memory. Save it with numpy.savez, without compression: it then "
                "stays in the file."
            )


_LISTED = 256
"""About how many bytes the name and the labels of an image take. [ours]"""


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _mapped(path: Path, name: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        array = _Array.of(archive, name)
    array.check_size(path)
    entry = array.entry
    if entry.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    with path.open("rb") as file:
        # The local header: 30 bytes, of which 26 to 29 tell the lengths of the name and of what follows it.
        file.seek(entry.header_offset + 26)
        lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
    start = entry.header_offset + 30 + lengths + array.header
    return np.memmap(path, array.dtype, "r", start, array.shape, "F" if array.fortran else "C")


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read: Any = npy.read_array_header_1_0 if npy.read_magic(member) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    return shape, fortran, dtype


def _unreadable(path: Path, error: Exception) -> ImageError:
    return ImageError(f"{path} cannot be read as an .npz file: {first_line(error)}.")


def open_npz(place: str, title: str) -> Source:
    """List the images of an ``.npz`` file.

    The arrays are ``images``, (n,h,w,3), (n,h,w,1) or (n,h,w), and, if labels are known, ``labels``, (n,) or (n,1)
    whole numbers; or ``eval_images`` and ``eval_labels``, chosen by ``file.npz:eval``, or by themselves where they are
    the only ones. Images of 8 bits are pictures, which a classifier resizes; floats in [0, 1] go into it as they are. A
    compressed array may not be larger than the machine's memory.
    """
    before, suffix, prefix = place.partition(".npz:")
    path = Path(before + ".npz" if suffix else place).absolute()
    if not is_file(path):
        raise ImageError(f"There is no file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = [name.removesuffix(".npy") for name in archive.namelist()]
            chosen = _choose(path, arrays, prefix)
            images = _Array.of(archive, f"{chosen}images")
            labels = _Array.of(archive, f"{chosen}labels") if f"{chosen}labels" in arrays else None
        _check_images(path, images.name, images.shape, images.dtype)
        images.check_size(path)
        if images.shape[0] * _LISTED > memory_built_in():
            raise ImageError(f"{path} has {images.shape[0]} images, and this machine's memory cannot list as many.")
        shown = _shown(path, labels, images.shape[0])
    except ImageError:
        raise
    except Exception as error:  # as above
        raise _unreadable(path, error) from None
    names = tuple(f"{chosen.replace('_', '/')}{number}" for number in range(images.shape[0]))
    return Source(title, names, shown, NpzReader(path, images.name))


def _choose(path: Path, arrays: list[str], prefix: str) -> str:
    """Return what stands before ``images`` in the array's name: nothing, or a prefix with ``_``."""
    prefixes = [name.removesuffix("images") for name in arrays if name == "images" or name.endswith("_images")]
    if not prefixes:
        raise ImageError(f"{path} must have an array called images, or PREFIX_images; found {', '.join(arrays)}.")
    if prefix:
        if f"{prefix}_" not in prefixes:
            known = [found.rstrip("_") for found in prefixes if found]
            raise ImageError(f"{path} has no array {prefix}_images. {did_you_mean(prefix, known)}".rstrip())
        return f"{prefix}_"
    if "" not in prefixes and len(prefixes) > 1:
        choices = " or ".join(f"{path.name}:{found.rstrip('_')}" for found in prefixes)
        raise ImageError(f"{path} has several arrays of images. Give {choices}.")
    return "" if "" in prefixes else prefixes[0]


def _check_images(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise ImageError(
            f"{path}: {name} must have the channels last, (n, h, w, 3); got the shape {shape}. "
            "Transpose it: images.transpose(0, 2, 3, 1)."
        )
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)) or min(shape) < 1:
        raise ImageError(f"{path}: {name} must have the shape (n, h, w, 3), (n, h, w, 1) or (n, h, w); got {shape}.")
    if dtype != np.uint8 and dtype.kind != "f":
        raise ImageError(f"{path}: {name} must hold 8-bit values (uint8) or floats in [0, 1]; got {dtype}.")


def _shown(path: Path, labels: _Array | None, count: int) -> tuple[tuple[int, ...], ...]:
    """Read the labels: whole numbers, be they written as floats, in a row or in a column."""
    if labels is None:
        return ((),) * count
    rule = f"{path}: {labels.name} must hold a class index from 0 for each of the {count} images"
    kind = f"the shape {labels.shape}, {labels.dtype}"
    if labels.shape not in ((count,), (count, 1)):
        one_hot = len(labels.shape) == 2 and labels.shape[0] == count
        raise ImageError(f"{rule}; got {kind}.{' Of one-hot rows, give labels.argmax(1).' if one_hot else ''}")
    if labels.dtype.kind not in "iuf":
        raise ImageError(f"{rule}; got {kind}. Convert them: labels.astype(int).")
    labels.check_size(path)
    with np.load(path, allow_pickle=False) as arrays:
        values = arrays[labels.name].reshape(count)
    strange = values[~((values >= 0) & np.isfinite(values) & (values == np.floor(values)))]
    if len(strange):
        what = "negative ones" if (strange < 0).all() else f"such as {strange[0]}"
        raise ImageError(f"{rule}; got {kind}, with {what}. Leave out images whose class is not known.")
    return tuple((int(label),) for label in values.tolist())


def _as_image(pixels: Any, what: str) -> PILImage.Image | Image:
    """Turn pixels (h,w), (h,w,1) or (h,w,3) into a picture if they are 8-bit, and into a tensor if they are floats."""
    pixels = np.asarray(pixels)
    if pixels.dtype == np.uint8:
        return PILImage.fromarray(np.array(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels))
    values = np.array(pixels, dtype=np.float32).reshape(*pixels.shape[:2], -1)
    if not (values >= 0).all() or not (values <= 1).all():
        raise ImageError(f"{what} must hold values in [0, 1]; they go from {values.min():.4g} to {values.max():.4g}.")
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()
