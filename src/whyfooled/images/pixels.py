"""Photographs as tensors and tensors as pictures, and digests of their content."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.errors import ImageError
from whyfooled.types import Image

_MODES = {1: "L", 3: "RGB"}

PICTURE_CHANNELS = tuple(_MODES)
"""How many channels a picture has: one in grey, or three."""


def to_tensor(photograph: PILImage.Image, channels: int = 3) -> Image:
    """Turn a photograph into a float32 tensor with values in [0, 1]: (3,h,w), or (1,h,w) in grey.

    Grey is the luma of ITU-R BT.601, as Pillow and torchvision compute it.

    Raises
    ------
    ImageError
        If another number of channels is asked for.
    """
    if channels not in _MODES:
        raise ImageError(f"A photograph has 3 channels, or 1 in grey; {channels} cannot be made of it.")
    pixels = np.array(photograph.convert(_MODES[channels]), dtype=np.uint8).reshape(*photograph.size[::-1], channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255


def to_picture(image: Tensor) -> PILImage.Image:
    """Turn a tensor (3,h,w), or a grey one (1,h,w), into an 8-bit RGB picture.

    For looking at, because rounding loses small perturbations. Of another number of channels, which no screen has
    colours for, it shows the mean in grey.
    """
    image = image if len(image) in _MODES else image.mean(0, keepdim=True)
    pixels = (image.detach().expand(3, -1, -1).clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    return PILImage.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def content_digest(image: PILImage.Image | Image) -> str:
    """Return a digest of the pixels in 8 bits: the same for equal images under any name or type, grey or not."""
    if isinstance(image, Tensor) and len(image) not in _MODES:
        levels = (image.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous()
        content = repr(tuple(levels.shape)).encode() + levels.numpy().tobytes()
        return hashlib.blake2b(content, digest_size=8).hexdigest()
    picture = to_picture(image) if isinstance(image, Tensor) else image.convert("RGB")
    return hashlib.blake2b(repr(picture.size).encode() + picture.tobytes(), digest_size=8).hexdigest()
