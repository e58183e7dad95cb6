"""What images a fit or a test is given, as a source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from whyfooled.classifier.checks import check_images
from whyfooled.errors import ImageError, ParameterError, bad_parameter
from whyfooled.sources import Source, open_source
from whyfooled.types import Image

Given = Source | str | Path | Sequence[str | Path] | tuple[Tensor, Tensor]
"""A source, what `open_source` opens as one, or a pair of tensors: images (n,c,h,w) in [0, 1] and classes (n,)."""


def as_source(given: Given, argument: str = "source") -> Source:
    """Return the source, open it, or make one of a pair of tensors.

    Raises
    ------
    ParameterError
        If it is nothing of the kind, or there is not one class for each image.
    ImageError
        If there are no images, or their values are not in [0, 1].
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, str | Path):
        return open_source(given)
    if isinstance(given, Sequence):
        if len(given) == 2 and isinstance(given[0], Tensor) and isinstance(given[1], Tensor):
            return _from_tensors(given[0], given[1])
        places = [one for one in given if isinstance(one, str | Path)]
        if places and len(places) == len(given):
            return open_source(places)
    rule = "must be a source, the place of one, or a pair of tensors (images, classes)"
    raise bad_parameter(argument, rule, type(given).__name__)


@final
@dataclass(frozen=True, eq=False)
class _TensorReader:
    images: Tensor

    def read(self, index: int) -> Image:
        return self.images[index]

    def files(self) -> Iterable[Path]:
        return ()


def _from_tensors(images: Tensor, classes: Tensor) -> Source:
    check_images(images)
    if not len(images):
        raise ImageError("There are no images: the tensor is empty.")
    if classes.shape != (len(images),) or classes.dtype not in (torch.int64, torch.int32):
        given = f"{classes.dtype} of the shape {tuple(classes.shape)}"
        raise ParameterError(f"The classes must be whole numbers, one for each of {len(images)} images; got {given}.")
    labels = tuple((int(one),) for one in classes.tolist())
    names = tuple(map(str, range(len(images))))
    return Source("tensors", names, labels, _TensorReader(images.detach().cpu()))
