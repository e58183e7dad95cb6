"""The eleven basic colour names, read off the pixels: concepts for which nothing needs to be annotated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.errors import ImageError, at_least, bad_parameter
from whyfooled.sources import Source, open_source
from whyfooled.units.concepts.concepts import Annotated, ConceptReader, Concepts

COLOURS = ("black", "blue", "brown", "grey", "green", "orange", "pink", "purple", "red", "white", "yellow")
"""The basic colour names of English (Berlin & Kay 1969), in the order of van de Weijer et al. 2009."""
CATEGORY = "colour"
LONGEST = 256
"""The longer side of the label maps of photographs that have no other annotation, at most. [ours]"""


class _Area(NamedTuple):
    """Where a name holds: from the first of two bounds up to, not including, the second; hues in degrees."""

    name: str
    hue: tuple[float, float] = (-42, 318)
    lightness: tuple[float, float] = (0, 9)
    chroma: tuple[float, float] = (0, 9)


_AREAS = (
    # Strong colours, around the wheel.
    _Area("purple", hue=(-42, -30)),
    _Area("pink", hue=(-30, 6)),
    _Area("red", hue=(6, 34)),
    _Area("orange", hue=(34, 77)),
    _Area("yellow", hue=(77, 112)),
    _Area("green", hue=(112, 173)),
    _Area("blue", hue=(173, 288)),
    _Area("purple", hue=(288, 318)),
    # Dark pink is purple, the lightest purple next to it is pink; light red is pink unless it is strong; the
    # strongest and lightest green is yellow.
    _Area("pink", hue=(-42, -30), lightness=(0.85, 9)),
    _Area("purple", hue=(-30, -20), lightness=(0, 0.62)),
    _Area("purple", hue=(-20, 6), lightness=(0, 0.58)),
    _Area("pink", hue=(6, 20), lightness=(0.64, 9)),
    _Area("pink", hue=(20, 34), lightness=(0.64, 9), chroma=(0, 0.18)),
    _Area("yellow", hue=(112, 122), lightness=(0.926, 9), chroma=(0.19, 9)),
    # Brown is weak or dark orange; light, it is pink on the side of red (also light skin), and yellow on that of green.
    _Area("brown", hue=(6, 104), chroma=(0, 0.13)),
    _Area("brown", hue=(34, 104), lightness=(0, 0.56)),
    _Area("pink", hue=(6, 20), lightness=(0.63, 9), chroma=(0, 0.13)),
    _Area("pink", hue=(20, 35), lightness=(0.69, 9), chroma=(0, 0.13)),
    _Area("pink", hue=(35, 52), lightness=(0.75, 9), chroma=(0, 0.13)),
    _Area("pink", hue=(52, 70), lightness=(0.83, 9), chroma=(0, 0.13)),
    _Area("yellow", hue=(70, 104), lightness=(0.86, 9), chroma=(0, 0.13)),
    _Area("green", hue=(104, 112), lightness=(0, 0.74)),
    # No colour, or too dark for one.
    _Area("grey", chroma=(0, 0.04)),
    _Area("brown", hue=(35, 104), lightness=(0, 0.86), chroma=(0.034, 0.04)),
    _Area("white", lightness=(0.9, 9), chroma=(0, 0.04)),
    _Area("black", lightness=(0, 0.3), chroma=(0, 0.045)),
    _Area("black", lightness=(0, 0.2), chroma=(0, 0.09)),
    _Area("black", lightness=(0, 0.13)),
)
"""What stands later goes over what stands before; the first eight cover every colour. [ours]"""

# From linear sRGB to the responses of three kinds of cones, and from their cube roots to lightness and two opponent
# axes (Ottosson 2020).
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_OPPONENT = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def name_colours(picture: PILImage.Image) -> Int[Tensor, "h w"]:
    """Give every pixel one of the eleven basic colour names (Berlin & Kay 1969).

    Van de Weijer et al. 2009 (IEEE TIP 18:7) learned a table of names from photographs, and Bau et al. 2017 use it. The
    rule here is ours: bounds of hue, lightness and chroma in Oklab (Ottosson 2020), where blue does not turn into
    purple as it gets lighter, as it does in CIELAB. They are rounded from where the colours lie to which the
    participants of the XKCD colour survey (Munroe 2010) gave these names, and name more than nine in ten of these
    colours as they did. A pixel's surroundings do not count. [ours]

    Parameters
    ----------
    picture
        The picture, of any size; its pixels are taken for sRGB.

    Returns
    -------
    Tensor
        (h,w) Indices into `COLOURS`, int64, on the CPU.
    """
    hue, lightness, chroma = _to_oklab(torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.uint8)))
    colours = torch.zeros(hue.shape, dtype=torch.int64)
    for area in _AREAS:
        inside = torch.ones(hue.shape, dtype=torch.bool)
        for values, (low, high) in ((hue, area.hue), (lightness, area.lightness), (chroma, area.chroma)):
            inside &= (values >= low) & (values < high)
        colours[inside] = COLOURS.index(area.name)
    return colours


def _to_oklab(
    pixels: UInt8[Tensor, "h w 3"],
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Return hue (degrees, from −42 up to 318), lightness (0 to 1) and chroma (0 to about 0.32)."""
    levels = torch.arange(256) / 255
    # Of the 256 levels and not of every pixel: powers take long.
    linear = torch.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    cones = (linear[pixels.int()] @ torch.tensor(_CONES).T) ** (1 / 3)
    lightness, green_red, blue_yellow = (cones @ torch.tensor(_OPPONENT).T).unbind(-1)
    hue = torch.atan2(blue_yellow, green_red).rad2deg()
    return torch.where(hue < _AREAS[0].hue[0], hue + 360, hue), lightness, torch.hypot(green_red, blue_yellow)


