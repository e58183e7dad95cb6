"""What a module takes, where nothing says it but its user: value range, normalisation, order of channels and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, final

from torch import Tensor, nn

from whyfooled.classifier.calling import quote
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

    def list_said(self) -> str:
        """List the names of the parameters that say something else than nothing, in words."""
        *others, last = (each.name for each in fields(self) if getattr(self, each.name) != each.default)
        return f"{', '.join(others)} and {last}" if others else last

    def blame(self, name: str, images: Tensor, error: BaseException) -> str:
        """Say of a model that failed what it was given, and which parameters say so.

        Parameters
        ----------
        name
            What the model is called.
        images
            (n,c,h,w) What the classifier was given.
        error
            What the model raised.
        """
        (channels, height, width), last = images.shape[1:], self.layout == "nhwc"
        shape = f"(n, {height}, {width}, {channels})" if last else f"(n, {channels}, {height}, {width})"
        said = ["`layout`"] * last + ["`channels`"] * (self.channels != "rgb") + ["`size`"] * (self.size is not None)
        such = f", which is what {' and '.join(said)} say{'s' * (len(said) == 1)}" if said else ""
        size = "" if self.size is not None else " If it needs another size, say so: size (--size)."
        return f"{name} cannot take images of the shape {shape}{such}.{size} What it stumbles over: {quote(error)}."


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
    _check_channels(inputs, count, by_file=channels is not None)
    mean, std = _spread("mean", mean, count, inputs), _spread("std", std, count, inputs)
    if inputs.channels == "bgr" or inputs.layout == "nhwc":
        module = Rearranging(module, flip=inputs.channels == "bgr", last=inputs.layout == "nhwc")
    classifier = Classifier(module, mean, std, size=224 if inputs.size is None else inputs.size, output=output)
    classifier.input_format = inputs
    return classifier


def describe_input(classifier: Classifier) -> dict[str, object]:
    """Describe what a classifier gives its module: ``(scale · image − mean) / std``, in which order; for a report."""
    module, said = classifier.module, classifier.input_format or NOTHING_SAID
    turned = module if isinstance(module, Rearranging) else Rearranging(module)
    order = -1 if turned.flip else 1
    mean, std = (
        [float(f"{said.scale * value:.6g}") for value in values.flatten().tolist()][::order]
        for values in (classifier.mean, classifier.std)
    )
    channels = "bgr" if turned.flip else "grey" if classifier.channels == 1 else "rgb"
    layout = "nhwc" if turned.last else "nchw"
    return {"mean": mean, "std": std, "scale": said.scale, "channels": channels, "layout": layout}


def _check_channels(inputs: InputFormat, count: int, *, by_file: bool) -> None:
    """Raise `ParameterError` where an order of colours is asked for that so many channels do not have."""
    why = f"where the file takes {count}" if by_file else f"where `mean` or `std` has {count} numbers"
    if inputs.channels == "grey" and count != 1:
        fix = "Leave it out, or give a model of one channel." if by_file else "Give one number of each."
        raise bad_parameter("channels", f"must not be grey, which is one channel, {why}", "grey", fix)
    if inputs.channels == "bgr" and count == 1:
        raise bad_parameter("channels", f"must not be bgr, which is three channels, {why}", "bgr", "Leave it out.")


def _spread(name: str, given: Sequence[float], count: int, inputs: InputFormat) -> list[float]:
    """Return a number for each channel, red first, for values in [0, 1]."""
    if len(given) not in (1, count):
        raise bad_parameter(name, f"must be one number, or one for each of the {count} channels", list(given))
    each = [value / inputs.scale for value in (given if len(given) == count else [given[0]] * count)]
    return each[::-1] if inputs.channels == "bgr" else each
