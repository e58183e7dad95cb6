"""How far an image's maps can be trusted, in pictures: for a page, and for a folder."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as PILImage

from whyfooled.drawing.html import write_data_uri
from whyfooled.drawing.pictures import Scale, draw_delta, draw_map, magnification
from whyfooled.explanations.report.evidence_view import make_file_name
from whyfooled.explanations.report.trust import (
    SHOWN,
    TOP_TEXT,
    list_trust_headings,
    write_trust_sentences,
    write_verdict,
)
from whyfooled.images import to_picture
from whyfooled.types import Image
from whyfooled.universal.trust import MapTrust, Trust

_UNDER = ("clean", "universal", "random")
"""What each method's three maps are of."""


def prepare_trust(trust: Trust, clean: Image, numbers: dict[str, Any]) -> dict[str, Any]:
    """Prepare what a page shows of a universal perturbation.

    Parameters
    ----------
    trust
        How much the maps change.
    clean
        (c,h,w) The clean image.
    numbers
        Its numbers.
    """
    factor = magnification(trust.delta)
    return {
        "numbers": numbers,
        "sentence": write_trust_sentences(numbers)[0],
        "image": write_data_uri(to_picture(clean + trust.delta)),
        "delta": write_data_uri(draw_delta(trust.delta, factor)),
        "magnification": f"{factor:,.0f}" if factor >= 10 else f"{factor:.2g}",
        "top": TOP_TEXT,
        "headings": list_trust_headings(),
        "rows": [
            _prepare_row(one, facts, numbers) for one, facts in zip(trust.methods, numbers["methods"], strict=True)
        ],
    }


def _prepare_row(map_trust: MapTrust, facts: dict[str, Any], numbers: dict[str, Any]) -> dict[str, Any]:
    scale = Scale(**facts["scale"])
    ramp = torch.linspace(0, scale.end, 128).view(1, 1, -1)
    return {
        "facts": facts,
        "verdict": write_verdict(facts, numbers),
        "maps": [
            {"under": under, "uri": write_data_uri(picture)}
            for under, picture in zip(_UNDER, _draw_maps(map_trust, scale), strict=True)
        ],
        "ramp": write_data_uri(draw_map(ramp, scale)),
        "high": f"{scale.end * map_trust.maps[0].numel():.2g}",
        "cells": [(facts["universal"][name], facts["random"][name]["mean"]) for name in SHOWN],
    }


def _draw_maps(map_trust: MapTrust, scale: Scale) -> list[PILImage.Image]:
    return [draw_map(own.unsqueeze(0), scale) for own in map_trust.maps]


def draw_trust_pictures(trust: Trust, numbers: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw the perturbation and each method's three maps, on one scale, by the names of their files."""
    pictures = {"trust-delta": draw_delta(trust.delta, magnification(trust.delta))}
    for map_trust, facts in zip(trust.methods, numbers["methods"], strict=True):
        drawn = _draw_maps(map_trust, Scale(**facts["scale"]))
        pictures |= {
            f"trust-{make_file_name(map_trust.method)}-{under}": own for under, own in zip(_UNDER, drawn, strict=True)
        }
    return pictures
