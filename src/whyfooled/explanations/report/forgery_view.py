"""A forged explanation beside the honest one, in pictures: for a page, and for a folder."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as PILImage

from whyfooled.attacks.forgery import Forgery
from whyfooled.drawing.html import write_data_uri
from whyfooled.drawing.pictures import Scale, draw_map
from whyfooled.explanations.report.forgery import QUESTION, write_forgery_sentence
from whyfooled.images import to_picture

_OF = ("clean", "honest", "forged")
"""What the three maps are of."""


def prepare_forgery(forgery: Forgery, numbers: dict[str, Any]) -> dict[str, Any]:
    """Prepare what a page shows of a forged explanation."""
    scale = Scale(**numbers["scale"])
    ramp = torch.linspace(0, scale.end, 128).view(1, 1, -1)
    return {
        "question": QUESTION,
        "numbers": numbers,
        "sentence": write_forgery_sentence(numbers),
        "maps": [{"of": of, "uri": write_data_uri(picture)} for of, picture in _draw_maps(forgery, scale).items()],
        "image": write_data_uri(to_picture(forgery.image)),
        "ramp": write_data_uri(draw_map(ramp, scale)),
        "high": f"{scale.end * forgery.maps[0].numel():.2g}",
    }


def draw_forgery_pictures(forgery: Forgery, numbers: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw the forged image and the three maps, on one scale, by the names of their files."""
    drawn = _draw_maps(forgery, Scale(**numbers["scale"]))
    return {"forgery": to_picture(forgery.image)} | {f"forgery-map-{of}": picture for of, picture in drawn.items()}


def _draw_maps(forgery: Forgery, scale: Scale) -> dict[str, PILImage.Image]:
    return {of: draw_map(own.unsqueeze(0), scale) for of, own in zip(_OF, forgery.maps, strict=True)}
