"""A perturbation's effect in pictures: for a page, and for a folder."""

from __future__ import annotations

from typing import Any

from PIL import Image as PILImage

from whyfooled.drawing.html import write_data_uri
from whyfooled.drawing.pictures import Scale
from whyfooled.drawing.style import INK, as_png, as_svg
from whyfooled.explanations.report.effect_figure import draw_effect
from whyfooled.explanations.report.evidence_view import CLASSES, draw_maps, prepare_maps
from whyfooled.explanations.report.region_picture import PALETTES, draw_ramp, draw_regions
from whyfooled.perturbation.effect import Effect
from whyfooled.types import Image

_SHOWN = (("clean", "true"), ("adversarial", "wrong"))
"""What the regions are drawn on: each image, and the map of the class that it is given (Xu et al. 2019, fig. 1)."""


def prepare_effect(effect: Effect, numbers: dict[str, Any], images: dict[str, Image]) -> dict[str, Any]:
    """Prepare what a page shows of an effect.

    Parameters
    ----------
    effect
        What the perturbation does.
    numbers
        The numbers of the page, the effect's among them.
    images
        (c,h,w) The ``"clean"`` and the ``"adversarial"`` image.
    """
    facts = numbers["effect"]
    names = (numbers["true"]["name"], numbers["wrong"]["name"])
    pictures = _draw_regions(effect, facts, images)
    end = None if effect.cams is None else facts["cam"]["scale"]["end"]
    return {
        "palettes": [
            {
                "name": name,
                "ramp": None if end is None else write_data_uri(draw_ramp(palette)),
                "high": "" if end is None else f"{end:.2g}",
                "kinds": [
                    {"name": kind, "colour": palette.of(kind), "colour_name": called}
                    for kind, called in zip(("suppression", "promotion", "balanced"), palette.names, strict=True)
                ],
                "pictures": [
                    {"image": image, "of": cls, "uri": write_data_uri(pictures[name, image])} for image, cls in _SHOWN
                ],
            }
            for name, palette in PALETTES.items()
        ],
        "figure": as_svg(draw_effect(effect.sensitivity, *names, ink=INK)),
        "row": None if effect.cams is None else prepare_maps(effect.cams, facts["cam"]),
    }


def _draw_regions(
    effect: Effect, facts: dict[str, Any], images: dict[str, Image]
) -> dict[tuple[str, str], PILImage.Image]:
    """Draw the regions, by palette and image."""
    pictures = {}
    for number, (image, cls) in enumerate(_SHOWN):
        cam = None if effect.cams is None else effect.cams.maps[number, CLASSES.index(cls)]
        scale = None if cam is None else Scale(**facts["cam"]["scale"])
        for name, palette in PALETTES.items():
            pictures[name, image] = draw_regions(effect.sensitivity, images[image], cam, scale, palette)
    return pictures


def draw_effect_pictures(effect: Effect, facts: dict[str, Any], images: dict[str, Image]) -> dict[str, PILImage.Image]:
    """Draw the regions in every palette and the class activation maps, by the names of their files."""
    regions = {
        f"regions-{image}-{name}": picture for (name, image), picture in _draw_regions(effect, facts, images).items()
    }
    return regions if effect.cams is None else regions | draw_maps(effect.cams, facts["cam"])


def draw_effect_png(effect: Effect, numbers: dict[str, Any]) -> bytes:
    """Draw the figure of the effect over the regions as PNG."""
    return as_png(draw_effect(effect.sensitivity, numbers["true"]["name"], numbers["wrong"]["name"]))
