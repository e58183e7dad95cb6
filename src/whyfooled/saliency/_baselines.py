"""Baselines: the image without content that an attribution is compared with."""

from __future__ import annotations

from typing import Literal

from whyfooled.tensors.fills import filled
from whyfooled.types import Images

Baseline = Literal["zero", "mean", "blur"]
BASELINES: tuple[Baseline, ...] = ("zero", "mean", "blur")


def make_baselines(images: Images, baseline: Baseline) -> Images:
    """Make (n,c,h,w) each image's baseline: black, its mean colour, or itself blurred (σ = 5 % of its shorter side)."""
    return filled(images, baseline)
