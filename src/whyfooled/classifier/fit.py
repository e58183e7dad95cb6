"""How a photograph is brought to a model's input size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, final

from PIL import Image as PILImage

from whyfooled.errors import ImageError, bad_parameter, did_you_mean
from whyfooled.images import MOST_PIXELS

Size = int | Sequence[int]
"""Height and width in pixels, or one number for both."""


@final
@dataclass(frozen=True, init=False)
class Fit:
    """How a photograph is brought to a model's input size: its shorter side resized, then the centre cut out.

    Parameters
    ----------
    size
        Height and width of the model's input, in pixels; one number for both.
    shorter_side
        Length of the photograph's shorter side after resizing, in pixels; the input's own size if None.
    interpolation
        ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.
    squash
        Whether the whole photograph is resized to `size` instead, its proportions lost.
    """

    size: tuple[int, int]
    shorter_side: int | None = None
    interpolation: str = "bicubic"
    squash: bool = False

    def __init__(
        self,
        size: Size,
        shorter_side: int | None = None,
        interpolation: str = "bicubic",
        squash: bool = False,
    ) -> None:
        if interpolation not in _INTERPOLATION:
            fix = did_you_mean(interpolation, _INTERPOLATION)
            raise bad_parameter("interpolation", "must be a known one", repr(interpolation), fix)
        fields = {"size": _read_size(size), "shorter_side": shorter_side, "interpolation": interpolation}
        for name, value in {**fields, "squash": squash}.items():
            object.__setattr__(self, name, value)

    def __call__(self, photograph: PILImage.Image) -> PILImage.Image:
        """Resize and crop a photograph to the model's input size."""
        height, width = self.size
        if self.squash:
            return photograph.resize((width, height), _INTERPOLATION[self.interpolation])
        resized, (left, top) = self._find_geometry(photograph.size)
        if resized[0] * resized[1] > MOST_PIXELS:
            raise ImageError(
                f"The photograph, {photograph.width} × {photograph.height} pixels, would need "
                f"{resized[0]} × {resized[1]} to fill the classifier's input of {width} × {height}. Crop it first."
            )
        if resized != photograph.size:
            photograph = photograph.resize(resized, _INTERPOLATION[self.interpolation])
        return photograph.crop((left, top, left + width, top + height))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return which part of a photograph of this width and height is left: left, top, right, bottom, from 0 to 1."""
        if self.squash:
            return 0.0, 0.0, 1.0, 1.0
        height, width = self.size
        resized, (left, top) = self._find_geometry(size)
        return left / resized[0], top / resized[1], (left + width) / resized[0], (top + height) / resized[1]

    def _find_geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the width and height that a photograph is resized to, and the left and top of what is cut out."""
        height, width = self.size
        # In whole numbers, and rounded as torchvision's Resize and CenterCrop do: half a pixel moves every pixel.
        ratios = [(height, size[1]), (width, size[0])]
        if self.shorter_side is not None:
            ratios.append((self.shorter_side, min(size)))
        wanted, given = max(ratios, key=lambda ratio: ratio[0] / ratio[1])
        resized = (max(width, size[0] * wanted // given), max(height, size[1] * wanted // given))
        return resized, (round((resized[0] - width) / 2), round((resized[1] - height) / 2))


def _read_size(size: Any) -> tuple[int, int]:
    """Return height and width; raise `ParameterError` for anything but one or two positive whole numbers."""
    try:
        sides = list(size) if isinstance(size, Iterable) and not isinstance(size, str | bytes) else [size]
        whole = [index(side) for side in sides if not isinstance(side, bool)]
    except TypeError:
        sides, whole = [], []
    if len(sides) not in (1, 2) or len(whole) < len(sides) or min(whole) < 1:
        rule = "must be two positive numbers of pixels, height and width, or one for both; whole numbers"
        raise bad_parameter("size", rule, repr(size))
    return whole[0], whole[-1]


_INTERPOLATION = {
    "nearest": PILImage.Resampling.NEAREST,
    "bilinear": PILImage.Resampling.BILINEAR,
    "bicubic": PILImage.Resampling.BICUBIC,
    "lanczos": PILImage.Resampling.LANCZOS,
}