def with_colours(concepts: Concepts) -> Concepts:
    """Add the category colour, with the eleven basic colour names, to annotated images.

    Its label map is made of the picture, brought to the size of the image's other label maps (bilinear, with
    antialiasing [ours]); it is annotated in every image.

    Parameters
    ----------
    concepts
        The annotated images; their own concepts keep their indices, colours come after them.

    Returns
    -------
    Concepts

    Raises
    ------
    ParameterError
        If there is a category of that name already.
    """
    if CATEGORY in concepts.categories:
        raise bad_parameter("colours", f"cannot be added to concepts that have a category {CATEGORY}", concepts.title)
    category, first = len(concepts.categories), len(concepts.names)
    return replace(
        concepts,
        names=(*concepts.names, *COLOURS),
        category_of=(*concepts.category_of, *[category] * len(COLOURS)),
        categories=(*concepts.categories, CATEGORY),
        reader=_WithColours(concepts.reader, category, first),
    )


@final
@dataclass(frozen=True)
class _WithColours:
    """Adds a label map of colours to what another reader reads; their category and the first one's index are given."""

    reader: ConceptReader
    category: int
    first: int

    def read(self, index: int) -> Annotated:
        annotated = self.reader.read(index)
        colours = name_colours(_resize(annotated.image, *annotated.maps.shape[:0:-1])) + self.first
        return replace(
            annotated,
            maps=torch.cat([annotated.maps, colours[None].to(annotated.maps.dtype)]),
            categories=(*annotated.categories, self.category),
        )

    def picture(self, index: int) -> PILImage.Image:
        return self.reader.picture(index)

    def files(self) -> Iterable[Path]:
        return self.reader.files()


def open_colours(place: str | Path, title: str | None = None, *, longest: int = LONGEST) -> Concepts:
    """Open photographs that nobody has annotated: their concepts are the eleven basic colour names.

    Parameters
    ----------
    place
        Photographs, or another source of pictures, as `whyfooled.sources.open_source` takes it.
    title
        What the concepts are called; the place if None.
    longest
        The longer side of the label maps, at most, in pixels: larger pictures are shrunk first. [ours]

    Returns
    -------
    Concepts

    Raises
    ------
    ImageError
        If there is no photograph; later, if one cannot be read, or is a tensor that goes into a classifier as it is.
    ParameterError
        If there is no such kind of source, or the side has less than one pixel.
    """
    at_least("longest", longest, 1)
    source = open_source(place)
    title = str(place) if title is None else title
    return Concepts(title, source.names, COLOURS, (0,) * len(COLOURS), (CATEGORY,), _Photographs(source, longest))


@final
@dataclass(frozen=True)
class _Photographs:
    """Reads pictures of a source, with a label map of colours."""

    source: Source
    longest: int

    def picture(self, index: int) -> PILImage.Image:
        sample = self.source[index]
        if isinstance(sample.image, Tensor):
            raise ImageError(
                f"{sample.name} of {self.source.title} must be a picture for its colours to be named; it is an array "
                "of floats that goes into a classifier as it is. Give the photographs themselves."
            )
        return sample.image

    def read(self, index: int) -> Annotated:
        picture = self.picture(index)
        scale = min(1, self.longest / max(picture.size))
        width, height = (max(1, round(scale * side)) for side in picture.size)
        maps = name_colours(_resize(picture, width, height))[None]
        return Annotated(self.source.name(index), picture, maps, (), (0,))

    def files(self) -> Iterable[Path]:
        return self.source.reader.files()


def _resize(picture: PILImage.Image, width: int, height: int) -> PILImage.Image:
    same = picture.size == (width, height)
    return picture if same else picture.convert("RGB").resize((width, height), PILImage.Resampling.BILINEAR)
