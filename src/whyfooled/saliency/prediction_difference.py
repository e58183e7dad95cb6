"""Prediction difference analysis: how the answer changes when a window's content is not known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, floor, log
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.outputs import log_probabilities
from whyfooled.errors import at_least, bad_parameter, one_of
from whyfooled.registry import Card
from whyfooled.saliency._samples import chunks
from whyfooled.saliency._texture import Texture
from whyfooled.saliency.backward.gradients import check_pairs
from whyfooled.tensors.randomness import image_generators
from whyfooled.types import Images, Logits, ManyClasses, ManyMaps

PatchFill = Literal["conditional", "marginal"]
Evidence = Literal["logit", "odds"]


@final
@dataclass(frozen=True)
class PredictionDifference:
    """What the content of a window adds to the logit, against what could stand there as well (Zintgraf et al. 2017).

    A window slides over the image; its content is replaced by samples of what its surroundings make likely; the mean
    change of the logit is the window's value, and a pixel has the mean over the windows that it lies in.

    The paper samples from a Gaussian conditional on the pixels around the window, fitted to patches of ImageNet. Here
    it is the image's own [ours], so that no data set is needed: the image is taken for a stationary texture with its
    own mean and autocovariance. Samples go on with its colours and its grain, but follow no edge. The paper moves its
    window pixel by pixel, with 10 samples each, which takes half a million forward passes; windows here overlap by
    half, so that a pixel has the mean of 8 samples.

    Parameters
    ----------
    window
        Side of the window, as a share of the image's shorter side; the paper's 10 of 224 pixels are 0.045, and take
        eleven times as many windows.
    stride
        Distance between windows, as a share of their side.
    samples
        Number of samples in each window.
    fill
        ``"conditional"`` (on the ring around the window) or ``"marginal"`` (the content of a window of the same image
        chosen at random; the paper takes it from other images).
    evidence
        ``"logit"``: the change of the logit; ``"odds"``: of the odds' logarithm, base 2, with the probability averaged
        over the samples (the paper's weight of evidence, eq. 4, without its correction for probabilities of 0 and 1,
        which cannot occur here).
    ring
        Width of the ring around the window, in pixels; the paper's is 2.
    seed
        Seed of the samples; each image has its own, made from this and its content.
    """

    window: float = 1 / 7
    stride: float = 0.5
    samples: int = 2
    fill: PatchFill = "conditional"
    evidence: Evidence = "logit"
    ring: int = 2
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="prediction-difference",
        title="Prediction difference analysis",
        summary="How the class's logit changes when a window shows what its surroundings let one expect instead.",
        source="Zintgraf, Cohen, Adel, Welling 2017, arXiv 1702.04595, sec. 3",
        cost="1 forward and `samples` for each window (169 of a square image, about), for all classes together",
    )

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("stride", self.stride)):
            if not 0 < value <= 1:
                raise bad_parameter(name, "must be a share, above 0 and at most 1", value)
        at_least("samples", self.samples, 1)
        one_of("fill", self.fill, ("conditional", "marginal"))
        one_of("evidence", self.evidence, ("logit", "odds"))
        at_least("ring", self.ring, 1)

    @one_thread()
    @torch.no_grad()
    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k)."""
        check_pairs(images, classes)
        columns = classes.reshape(len(classes), -1).long()
        whole = classifier.logits(images)
        check_classes(classes, whole)
        side, windows = list_windows(images.shape[-2], images.shape[-1], self.window, self.stride)
        answers = torch.cat(list(self._compute_answers(classifier, images, side, windows)))
        without = answers.view(self.samples, len(windows), *whole.shape)
        values = difference(whole, without, self.evidence, several_labels=classifier.several_labels)
        maps = _spread_over_pixels(values.gather(2, columns.expand(len(windows), -1, -1)), side, windows, images)
        return maps.view(*classes.shape, 1, *images.shape[-2:])

    def _compute_answers(
        self, classifier: Classifier, images: Images, side: int, windows: list[tuple[int, int]]
    ) -> Iterator[Tensor]:
        """Give the logits (s,n,m) with the content of windows replaced: of every window in order, once a sample."""
        generators = image_generators(images, self.seed)
        textures = [Texture(image, self.ring) for image in images]
        for _ in range(self.samples):
            fields = [texture.field(generator) for texture, generator in zip(textures, generators, strict=True)]
            for chunk in chunks(len(windows), len(images)):
                replaced = images.repeat(chunk.stop - chunk.start, 1, 1, 1, 1)
                for number, (top, left) in enumerate(windows[chunk]):
                    for i, generator in enumerate(generators):
                        if self.fill == "conditional":
                            patch = textures[i].sample(top, left, side, fields[i], generator)
                        else:
                            patch = _take_elsewhere(images[i], side, generator)
                        replaced[number, i, :, top : top + side, left : left + side] = patch.to(images)
                yield classifier.logits(replaced.flatten(0, 1)).view(len(replaced), len(images), -1)


def list_windows(height: int, width: int, window: float, stride: float) -> tuple[int, list[tuple[int, int]]]:
    """Return the windows' side, in pixels, and the top and left of each: evenly spaced, from border to border."""
    side = max(1, round(window * min(height, width)))
    step = max(1, floor(stride * side + 0.5))
    starts = [
        torch.linspace(0, length - side, ceil((length - side) / step) + 1).round().int().tolist()
        for length in (height, width)
    ]
    return side, list(product(*starts))


def _take_elsewhere(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Take the content of a window at random."""
    top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in image.shape[-2:])
    return image[:, top : top + side, left : left + side]


def difference(
    whole: Logits, without: Float[Tensor, "s w n m"], evidence: Evidence, *, several_labels: bool = False
) -> Float[Tensor, "w n m"]:
    """Compute what each of w windows speaks for, from the logits of the whole images and of s samples without it."""
    if evidence == "logit":
        return whole - without.mean(0)
    # In double precision, where 1 − p stays apart from 0.
    log_p, whole_log_p = (log_probabilities(z.double(), several_labels=several_labels) for z in (without, whole))
    return (_log_odds(whole_log_p) - _log_odds(log_p.logsumexp(0) - log(len(without)))) / log(2)


def _log_odds(log_p: Tensor) -> Tensor:
    log_p = log_p.clamp_max(-1e-15)
    return log_p - (-log_p.expm1()).log()


def _spread_over_pixels(values: Tensor, side: int, windows: list[tuple[int, int]], images: Images) -> Tensor:
    """Give every pixel the mean over the windows that it lies in: (windows,n,k) -> (n,k,h,w)."""
    total = values.new_zeros(*values.shape[1:], *images.shape[-2:])
    count = torch.zeros_like(total[0, 0])
    for value, (top, left) in zip(values, windows, strict=True):
        place = (..., slice(top, top + side), slice(left, left + side))
        total[place] += value[..., None, None]
        count[place] += 1
    return (total / count).to(images)
