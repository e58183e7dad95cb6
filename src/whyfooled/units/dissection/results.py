"""What a dissection found: for every unit its threshold, and how it overlaps with every concept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whyfooled.classifier import Fit
from whyfooled.classifier.layers import Layer
from whyfooled.classifier.passes import Passes
from whyfooled.errors import bad_parameter, did_you_mean
from whyfooled.units.concepts import Concepts

CUTOFF = 0.04
"""The IoU above which a unit detects its best concept (Bau et al. 2017, sec. 2.2)."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class DissectedLayer:
    """One layer's u units, compared with c concepts. All tensors are on the CPU.

    Parameters
    ----------
    layer
        The layer.
    positions
        How many activations of each unit there were: places of all images together.
    threshold
        (u,) The smallest activation above which there is at most the share asked for.
    above
        (u,) How many activations are above it; 0 where the largest activation is given too often.
    dead
        (u,) Whether the unit gave the same everywhere.
    mean, std
        (u,) Mean and (population) standard deviation of the activations.
    both
        (u,c) Pixels where the unit is active and the concept is shown.
    union
        (u,c) Pixels where the unit is active or the concept is shown, in images in which its category is annotated.
    active_images
        (u,) In how many images the unit is active.
    most
        (u,c) The most pixels of one image that `both` has.
    null_iou
        (r,u) The best IoU of each unit when the annotations are permuted among the images, for each of r permutations.
    top_images
        (u,m) The images with the unit's m largest activations, largest first, by their places in the list; −1 for none.
    top_values
        (u,m) Those activations; NaN for none.
    top_maps
        (u,m,h,w) The unit's activation maps in those images.
    """

    layer: Layer
    positions: int
    threshold: Float[Tensor, " u"]
    above: Int[Tensor, " u"]
    dead: Bool[Tensor, " u"]
    mean: Float[Tensor, " u"]
    std: Float[Tensor, " u"]
    both: Int[Tensor, "u c"]
    union: Int[Tensor, "u c"]
    active_images: Int[Tensor, " u"]
    most: Int[Tensor, "u c"]
    null_iou: Float[Tensor, "r u"]
    top_images: Int[Tensor, "u m"]
    top_values: Float[Tensor, "u m"]
    top_maps: Float[Tensor, "u m h w"]

    @property
    def iou(self) -> Float[Tensor, "u c"]:
        """Intersection over union of each unit and concept, float64; 0 where neither is ever there."""
        return self.both.double() / self.union.clamp(min=1)

    @property
    def best_iou(self) -> Float[Tensor, " u"]:
        """Each unit's largest IoU."""
        return self.iou.amax(1)

    @property
    def best(self) -> Int[Tensor, " u"]:
        """Each unit's best concept, the first of equal ones; −1 where it overlaps with none."""
        return self.iou.argmax(1).masked_fill(self.both.amax(1) == 0, -1)

    @property
    def p_value(self) -> Float[Tensor, " u"]:
        """How likely chance gives a unit as large a best IoU: ``(1 + #{null_iou ≥ best_iou}) / (1 + r)``.

        NaN without permutations. It is corrected for the choice of the concept, not for the number of units.
        """
        if not len(self.null_iou):
            return torch.full_like(self.best_iou, float("nan"))
        return (1 + (self.null_iou >= self.best_iou).sum(0)).double() / (1 + len(self.null_iou))

    @property
    def in_one_image(self) -> Float[Tensor, " u"]:
        """The share of each unit's overlap with its best concept that lies in a single image; NaN for no overlap."""
        best = self.best.clamp(min=0).unsqueeze(1)
        share = self.most.gather(1, best).double() / self.both.gather(1, best)
        return share[:, 0]

    def detectors(self, cutoff: float = CUTOFF) -> Bool[Tensor, " u"]:
        """Tell which units detect their best concept."""
        return self.best_iou > cutoff

    def __repr__(self) -> str:
        return f"DissectedLayer({self.layer.name}: {self.layer.units} units, {int(self.detectors().sum())} detectors)"


