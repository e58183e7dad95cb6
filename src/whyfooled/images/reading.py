"""Images from files and to files: decoded within limits, tensors without loss, all written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from whyfooled.errors import ImageError, first_line, warn
from whyfooled.images.mistaken import recognise_mistaken
from whyfooled.images.pixels import to_tensor
from whyfooled.images.seals import is_whole_file
from whyfooled.types import Images

MOST_PIXELS = 100_000_000
FEWEST_PIXELS_A_SIDE = 8
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
TENSOR_SUFFIXES = (".safetensors", ".npy", ".pt", ".pth")
_MOST_NUMBERS = 3 * MOST_PIXELS
_NPY, _ZIP = b"\x93NUMPY", b"PK"
"""How a file of an array begins, and one of several."""
_NAMED = 5


def example_photograph() -> PILImage.Image:
    """Return the photograph of the examples: a cup of coffee by Rachel Michetti, among scikit-image's files (CC0)."""
    with resources.as_file(resources.files("skimage.data") / "coffee.png") as path:
        return read_photograph(path)


def read_photograph(path: str | Path) -> PILImage.Image:
    """Read an image file as 8-bit RGB, upright.

    JPEG, PNG, WebP, BMP and TIFF; grey, palette, CMYK and 16-bit images are converted, transparency is laid on white,
    and the EXIF orientation is applied. The size is checked before any pixel is decoded.

    Raises
    ------
    ImageError
        If the file is missing, is not such an image, is damaged, has a side under 8 pixels or over 100 megapixels, or
        pixels of no known range: floats, or whole numbers of 32 bits.

    Warns
    -----
    WhyfooledWarning
        If it has 16 bits a channel and only values of 12.
    """
    path = Path(path)
    photograph, largest = read_picture(path, lambda file: _decode(path, file))
    if 0 < largest < _TWELVE_BITS:
        warn(
            f"{path} has 16 bits a channel and no value above {largest} of 65535, as if it held values of 12 bits, so "
            "it comes out nearly black. Multiply its values by 16 and save it again.",
            stacklevel=2,
        )
    return photograph


Converted = TypeVar("Converted")


def read_picture(path: Path, convert: Callable[[PILImage.Image], Converted]) -> Converted:
    """Read an image file and convert it; `ImageError` says what is wrong with a file that cannot be read."""
    if not is_file(path):
        raise ImageError(f"There is no image file {path}{': it is a folder' if is_folder(path) else ''}.")
    try:
        # Pillow's own warning starts at 89 megapixels; ours is the limit that holds.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            with PILImage.open(path, formats=FORMATS) as file:
                _check_size(path, *file.size)
                # Of a TIFF that is to be turned, Pillow maps the file with height and width exchanged, which scrambles
                # its pixels. Without a name it maps none.
                file.filename = ""
                file.load()
                return convert(file)
    except PILImage.DecompressionBombError:
        raise ImageError(
            f"{path} is larger than {_MEGAPIXELS} megapixels, the most that is read. Shrink it first."
        ) from None
    except UnidentifiedImageError:
        mistaken = recognise_mistaken(path)
        what = f": it is {mistaken}" if mistaken else ""
        raise ImageError(f"{path} is not an image of a known format ({', '.join(_FORMAT_NAMES)}){what}.") from None
    except ImageError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise whatever they stumble over
        raise ImageError(
            f"{path} cannot be read as an image: {str(error).rstrip('.') or type(error).__name__}."
        ) from None


_MEGAPIXELS = MOST_PIXELS // 1_000_000
_FORMAT_NAMES = ("JPEG", "PNG", "WebP", "BMP", "TIFF")


