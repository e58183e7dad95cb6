"""Label maps: files that say of every pixel which region, or which concept, it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image as PILImage
from PIL import ImageOps
from torch import Tensor

from whyfooled.errors import ImageError
from whyfooled.images.reading import MOST_PIXELS, read_array, read_picture

_WHOLE_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B")


def read_label_map(path: str | Path) -> Int[Tensor, "h w"]:
    """Read a label map: a number for every pixel.

    Parameters
    ----------
    path
        ``.npy`` with whole numbers (h,w); or a picture, lossless, whose grey levels or palette indices are the numbers,
        turned as its EXIF orientation says, as a photograph is.

    Returns
    -------
    Tensor
        (h,w), int64.

    Raises
    ------
    ImageError
        If there is no such file, or it holds something else.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        try:
            values = read_array(path, MOST_PIXELS)
        except (OSError, ValueError, EOFError) as error:
            raise ImageError(f"{path} cannot be read as a label map: {str(error).rstrip('.')}.") from None
    else:
        values = np.asarray(read_picture(path, lambda picture: _check_whole(path, picture)))
    if values.ndim != 2 or values.dtype.kind not in "iub":
        content = f"{values.dtype} of the shape {values.shape}"
        raise ImageError(f"{path} must hold a whole number for every pixel, (height, width); found {content}.")
    return torch.from_numpy(values.astype(np.int64))


def _check_whole(path: Path, picture: PILImage.Image) -> PILImage.Image:
    if picture.mode not in _WHOLE_NUMBERS or picture.format == "JPEG":
        content = "a JPEG, which changes them" if picture.format == "JPEG" else f"a picture of the mode {picture.mode}"
        raise ImageError(
            f"{path} must have one whole number for every pixel: grey levels or a palette; found {content}."
        )
    return ImageOps.exif_transpose(picture)
