"""A classifier whose hidden activations are given, and annotated images to go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import Tensor, nn

from whyfooled import Classifier
from whyfooled.units.concepts import Annotated, Concepts

SIDE = 16


def placed(maps: Tensor, x: Tensor) -> Tensor:
    """Return maps that were looked up, and are nowhere in the images, with nothing added from where they should be."""
    return maps + 0 * F.adaptive_avg_pool2d(x[:, :1], maps.shape[-2:])


class Planted(nn.Module):
    """Gives image number i (all its pixels have the value i) the i-th of some activation maps, in every layer."""

    def __init__(self, **layers: Tensor) -> None:
        super().__init__()
        for name, maps in layers.items():
            self.register_buffer(f"{name}_maps", maps)
            setattr(self, name, nn.Identity())
        self.names = tuple(layers)

    def forward(self, x):
        numbers = (x.mean((1, 2, 3)) * 255).round().long()
        found = [getattr(self, name)(placed(getattr(self, f"{name}_maps")[numbers], x)) for name in self.names]
        # Never what looks like probabilities.
        return torch.stack([one.mean((1, 2, 3)) for one in found * 2], 1).clamp(min=0) - 1


def planted(**layers: Tensor) -> Classifier:
    return Classifier(Planted(**layers), size=(SIDE, SIDE))


@dataclass(frozen=True)
class ListReader:
    annotated: tuple[Annotated, ...]

    def read(self, index):
        return self.annotated[index]

    def picture(self, index):
        return self.annotated[index].image

    def files(self):
        return (Path(),)


def concepts(
    maps: Sequence[Tensor],
    category_of: Sequence[int],
    whole: Sequence[tuple[int, ...]] | None = None,
    categories: Sequence[tuple[int, ...]] | None = None,
) -> Concepts:
    """Annotate image i with the label maps ``maps[i]`` (m,h,w); all categories are annotated unless said otherwise."""
    kinds = tuple(range(max(category_of) + 1))
    read = tuple(
        Annotated(
            str(number),
            PILImage.new("RGB", (SIDE, SIDE), (number,) * 3),
            own,
            whole[number] if whole else (),
            categories[number] if categories else kinds,
        )
        for number, own in enumerate(maps)
    )
    names = tuple(f"concept {number}" for number in range(len(category_of)))
    titles = tuple(f"category {number}" for number in kinds)
    return Concepts("made", tuple(one.name for one in read), names, tuple(category_of), titles, ListReader(read))
