"""How a photograph is brought to a model's input size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal, final

from PIL import Image as PILImage

from whyfooled.classifier.extras import import_library
from whyfooled.errors import ImageError, bad_parameter, did_you_mean, one_of
from whyfooled.images import MOST_PIXELS

Engine = Literal["pillow", "torchvision"]
ENGINES: tuple[Engine, ...] = ("pillow", "torchvision")

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
    squashed
        Height and width, in pixels, that the whole photograph is resized to before the centre is cut out, its
        proportions lost.
    engine
        What resizes: ``"pillow"``, or ``"torchvision"``, on tensors, as most of Hugging Face's image processors do.
        They differ in the last of 256 levels of a few pixels.
    floor
        Whether the smaller half of an odd margin is cut off at the left and at the top, as by Hugging Face's image
        processors; rounded as torchvision does if not.
    """

    size: tuple[int, int]
    shorter_side: int | None = None
    interpolation: str = "bicubic"
    squash: bool = False
    squashed: tuple[int, int] | None = None
    engine: Engine = "pillow"
    floor: bool = False

    def __init__(
        self,
        size: Size,
        shorter_side: int | None = None,
        interpolation: str = "bicubic",
        squash: bool = False,
        squashed: Size | None = None,
        engine: Engine = "pillow",
        floor: bool = False,
    ) -> None:
        one_of("engine", engine, ENGINES)
        if interpolation not in _INTERPOLATION:
            fix = did_you_mean(interpolation, _INTERPOLATION)
            raise bad_parameter("interpolation", "must be a known one", repr(interpolation), fix)
        fields = {"size": _read_size(size), "shorter_side": shorter_side, "interpolation": interpolation}
        more = {"squash": squash, "squashed": squashed and _read_size(squashed)}
        for name, value in {**fields, **more, "engine": engine, "floor": floor}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # Runs are told apart by this, so what most do not use is left out.
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept = {name: value for name, value in given.items() if name not in _LATER or value != _LATER[name]}
        return f"Fit({', '.join(f'{name}={value!r}' for name, value in kept.items())})"

    def __call__(self, photograph: PILImage.Image) -> PILImage.Image:
        """Resize and crop a photograph to the model's input size."""
        height, width = self.size
        if self.squash:
            return self._resize(photograph, (width, height))
        resized, (left, top) = self._find_geometry(photograph.size)
        if resized[0] * resized[1] > MOST_PIXELS:
            raise ImageError(
                f"The photograph, {photograph.width} × {photograph.height} pixels, would need "
                f"{resized[0]} × {resized[1]} to fill the classifier's input of {width} × {height}. Crop it first."
            )
        if resized != photograph.size:
            photograph = self._resize(photograph, resized)
        return photograph.crop((left, top, left + width, top + height))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return which part of a photograph of this width and height is left: left, top, right, bottom, from 0 to 1."""
        if self.squash:
            return 0.0, 0.0, 1.0, 1.0
        height, width = self.size
        resized, (left, top) = self._find_geometry(size)
        return left / resized[0], top / resized[1], (left + width) / resized[0], (top + height) / resized[1]

    def _resize(self, photograph: PILImage.Image, size: tuple[int, int]) -> PILImage.Image:
        """Resize a photograph to a width and a height."""
        if self.engine == "pillow" or photograph.mode not in ("RGB", "L"):
            return photograph.resize(size, _INTERPOLATION[self.interpolation])
        functional = import_library("torchvision.transforms.v2.functional")
        values = functional.resize(
            functional.pil_to_tensor(photograph), size[::-1], interpolation=_INTERPOLATION[self.interpolation].value
        )
        resized: PILImage.Image = functional.to_pil_image(values)
        return resized

    def _find_geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the width and height that a photograph is resized to, and the left and top of what is cut out."""
        height, width = self.size
        if self.squashed is not None:
            return self._place((max(width, self.squashed[1]), max(height, self.squashed[0])))
        # In whole numbers, and rounded as torchvision's Resize and CenterCrop do: half a pixel moves every pixel.
        ratios = [(height, size[1]), (width, size[0])]
        if self.shorter_side is not None:
            ratios.append((self.shorter_side, min(size)))
        wanted, given = max(ratios, key=lambda ratio: ratio[0] / ratio[1])
        resized = (max(width, size[0] * wanted // given), max(height, size[1] * wanted // given))
        return self._place(resized)

    def _place(self, resized: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return a width and height, and the left and top of the centre that is cut out of it."""
        height, width = self.size
        middle = int if self.floor else round
        return resized, (middle((resized[0] - width) / 2), middle((resized[1] - height) / 2))


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

_LATER: dict[str, object] = {"squashed": None, "engine": "pillow", "floor": False}
"""Parameters that were added later, with their defaults."""
