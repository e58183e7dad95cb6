"""How far an image's maps can be trusted, in pictures: for a page, and for a folder."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as PILImage

from whyfooled.drawing.html import data_uri
from whyfooled.drawing.pictures import Scale, delta_picture, magnification, map_picture
from whyfooled.explanations.report.evidence_view import file_name
from whyfooled.explanations.report.trust import SHOWN, TOP_TEXT, trust_headings, trust_sentences, verdict
from whyfooled.images import to_picture
from whyfooled.types import Image
from whyfooled.universal.trust import MapTrust, Trust

_UNDER = ("clean", "universal", "random")
"""What each method's three maps are of."""


def trust_view(trust: Trust, clean: Image, found: dict[str, Any]) -> dict[str, Any]:
    """Prepare what a page shows of a universal perturbation.

    Parameters
    ----------
    trust
        How far the maps move.
    clean
        (c,h,w) The clean image.
    found
        Its numbers.
    """
    factor = magnification(trust.delta)
    return {
        "found": found,
        "sentence": trust_sentences(found)[0],
        "image": data_uri(to_picture(clean + trust.delta)),
        "delta": data_uri(delta_picture(trust.delta, factor)),
        "magnification": f"{factor:,.0f}" if factor >= 10 else f"{factor:.2g}",
        "top": TOP_TEXT,
        "headings": trust_headings(),
        "rows": [_row(one, facts, found) for one, facts in zip(trust.methods, found["methods"], strict=True)],
    }


def _row(one: MapTrust, facts: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    scale = Scale(**facts["scale"])
    ramp = torch.linspace(0, scale.end, 128).view(1, 1, -1)
    return {
        "facts": facts,
        "verdict": verdict(facts, found),
        "maps": [
            {"under": under, "uri": data_uri(picture)}
            for under, picture in zip(_UNDER, _pictures(one, scale), strict=True)
        ],
        "ramp": data_uri(map_picture(ramp, scale)),
        "high": f"{scale.end * one.maps[0].numel():.2g}",
        "cells": [(facts["universal"][name], facts["random"][name]["mean"]) for name in SHOWN],
    }


def _pictures(one: MapTrust, scale: Scale) -> list[PILImage.Image]:
    return [map_picture(own.unsqueeze(0), scale) for own in one.maps]


def trust_pictures(trust: Trust, found: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw the perturbation and each method's three maps, on one scale, by the names of their files."""
    pictures = {"trust-delta": delta_picture(trust.delta, magnification(trust.delta))}
    for one, facts in zip(trust.methods, found["methods"], strict=True):
        drawn = _pictures(one, Scale(**facts["scale"]))
        pictures |= {f"trust-{file_name(one.method)}-{under}": own for under, own in zip(_UNDER, drawn, strict=True)}
    return pictures