def is_file(path: Path) -> bool:
    """Tell whether a path is a file; no error for a name that the file system cannot have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_tensor_file(path: Path) -> bool:
    """Tell by its suffix whether a file holds a tensor."""
    return path.suffix.lower() in TENSOR_SUFFIXES


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; no error for a name that the file system cannot have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ImageError(
            f"{path} has {width} × {height} pixels; at most {_MEGAPIXELS} megapixels are read. Shrink it first."
        )
    if min(width, height) < FEWEST_PIXELS_A_SIDE:
        raise ImageError(f"{path} has {width} × {height} pixels; each side must have at least {FEWEST_PIXELS_A_SIDE}.")


def _to_rgb(path: Path, image: PILImage.Image) -> PILImage.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _convert_deep_grey(path, image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PILImage.new("RGBA", image.size, (255, 255, 255, 255))
        return PILImage.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _convert_deep_grey(path: Path, image: PILImage.Image) -> PILImage.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise _range_error(path, image.mode)
    eight_bits = np.round(values.astype(np.float64) / 257).astype(np.uint8)
    return PILImage.fromarray(eight_bits).convert("RGB")


def _range_error(path: Path, mode: str) -> ImageError:
    return ImageError(f"{path} has {mode} pixels of no known range; save it with 8 or 16 bits a channel.")


_TWELVE_BITS = 4096
"""One more than the largest value that 12 bits hold."""


def _decode(path: Path, file: PILImage.Image) -> tuple[PILImage.Image, int]:
    """Return the picture, and the largest value of a file with 16 bits a channel; 65535 of any other."""
    # A PNG of this mode has 16 bits; a TIFF has 32, or a sign.
    if file.mode == "I" and file.format != "PNG":
        raise _range_error(path, "integer (32 bits, or signed)")
    photograph = _to_rgb(path, ImageOps.exif_transpose(file))
    if file.mode.startswith("I"):
        return photograph, int(np.asarray(file).max())
    # Of colours Pillow keeps the upper 8 of 16 bits, without a word.
    if file.format in ("PNG", "TIFF") and file.mode in ("RGB", "RGBA"):
        largest = int(np.asarray(file.convert("RGB")).max())
        if 256 * largest + 255 < _TWELVE_BITS and _has_16_bits(path):
            return photograph, 256 * largest + 255 if largest else 0
    return photograph, 65535


def _has_16_bits(path: Path) -> bool:
    with PILImage.open(path, formats=FORMATS) as file:
        arguments = file.tile[0].args
    return ";16" in (arguments if isinstance(arguments, str) else str(arguments))


def read_adversarial(path: str | Path, shape: tuple[int, int, int]) -> Images:
    """Read an adversarial image made elsewhere: the tensor that was given to the model, values in [0, 1].

    Parameters
    ----------
    path
        ``.safetensors`` (the tensor ``adversarial``, or the only one), ``.npy``, ``.pt`` (tensors only, nothing is
        unpickled), or an image file, with a warning: 8 bits a channel round the perturbation.
    shape
        Channels, height and width of the classifier's input, which the image must have.

    Returns
    -------
    Tensor
        (1,c,h,w) float32.
    """
    path = Path(path)
    if not is_file(path):
        raise ImageError(f"There is no file {path} with an adversarial image.")
    if is_tensor_file(path):
        # Of a failed attack, what it tried last: its adversarial image is the clean one.
        tensor = _read_tensor(path, ("attempted", "adversarial"))
    else:
        tensor = to_tensor(read_photograph(path))
        warn(
            f"{path} has 8 bits a channel, so its perturbation is rounded to steps of 1/255 and may no longer fool the "
            "model. Save adversarial images as float32 tensors (.safetensors, .npy, .pt).",
            stacklevel=2,
        )
    return _check_input(path, tensor, shape)


def read_clean(path: Path, shape: tuple[int, int, int]) -> Images:
    """Read a clean image that goes into the model as it is: the tensor ``clean``, or the only one, values in [0, 1].

    Parameters
    ----------
    path
        ``.safetensors``, ``.npy`` or ``.pt`` (tensors only, nothing is unpickled).
    shape
        Channels, height and width of the classifier's input, which the image must have.

    Returns
    -------
    Tensor
        (1,c,h,w) float32.
    """
    if not is_file(path):
        raise ImageError(f"There is no file {path} with a clean image.")
    return _check_input(path, _read_tensor(path, ("clean",)), shape)


def read_array(path: Path, most: int) -> np.ndarray:
    """Read an ``.npy`` file of numbers, in the machine's own byte order; no more than so many.

    Raises
    ------
    ValueError
        If it holds something else, more numbers, or fewer than its header says.
    OSError, EOFError
        If it cannot be read.
    """
    with path.open("rb") as file:
        begins = file.read(len(_NPY))
    # NumPy takes whatever else it is for pickled objects, and advises to load it unsafely.
    if begins != _NPY and not begins.startswith(_ZIP):
        raise ValueError("it is no .npy file")
    # Mapped: a header that claims more than there is, or than an image has, must not cost any memory.
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OverflowError:
        raise ValueError("its header claims more numbers than a file can hold") from None
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive of arrays (.npz)")
    if array.dtype.kind not in "biufc":
        raise ValueError(f"it must hold numbers; got {array.dtype}")
    if array.size > most:
        raise ValueError(f"it has {array.size} numbers, in the shape {array.shape}; at most {most} are read")
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _read_tensor(path: Path, wanted: tuple[str, ...]) -> Tensor:
    mistaken = recognise_mistaken(path)
    if mistaken:
        raise ImageError(f"{path} cannot be read as a tensor: it is {mistaken}.")
    try:
        if path.suffix.lower() == ".safetensors" and is_whole_file(path) is False:
            raise ImageError(f"{path} is damaged: it is not as it was written. Make it again.")
        if path.suffix.lower() == ".npy":
            return torch.from_numpy(read_array(path, _MOST_NUMBERS))
        content = (
            load_file(path)
            if path.suffix.lower() == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{path} cannot be read as a tensor: it takes more memory than there is.") from None
    except (SafetensorError, ValueError, OSError, EOFError, RuntimeError, TypeError) as error:
        raise ImageError(f"{path} cannot be read as a tensor: {first_line(error)}.") from None
    except Exception:  # torch.load raises pickle's own error for anything that is not a tensor
        raise ImageError(f"{path} must hold a tensor and nothing else; it was not unpickled.") from None
    if isinstance(content, dict):
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        for name in wanted:
            if name in tensors:
                return tensors[name]
        if len(tensors) == 1:
            return next(iter(tensors.values()))
        listed = [str(name)[:40] for name in list(content)[:_NAMED]]
        names = ", ".join(listed + [f"{len(content) - _NAMED} more"] * (len(content) > _NAMED)) or "none"
        raise ImageError(f"{path} must hold one tensor, or one called '{wanted[-1]}'; found {names}.")
    if not isinstance(content, Tensor):
        raise ImageError(f"{path} must hold a tensor; found {type(content).__name__}.")
    return content


def is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor has a number for each place: it is not sparse, quantised, nested or without data."""
    return tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)


