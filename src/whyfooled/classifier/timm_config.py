"""What timm states of how photographs are prepared for a model of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from whyfooled.classifier.fit import Fit
from whyfooled.errors import ModelError


def read_timm_fit(config: Mapping[str, Any], name: str) -> Fit:
    """Return how a photograph is brought to the input size.

    Parameters
    ----------
    config
        As ``timm.data.resolve_model_data_config`` gives it.
    name
        What the model is called.

    Raises
    ------
    ModelError
        If photographs are to have a border.
    """
    mode, share, interpolation = config["crop_mode"], config["crop_pct"], config["interpolation"]
    _, height, width = config["input_size"]
    if mode == "border":
        raise ModelError(f"{name} wants photographs with a border, which is not supported. Choose another model.")
    if mode != "squash":
        return Fit((height, width), int(min(height, width) / share), interpolation)
    whole = (math.floor(height / share), math.floor(width / share))
    if whole == (height, width):
        return Fit((height, width), None, interpolation, squash=True)
    return Fit((height, width), None, interpolation, squashed=whole)
