"""What a module takes, where nothing says it but its user: value range, normalisation, order of channels and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from torch import nn

from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.fit import Size
from whyfooled.classifier.rearranging import Rearranging
from whyfooled.errors import bad_parameter, one_of, positive

Channels = Literal["rgb", "bgr", "grey"]
Layout = Literal["nchw", "nhwc"]
CHANNELS: tuple[Channels, ...] = ("rgb", "bgr", "grey")
LAYOUTS: tuple[Layout, ...] = ("nchw", "nhwc")


@final
@dataclass(frozen=True)
class InputFormat:
    """What a module of one's own takes: ``(scale · image − mean) / std``, for images with values in [0, 1].

    Parameters
    ----------
    mean, std
        A number for each channel, or one for all, on the scale of `scale`, in the order of `channels`; 0 and 1 if None.
    channels
        ``"rgb"``, ``"bgr"`` for blue first, or ``"grey"`` for one.
    layout
        ``"nchw"``, or ``"nhwc"`` for channels last; what the file says, or ``"nchw"``, if None.
    scale
        The value of white: 1, or 255.
    size
        Height and width, in pixels; what the file says, or 224, if None.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: Channels = "rgb"
    layout: Layout | None = None
    scale: float = 1.0
    size: Size | None = None

    def __post_init__(self) -> None:
        one_of("channels", self.channels, CHANNELS)
        if self.layout is not None:
            one_of("layout", self.layout, LAYOUTS)
        positive("scale", self.scale)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (not values or not all(map(math.isfinite, values))):
                raise bad_parameter(name, "must be a finite number, or one for each channel", list(values))
        if self.std is not None and min(self.std) <= 0:
            raise bad_parameter("std", "must be positive numbers", list(self.std))


NOTHING_SAID = InputFormat()


def wrap_module(
    module: nn.Module, inputs: InputFormat, channels: int | None = None, output: int | None = None
) -> Classifier:
    """Make a classifier of a module that takes what is said.

    Parameters
    ----------
    module
        The module.
    inputs
        What it takes.
    channels
        How many channels it takes, if that is known; else 3, or 1 in grey, or as many as numbers of `mean` or `std`.
    output
        Where the logits are, if it gives several tensors.
    """
    mean: Sequence[float] = inputs.mean or (0.0,)
    std: Sequence[float] = inputs.std or (1.0,)
    most = max(len(mean), len(std))
    count = channels or (most if most > 1 else 1 if inputs.channels == "grey" else 3)
    mean, std = _spread("mean", mean, count, inputs), _spread("std", std, count, inputs)
    if inputs.channels == "bgr" or inputs.layout == "nhwc":
        module = Rearranging(module, flip=inputs.channels == "bgr", last=inputs.layout == "nhwc")
    return Classifier(module, mean, std, size=224 if inputs.size is None else inputs.size, output=output)


def _spread(name: str, given: Sequence[float], count: int, inputs: InputFormat) -> list[float]:
    """Return a number for each channel, red first, for values in [0, 1]."""
    if len(given) not in (1, count):
        raise bad_parameter(name, f"must be one number, or one for each of the {count} channels", list(given))
    each = [value / inputs.scale for value in (given if len(given) == count else [given[0]] * count)]
    return each[::-1] if inputs.channels == "bgr" else each