def describe_tensor(tensor: Tensor) -> str:
    """Say what a tensor is that is not plain."""
    if tensor.is_meta:
        return "a tensor without data (on the device meta)"
    return "a quantised tensor" if tensor.is_quantized else "a nested tensor" if tensor.is_nested else "a sparse tensor"


def _check_input(path: Path, tensor: Tensor, shape: tuple[int, int, int]) -> Images:
    if not is_plain(tensor):
        raise ImageError(
            f"{path} must hold a plain tensor of numbers; got {describe_tensor(tensor)}. Save the image as float32, "
            "dense and on the CPU."
        )
    if tensor.ndim == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tuple(tensor.shape) != shape and tensor.ndim == 3 and tuple(tensor.permute(2, 0, 1).shape) == shape:
        tensor = tensor.permute(2, 0, 1)
    if tuple(tensor.shape) != shape:
        raise ImageError(
            f"{path} must have the shape of the classifier's input, {shape}; got {tuple(tensor.shape)}. "
            "Give the tensor that was fed to the model."
        )
    if tensor.is_complex():
        raise ImageError(f"{path} must hold real numbers; got {tensor.dtype}.")
    try:
        tensor = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
    except (RuntimeError, TypeError):  # of types that only hold bits
        raise ImageError(f"{path} must hold numbers; got {tensor.dtype}. Save the image as float32.") from None
    if not torch.isfinite(tensor).all():
        raise ImageError(f"{path} must hold finite values; it has NaN or infinite ones.")
    low, high = float(tensor.min()), float(tensor.max())
    if low < -1e-6 or high > 1 + 1e-6:
        fix = "Divide it by 255." if low >= 0 and high <= 255 else "Undo the model's normalisation first."
        raise ImageError(f"{path} must hold values in [0, 1]; they go from {low:.4g} to {high:.4g}. {fix}")
    return tensor.clamp(0, 1).contiguous().unsqueeze(0)
