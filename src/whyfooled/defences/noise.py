"""Whether the prediction holds under random noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.defences.detector import EvadableDetector, run
from whyfooled.defences.squeezing import log_distance, softmax_distance
from whyfooled.errors import at_least, positive
from whyfooled.registry import Card
from whyfooled.tensors.randomness import image_generators, normal
from whyfooled.types import Images, Logits, PerImage


@final
@dataclass(frozen=True)
class UnderNoise(EvadableDetector):
    """Compare the prediction with those on noisy copies of the image (Hu et al. 2019, their first criterion).

    The score is the ℓ1 distance of the softmax vectors, from 0 to 2, averaged over the copies. An image's noise comes
    from its content and the seed: who knows the detector knows it too.

    Parameters
    ----------
    sigma
        Standard deviation of the noise, for values in [0, 1]. [ours]
    samples
        How many noisy copies. [ours]
    seed
        Seed of the noise; each image has its own, made from this and its content.
    """

    sigma: float = 8 / 255
    samples: int = 8
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="noise",
        title="Prediction under noise",
        summary="Images whose prediction changes under random noise.",
        source="Hu, Yu, Guo, Chao, Weinberger 2019, arXiv 1905.07112, sec. 3",
        cost="1 + `samples` forwards",
    )

    def __post_init__(self) -> None:
        positive("sigma", self.sigma)
        at_least("samples", self.samples, 1)

    @one_thread()
    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) the mean ℓ1 distance of the softmax on the image and on noisy copies."""
        return self._average(classifier, images, softmax_distance)

    @one_thread()
    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return the mean of what does not saturate in place of the distance: an expectation over the noise."""
        return self._average(classifier, images, log_distance)

    def _average(
        self, classifier: Classifier, images: Images, distance: Callable[[Logits, Logits], PerImage]
    ) -> PerImage:
        logits = run(classifier, images)
        distances = [distance(logits, run(classifier, copy)) for copy in self._make_copies(images)]
        return torch.stack(distances).mean(0)

    def _make_copies(self, images: Images) -> Iterator[Images]:
        generators = image_generators(images, self.seed)
        for _ in range(self.samples):
            yield (images + self.sigma * normal(images, generators)).clamp(0, 1)