@dataclass(frozen=True, eq=False, repr=False)
class DissectionRecord(ABC):
    """What the units of some layers detect: the fields and tables of a `Dissection`.

    Parameters
    ----------
    layers
        The layers, in the order in which they finish.
    concepts, category_of, categories
        The concepts' names; for each its category; the categories' names.
    area
        (c,) Pixels that show each concept.
    images
        Names of the annotated images.
    cutoff
        The IoU above which a unit detects its best concept.
    model_digest
        Digest of the classifier, see `Classifier.digest`.
    parameters
        Model, concepts, share, seed and so on: what it takes to do it again.
    notes
        What a reader should know, in sentences.
    seconds
        How long each stage took.
    passes
        Images sent through the classifier.
    source, fit, channels
        The annotated images, and how a picture is brought to the classifier's input: `save` draws the top images with
        them. None for a dissection that was loaded.
    """

    layers: tuple[DissectedLayer, ...]
    concepts: tuple[str, ...]
    category_of: tuple[int, ...]
    categories: tuple[str, ...]
    area: Int[Tensor, " c"]
    images: tuple[str, ...]
    cutoff: float
    model_digest: str
    parameters: dict[str, Any]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    passes: Passes
    source: Concepts | None = None
    fit: Fit | None = None
    channels: int = 3

    def __getitem__(self, layer: str) -> DissectedLayer:
        """Return one layer by its name."""
        known = {one.layer.name: one for one in self.layers}
        if layer not in known:
            raise bad_parameter("layer", "must be a dissected layer", repr(layer), did_you_mean(layer, known))
        return known[layer]

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{one.layer.name}: {int(one.detectors(self.cutoff).sum())} of {one.layer.units}" for one in self.layers
        )
        return f"Dissection({self.parameters.get('model', '')}, detectors {counts})"

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each unit: its threshold, its best concept, the IoU, and whether it detects it.

        ``concept`` and ``category`` are missing where a unit overlaps with no concept. ``chance_iou`` is the mean of
        its best IoU, with whatever concept, over the permutations, and ``p`` says in how many of them it is as large,
        see `DissectedLayer.p_value`; ``active_images`` and ``in_one_image`` say how few images that rests on.
        """
        return pd.concat([self._tabulate(one) for one in self.layers], ignore_index=True)

    def _tabulate(self, dissected: DissectedLayer) -> pd.DataFrame:
        best = dissected.best.tolist()
        concept = [self.concepts[index] if index >= 0 else None for index in best]
        category = [self.categories[self.category_of[index]] if index >= 0 else None for index in best]
        return pd.DataFrame(
            {
                "layer": dissected.layer.name,
                "unit": range(dissected.layer.units),
                "concept": pd.Series(concept, dtype="object"),
                "category": pd.Series(category, dtype="object"),
                "iou": dissected.best_iou.numpy(),
                "detector": dissected.detectors(self.cutoff).numpy(),
                "chance_iou": dissected.null_iou.double().mean(0).numpy() if len(dissected.null_iou) else float("nan"),
                "p": dissected.p_value.numpy(),
                "active_images": dissected.active_images.numpy(),
                "in_one_image": dissected.in_one_image.numpy(),
                "threshold": dissected.threshold.numpy(),
                "active": (dissected.above.double() / dissected.positions).numpy(),
                "dead": dissected.dead.numpy(),
                "mean": dissected.mean.numpy(),
                "std": dissected.std.numpy(),
            }
        )

    def overlaps(self) -> pd.DataFrame:
        """Return one row for each unit and concept that overlap: the pixels of both, of either, and the IoU."""
        parts = []
        for dissected in self.layers:
            unit, concept = dissected.both.nonzero(as_tuple=True)
            names = [self.concepts[index] for index in concept.tolist()]
            kinds = [self.categories[self.category_of[index]] for index in concept.tolist()]
            both, union = dissected.both[unit, concept].numpy(), dissected.union[unit, concept].numpy()
            columns = {"unit": unit.numpy(), "concept": names, "category": kinds, "both": both, "union": union}
            parts.append(pd.DataFrame({"layer": dissected.layer.name, **columns, "iou": both / union}))
        return pd.concat(parts, ignore_index=True)

    @abstractmethod
    def save(self, folder: str | Path) -> Path:
        """Write everything to a folder."""
