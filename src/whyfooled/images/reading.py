"""Images from files and to files: decoded within limits, tensors without loss, all written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from whyfooled.errors import ImageError, WhyfooledWarning
from whyfooled.images.pixels import to_tensor
from whyfooled.types import Images

MOST_PIXELS = 100_000_000
FEWEST_PIXELS_A_SIDE = 8
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
TENSOR_SUFFIXES = (".safetensors", ".npy", ".pt", ".pth")


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
        If the file is missing, is not such an image, is damaged, or has a side under 8 pixels or over 100 megapixels.
    """
    return read_picture(Path(path), lambda file: _to_rgb(Path(path), ImageOps.exif_transpose(file)))


def read_picture(path: Path, convert: Callable[[PILImage.Image], PILImage.Image]) -> PILImage.Image:
    """Read an image file and convert it; `ImageError` says what is wrong with a file that cannot be read."""
    if not is_file(path):
        raise ImageError(f"There is no image file {path}{': it is a folder' if is_folder(path) else ''}.")
    try:
        # Pillow's own warning starts at 89 megapixels; ours is the limit that holds.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            with PILImage.open(path, formats=FORMATS) as file:
                _check_size(path, *file.size)
                file.load()
                return convert(file)
    except PILImage.DecompressionBombError:
        raise ImageError(
            f"{path} is larger than {_MEGAPIXELS} megapixels, the most that is read. Shrink it first."
        ) from None
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image of a known format ({', '.join(_FORMAT_NAMES)}).") from None
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
        raise ImageError(f"{path} has {image.mode} pixels of no known range; save it with 8 or 16 bits a channel.")
    eight_bits = np.round(values.astype(np.float64) / 257).astype(np.uint8)
    return PILImage.fromarray(eight_bits).convert("RGB")


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
        warnings.warn(
            f"{path} has 8 bits a channel, so its perturbation is rounded to steps of 1/255 and may no longer fool the "
            "model. Save adversarial images as float32 tensors (.safetensors, .npy, .pt).",
            WhyfooledWarning,
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


def _read_tensor(path: Path, wanted: tuple[str, ...]) -> Tensor:
    try:
        if path.suffix.lower() == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        content = (
            load_file(path)
            if path.suffix.lower() == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, ValueError, OSError, EOFError, RuntimeError) as error:
        raise ImageError(f"{path} cannot be read as a tensor: {_first_line(error)}") from None
    except Exception:  # torch.load raises pickle's own error for anything that is not a tensor
        raise ImageError(f"{path} must hold a tensor and nothing else; it was not unpickled.") from None
    if isinstance(content, dict):
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        for name in wanted:
            if name in tensors:
                return tensors[name]
        if len(tensors) == 1:
            return next(iter(tensors.values()))
        names = ", ".join(map(str, content)) or "none"
        raise ImageError(f"{path} must hold one tensor, or one called '{wanted[-1]}'; found {names}.")
    if not isinstance(content, Tensor):
        raise ImageError(f"{path} must hold a tensor; found {type(content).__name__}.")
    return content


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."


def _check_input(path: Path, tensor: Tensor, shape: tuple[int, int, int]) -> Images:
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
    tensor = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
    if not torch.isfinite(tensor).all():
        raise ImageError(f"{path} must hold finite values; it has NaN or infinite ones.")
    low, high = float(tensor.min()), float(tensor.max())
    if low < -1e-6 or high > 1 + 1e-6:
        fix = "Divide it by 255." if low >= 0 and high <= 255 else "Undo the model's normalisation first."
        raise ImageError(f"{path} must hold values in [0, 1]; they go from {low:.4g} to {high:.4g}. {fix}")
    return tensor.clamp(0, 1).contiguous().unsqueeze(0)
