"""What an attack does to hidden units, in pictures: for a page, and for a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.drawing.html import write_data_uri
from whyfooled.drawing.outlines import enlarge
from whyfooled.explanations.report.evidence_view import IMAGES, make_file_name
from whyfooled.explanations.report.units import list_falling, list_rising
from whyfooled.images import to_picture
from whyfooled.types import Image
from whyfooled.units.changes import LayerChanges, UnitChanges

PICTURED = 4
"""How many units are drawn, for each layer: half of them detectors, if there are so many. [ours]"""

MOST_CONCEPTS = 8
"""How many concepts that fall, and that rise, are listed. [ours]"""

_SIDE = 224
"""The least length of the shorter side of what outlines are drawn on, in pixels."""
_WIDTH = 80
"""How often a line's width, white or black, fits into the shorter side."""


def prepare_units(
    changes: UnitChanges, numbers: Mapping[str, Any], size: tuple[int, int] | torch.Size
) -> dict[str, Any]:
    """Prepare what a page shows of the units.

    Parameters
    ----------
    changes
        What becomes of the units.
    numbers
        Its numbers.
    size
        Height and width of the images.
    """
    return {
        "numbers": numbers,
        "layers": [
            {
                "facts": facts,
                "pictured": [
                    {"facts": unit, "image": image, "uri": write_data_uri(draw_outline(inside))}
                    for unit, image, inside in _list_pictured(layer, facts, size)
                ],
                "falling": _prepare_bars(list_falling(facts), "true_effect", numbers["logit_change"]["true"]),
                "rising": _prepare_bars(list_rising(facts), "wrong_effect", numbers["logit_change"]["wrong"]),
            }
            for layer, facts in zip(changes.layers, numbers["layers"], strict=True)
        ],
    }


def _prepare_bars(concepts: list[dict[str, Any]], effect: str, change: float) -> dict[str, Any]:
    """Prepare bars: an effect as large as the logit's change, or larger, is as long as there is room."""
    shown = concepts[:MOST_CONCEPTS]
    # Where the logit does not change at all, each effect is undone by others.
    lengths = [min(1.0, abs(one[effect] / change)) if change else 1.0 for one in shown]
    return {
        "rows": [
            {"facts": one, "effect": one[effect], "length": length} for one, length in zip(shown, lengths, strict=True)
        ],
        "more": len(concepts) - len(shown),
    }


def draw_unit_pictures(
    changes: UnitChanges, numbers: Mapping[str, Any], images: Mapping[str, Image]
) -> dict[str, PILImage.Image]:
    """Draw the areas in which units are active over both images, by the names of their files."""
    pictures = {}
    size = images["clean"].shape[1:]
    for layer, facts in zip(changes.layers, numbers["layers"], strict=True):
        for unit, image, inside in _list_pictured(layer, facts, size):
            outline = draw_outline(inside)
            picture = to_picture(images[image]).resize(outline.size, PILImage.Resampling.BICUBIC).convert("RGB")
            picture.paste(outline, mask=outline)
            pictures[f"units-{make_file_name(layer.name)}-{unit['unit']}-{image}"] = picture
    return pictures


def _list_pictured(
    layer: LayerChanges, facts: Mapping[str, Any], size: tuple[int, int] | torch.Size
) -> Iterator[tuple[dict[str, Any], str, Bool[Tensor, "h w"]]]:
    """Go over the units to be drawn and both images, with the pixels at which the unit is active."""
    for unit in _choose_pictured(facts):
        for image, maps in zip(IMAGES, layer.maps, strict=True):
            yield unit, image, find_active_area(maps[unit["unit"]] - layer.dissected.threshold[unit["unit"]], size)


def _choose_pictured(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choose units that are active somewhere in either image: those that changed most, and detectors among them."""
    top, detectors = (
        [unit for unit in facts[which] if any(unit["active"].values())] for which in ("top", "top_detectors")
    )
    kept = [*detectors[: PICTURED // 2], *(unit for unit in top if unit not in detectors[: PICTURED // 2])]
    return sorted(kept[:PICTURED], key=lambda unit: -unit["relative"])


def find_active_area(excess: Float[Tensor, "h w"], size: tuple[int, int] | torch.Size) -> Bool[Tensor, "p q"]:
    """Tell where a map, less its unit's threshold and enlarged bilinearly, is above 0: as a dissection counts.

    Parameters
    ----------
    excess
        (h,w) The map, less the threshold.
    size
        Height and width of the image.

    Returns
    -------
    Tensor
        (p,q) For every pixel of the image or, if it is small, of one a whole number of times as large.
    """
    height, width = size
    times = -(-_SIDE // min(height, width))
    return enlarge(excess.unsqueeze(0), (times * height, times * width))[0] > 0


def draw_outline(inside: Bool[Tensor, "h w"]) -> PILImage.Image:
    """Draw the edge of an area, white on its inner side and black on the outer one; all else is transparent."""
    width = max(1, min(inside.shape) // _WIDTH)
    white, black = inside & _grow(~inside, width), ~inside & _grow(inside, width)
    colour = torch.where(white, 255, 0).to(torch.uint8)
    alpha = torch.where(white | black, 255, 0).to(torch.uint8)
    return PILImage.fromarray(torch.stack([colour, colour, colour, alpha], dim=2).numpy(), "RGBA")


def _grow(area: Tensor, by: int) -> Tensor:
    return F.max_pool2d(area[None, None].float(), 2 * by + 1, stride=1, padding=by)[0, 0] > 0
