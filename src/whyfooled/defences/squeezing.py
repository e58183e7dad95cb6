"""Feature squeezing: how much the prediction changes when the image loses what a classifier should not need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.defences.detector import EvadableDetector, run
from whyfooled.errors import bad_parameter
from whyfooled.registry import Card
from whyfooled.tensors.medians import filter_median
from whyfooled.types import Images, Logits, PerImage

_MOST_BITS = 8


@final
@dataclass(frozen=True)
class BitDepth(EvadableDetector):
    """Compare the prediction with that on the image in fewer bits (Xu, Evans & Qi 2018).

    The score is the ℓ1 distance of the two softmax vectors, from 0 to 2.

    Parameters
    ----------
    bits
        How many bits each value is left, from 1 to 8; the paper takes 5 for CIFAR-10 and ImageNet, 1 for MNIST.
    """

    bits: int = 5

    card: ClassVar[Card] = Card(
        name="bit-depth",
        title="Bit depth",
        summary="Images whose prediction changes when their values are rounded to fewer bits.",
        source="Xu, Evans, Qi 2018, arXiv 1704.01155, sec. 3.1 and 5",
        cost="2 forwards",
    )

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= _MOST_BITS:
            raise bad_parameter("bits", f"must be from 1 to {_MOST_BITS}", self.bits)

    @one_thread()
    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) the ℓ1 distance of the softmax on the image and on the rounded one."""
        return softmax_distance(run(classifier, images), run(classifier, reduce_depth(images, self.bits)))

    @one_thread()
    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return a function of the score that does not saturate; rounding passes the gradient straight through."""
        rounded = images + (reduce_depth(images, self.bits) - images).detach()
        return log_distance(run(classifier, images), run(classifier, rounded))


@final
@dataclass(frozen=True)
class MedianFilter(EvadableDetector):
    """Compare the prediction with that on the image under a median filter (Xu, Evans & Qi 2018).

    The score is the ℓ1 distance of the two softmax vectors, from 0 to 2.

    Parameters
    ----------
    size
        Side of the filter's window, in pixels; the paper's best is 2.
    """

    size: int = 2

    card: ClassVar[Card] = Card(
        name="median",
        title="Median filter",
        summary="Images whose prediction changes under a small median filter.",
        source="Xu, Evans, Qi 2018, arXiv 1704.01155, sec. 3.2 and 5",
        cost="2 forwards",
    )

    def __post_init__(self) -> None:
        check_window(self.size)

    @one_thread()
    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) the ℓ1 distance of the softmax on the image and on the filtered one."""
        return softmax_distance(run(classifier, images), run(classifier, filter_median(images, self.size)))

    @one_thread()
    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return a function of the score that does not saturate."""
        return log_distance(run(classifier, images), run(classifier, filter_median(images, self.size)))


def check_window(size: int) -> None:
    """Raise `ParameterError` for a window that filters nothing, or is no filter any more."""
    if not 2 <= size <= _LARGEST_WINDOW:
        raise bad_parameter("size", f"must be from 2 to {_LARGEST_WINDOW} pixels", size)


_LARGEST_WINDOW = 15
"""All values of a window are held in memory for each pixel. [ours]"""


def reduce_depth(images: Images, bits: int) -> Images:
    """Round values to so many bits: to the nearest of 2^bits levels from 0 to 1."""
    levels = 2**bits - 1
    rounded: Tensor = (images * levels).round() / levels
    return rounded


def softmax_distance(logits: Logits, others: Logits) -> PerImage:
    """Return (n,) the ℓ1 distance of two softmax vectors: 0 for the same, 2 where nothing is in common."""
    return (logits.softmax(1) - others.softmax(1)).abs().sum(1)


def log_distance(logits: Logits, others: Logits) -> PerImage:
    """Return (n,) ``−log(1 − d/2)`` for the ℓ1 distance d: minus the logarithm of what two softmax vectors share.

    It is ``−log Σ_c min(p_c, q_c)``, and grows on, with a gradient, where d is rounded to 2.
    """
    return -torch.minimum(logits.log_softmax(1), others.log_softmax(1)).logsumexp(1)
