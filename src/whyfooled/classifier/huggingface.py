"""How an image processor of Hugging Face's prepares photographs: measured, so that nothing it does is missed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier.fit import ENGINES, Fit
from whyfooled.classifier.timm_config import read_timm_fit
from whyfooled.errors import ModelError, bad_parameter, first_line
from whyfooled.images import to_tensor

_CLOSE = 1e-3
"""How far values that are to be the same may be apart, in the image processor's own units. [ours]"""

_MOST_LEVELS = 2
"""How many of 255 levels a pixel of noise may be off, where rounding is done elsewhere: another filter, or another
place, is off by dozens. [ours]"""

_ROUNDING = 1e-2
"""How many levels are a difference. [ours]"""

_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters, which processors keep as ``resample``."""

_LEVIT = 256 / 224
"""How much larger than stated LeViT's processor makes the shorter side."""


class Preprocessing(NamedTuple):
    """What a model is given: ``(image − mean) / std`` of a photograph brought to its input size; `flip`: blue first.

    Mean and standard deviation are of red first all the same.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit
    flip: bool


def read_processor(processor: Any) -> Preprocessing:
    """Find out how an image processor prepares photographs.

    What it states (size, filter, crop) says where to look; which of all that this may mean is true, and its
    normalisation, is seen in what it makes of a few small pictures.

    Parameters
    ----------
    processor
        Of ``transformers``, such as ``AutoImageProcessor.from_pretrained(...)``.

    Raises
    ------
    ParameterError
        If it is no image processor.
    ModelError
        If it does something else to photographs than to resize them, to cut out the centre and to normalise channels.
    """
    told = getattr(processor, "data_config", None)
    if told is None and not (hasattr(processor, "image_mean") and hasattr(processor, "resample")):
        fix = "Give AutoImageProcessor.from_pretrained(...)."
        raise bad_parameter("processor", "must be an image processor of transformers", type(processor).__name__, fix)
    stated = (processor.image_mean, processor.image_std) if told is None else (told["mean"], told["std"])
    mean, std, size, flip = _measure_normalisation(processor, stated)
    pictures = [_make_noise(width, height) for width, height in ((97, 61), (58, 103))]
    wanted = [_prepare(processor, picture) for picture in pictures]
    wanted = [values.flip(0) for values in wanted] if flip else wanted
    to_levels = 255 * torch.tensor(std).view(-1, 1, 1)
    normalised = [values * to_levels + 255 * torch.tensor(mean).view(-1, 1, 1) for values in wanted]
    best, off = None, float("inf")
    fits = _list_candidates(processor, size) if told is None else [read_timm_fit(told, type(processor).__name__)]
    for fit in fits:
        made = [255 * to_tensor(fit(picture), len(mean)) for picture in pictures]
        furthest = max(float((ours - theirs).abs().max()) for ours, theirs in zip(made, normalised, strict=True))
        if furthest < off - _ROUNDING:
            best, off = fit, furthest
    if best is None or off > _MOST_LEVELS:
        raise ModelError(_refuse(processor, "It does more than to resize a photograph and to cut out the centre."))
    return Preprocessing(mean, std, best, flip)


def _refuse(processor: Any, why: str) -> str:
    return (
        f"The image processor {type(processor).__name__} cannot be followed. {why} Say what the model takes: "
        "Classifier(model, mean=..., std=..., fit=Fit(...))."
    )


def _prepare(processor: Any, picture: PILImage.Image) -> Tensor:
    """Return (c,h,w), what the processor makes of a picture."""
    try:
        values: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"]
        (values,) = values.float()
    except Exception as error:  # whatever someone else's processor stumbles over
        raise ModelError(_refuse(processor, f"It failed on a picture: {first_line(error)}.")) from error
    if values.ndim != 3:
        raise ModelError(_refuse(processor, f"It makes a tensor {tuple(values.shape)} of a picture."))
    return values


def _measure_normalisation(
    processor: Any, stated: tuple[Any, Any]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, int], bool]:
    """Return mean and deviation of each channel, for values in [0, 1], the input's height and width, and `flip`.

    `stated` are the first two as the processor states them.
    """
    black, white, red = (
        _prepare(processor, PILImage.new("RGB", (80, 60), colour)) for colour in ("black", "white", "red")
    )
    size = (black.shape[1], black.shape[2])
    low, high, first = (values.mean((1, 2)) for values in (black, white, red))
    if any(bool((values - values.mean((1, 2), keepdim=True)).abs().max() > _CLOSE) for values in (black, white)):
        raise ModelError(_refuse(processor, "It puts a margin around photographs."))
    if not bool((high > low).all()):
        raise ModelError(_refuse(processor, "It makes black and white the same."))
    responding = ((first - low).abs() > _CLOSE).tolist()
    flip = responding == [False, False, True]
    if len(low) == 3 and not flip and responding != [True, False, False]:
        raise ModelError(_refuse(processor, "It mixes the colours, or has green first."))
    std = 1 / (high - low)
    measured = (-low * std).tolist(), std.tolist()
    # As they are stated, where that is what is measured, for the last digits.
    mean, deviation = (
        tuple(map(float, told)) if _agree(told, seen) else tuple(seen)
        for told, seen in zip(stated, measured, strict=True)
    )
    order = -1 if flip else 1
    return mean[::order], deviation[::order], size, flip


def _agree(stated: Any, measured: list[float]) -> bool:
    try:
        values = [float(value) for value in stated]
    except (TypeError, ValueError):
        return False
    return len(values) == len(measured) and bool(np.allclose(values, measured, rtol=0, atol=1e-5))


def _list_candidates(processor: Any, size: tuple[int, int]) -> Iterator[Fit]:
    """List what the processor's settings may mean, the most usual first."""
    interpolation = _INTERPOLATION.get(int(processor.resample))
    if interpolation is None:
        raise ModelError(_refuse(processor, f"It resizes with the filter {processor.resample!r}."))
    stated = _read_sides(processor.to_dict().get("size"))
    crop = float(getattr(processor, "crop_pct", None) or 1)
    shorter = dict.fromkeys(int(side * factor) for side in stated for factor in (1, 1 / crop, _LEVIT))
    for engine in ENGINES:
        yield Fit(size, None, interpolation, squash=True, engine=engine)
        for side in shorter:
            yield Fit(size, side, interpolation, engine=engine, floor=True)
        for height, width in itertools.product(stated, repeat=2):
            if height >= size[0] and width >= size[1]:
                yield Fit(size, None, interpolation, squashed=(height, width), engine=engine, floor=True)


def _read_sides(stated: Any) -> list[int]:
    """Return the numbers of pixels in the size that a processor states."""
    values = stated.values() if isinstance(stated, Mapping) else [stated]
    return list(dict.fromkeys(int(value) for value in values if isinstance(value, int | float) and value > 0))


def _make_noise(width: int, height: int) -> PILImage.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PILImage.fromarray(values)


def read_class_names(model: Any) -> list[str] | None:
    """Return the names in a model's configuration, in the order of its classes; None where they are only numbers."""
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    ordered = [str(name) for _, name in sorted((int(number), name) for number, name in names.items())]
    numbered = ordered == [f"LABEL_{number}" for number in range(len(ordered))]
    return None if numbered or not ordered else ordered


def gives_several_labels(model: Any) -> bool:
    """Tell whether a model's configuration says that it was trained for several labels at once."""
    return getattr(getattr(model, "config", None), "problem_type", None) == "multi_label_classification"
