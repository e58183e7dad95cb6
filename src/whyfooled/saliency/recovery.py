"""Whether removing what a map points at brings the true class back (Gu & Tresp 2019, fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import check_one_answer
from whyfooled.classifier.workers import cut_by_image, share_out
from whyfooled.errors import ParameterError, at_least, bad_parameter, one_of
from whyfooled.tensors.fills import FILLS, Fill, filled
from whyfooled.tensors.randomness import image_generators, uniform
from whyfooled.types import Classes, Images, Maps, PerImage

FRACTIONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Shares of the pixels at which recovery is measured unless told otherwise."""

RANDOM, SHIFTED, SIZE = (
    "Control: random order",
    "Control: the first map, shifted",
    "Control: size of the perturbation",
)
"""What orders are called that come from no saliency method: any method must beat them to say anything."""

BATCH_SIZE = 4
"""How many perturbed images are classified at once unless told otherwise: small batches stay in a CPU's caches."""

VERDICT_FILL: Fill = "zero"
"""What perturbed pixels become in the one test that a report's verdict on a map rests on. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class RecoveryCurve:
    """What comes back as the most salient pixels of adversarial images are perturbed, p shares and n images.

    Parameters
    ----------
    fractions
        The p shares of the pixels that were perturbed.
    recovered
        (n,p) Whether the true class is predicted again.
    probability
        (n,p) The probability of the true class.
    """

    fractions: tuple[float, ...]
    recovered: Bool[Tensor, "n p"]
    probability: Float[Tensor, "n p"]

    @classmethod
    def join(cls, curves: Sequence[RecoveryCurve]) -> RecoveryCurve:
        """Put curves one after the other; they must be at the same shares."""
        recovered, probability = (
            torch.cat([getattr(curve, name) for curve in curves]) for name in ("recovered", "probability")
        )
        return cls(curves[0].fractions, recovered, probability)

    @property
    def mean(self) -> PerImage:
        """(n,) The share of the p points at which the true class is predicted: the curve's mean, for each image."""
        return self.recovered.float().mean(1)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each image and share of pixels."""
        n, p = self.recovered.shape
        return pd.DataFrame(
            {
                "image": torch.arange(n).repeat_interleave(p).numpy(),
                "fraction": list(self.fractions) * n,
                "recovered": self.recovered.flatten().cpu().numpy(),
                "probability": self.probability.flatten().cpu().numpy(),
            }
        )


@one_thread()
@torch.no_grad()
def recovery_curve(
    classifier: Classifier,
    images: Images,
    classes: Classes,
    maps: Maps,
    *,
    fractions: Sequence[float] = FRACTIONS,
    fill: Fill = "zero",
    origin: Images | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    through: nn.Module | None = None,
) -> RecoveryCurve:
    """Perturb the most salient pixels of adversarial images and see whether the true class comes back.

    The pixels of each image are ranked by saliency, summed over channels; the top share of them is perturbed; the
    classifier predicts again (Gu & Tresp 2019, fig. 4). Equally salient pixels are ranked at random, not by their
    place.

    Parameters
    ----------
    classifier
        The classifier that was fooled.
    images
        (n,c,h,w) Adversarial images, values in [0, 1].
    classes
        (n,) Their true classes.
    maps
        (n,c,h,w) or (n,1,h,w) Saliency maps of the adversarial images.
    fractions
        Shares of the pixels to perturb, each from 0 to 1.
    fill
        What a perturbed pixel becomes: ``"zero"`` (black), ``"mean"`` (of its image, for each channel), ``"noise"``
        (uniform in [0, 1]) or ``"blur"`` (the image blurred; σ = 5 % of its shorter side). [ours]: the paper does not
        say.
    origin
        (n,c,h,w) The images whose content decides about noise and ties, with the seed; `images` if None. The clean ones
        make the draw independent of an adversarial image's last digits.
    seed
        Seed of the noise and of the order of ties.
    batch_size
        How many perturbed images are classified at once; on a CPU, small batches stay in its caches.
    through
        A module that computes the same as the classifier's and stands in for it, such as a quicker copy.

    Returns
    -------
    RecoveryCurve
    """
    check_one_answer(classifier)
    one_of("fill", fill, FILLS)
    at_least("batch_size", batch_size, 1)
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise bad_parameter("fractions", "must be shares of the pixels, from 0 to 1", list(fractions))
    if len(maps) != len(images) or maps.shape[-2:] != images.shape[-2:]:
        raise ParameterError(
            f"`maps` must have a map of {tuple(images.shape[-2:])} pixels for each of {len(images)} images; "
            f"got the shape {tuple(maps.shape)}."
        )
    generators = image_generators(images if origin is None else origin, seed)
    ranks = _ranks(maps, generators)
    filler = filled(images, fill, generators)
    counts = [round(fraction * ranks[0].numel()) for fraction in fractions]
    perturbed = torch.stack([torch.where((ranks < count).unsqueeze(1), filler, images) for count in counts], dim=1)
    numbers = torch.arange(len(images), device=images.device).repeat_interleave(len(counts))
    pieces = cut_by_image(perturbed.flatten(0, 1), numbers, batch_size)
    logits = torch.cat(list(share_out(classifier, partial(classifier.logits, through=through), pieces)))
    check_classes(classes, logits)
    true = classes.long().repeat_interleave(len(counts))
    shape = (len(images), len(counts))
    return RecoveryCurve(
        fractions=tuple(fractions),
        recovered=(logits.argmax(1) == true).view(shape),
        probability=logits.softmax(1).gather(1, true.unsqueeze(1)).view(shape),
    )


def random_maps(images: Images, seed: int = 0) -> Maps:
    """Make (n,1,h,w) maps of independent uniform values: the random order to compare every recovery curve with."""
    return uniform(images, image_generators(images, seed))[:, :1]


def shifted_maps(
    maps: Float[Tensor, "1 d h w"], images: Float[Tensor, "1 c h w"], count: int, seed: int = 0
) -> Float[Tensor, "k d h w"]:
    """Shift the map (1,d,h,w) of an image (1,c,h,w) to (k,d,h,w) other places, drawn at random; what leaves comes back.

    They have the map's values, and lie as close together as its own do, which spares more of an image than pixels do
    that are drawn one by one; only the place says nothing. [ours]
    """
    (generator,) = image_generators(images, seed)
    height, width = maps.shape[-2:]
    if height * width < 2:
        return maps.expand(count, -1, -1, -1)
    places = torch.randint(1, height * width, (count,), generator=generator).tolist()
    return torch.cat([maps.roll(divmod(place, width), (2, 3)) for place in places])


def _ranks(maps: Maps, generators: list[torch.Generator]) -> Tensor:
    """Rank (n,h,w) each image's pixels, the most salient 0."""
    saliency = maps.sum(1).flatten(1)
    shuffled = torch.stack([torch.randperm(saliency.shape[1], generator=g) for g in generators]).to(maps.device)
    order = shuffled.gather(1, saliency.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return ranks.view(len(maps), *maps.shape[-2:])


@final
@dataclass(frozen=True, eq=False)
class RecoveryCurves:
    """How the true class comes back when an adversarial image's pixels are perturbed in some order.

    Parameters
    ----------
    title
        Where the order comes from.
    curves
        For each fill, the curve; of several orders if the order is random, else of one.
    control
        Whether the order comes from no saliency method, and is there for others to be compared with.
    """

    title: str
    curves: dict[str, RecoveryCurve]
    control: bool = False
