"""SmoothGrad: the mean of a method's maps over noisy versions of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.errors import at_least, bad_parameter, leaving_unsaid, warn
from whyfooled.registry import Card, describe
from whyfooled.saliency._samples import chunks, for_each_sample
from whyfooled.saliency.backward.gradients import EMPTY, check_pairs
from whyfooled.saliency.enhanced import BaseMethod, base_maps
from whyfooled.saliency.gradient import Gradient
from whyfooled.tensors.randomness import image_generators, normal
from whyfooled.types import Images, ManyClasses, ManyMaps


@final
@dataclass(frozen=True)
class SmoothGrad:
    """The mean of a method's maps over versions of the image with Gaussian noise (Smilkov et al. 2017, eq. 2).

    The noisy values are not clipped to [0, 1], as in the paper: clipping would shift their mean.

    Parameters
    ----------
    base
        The saliency method whose maps are averaged.
    samples
        Number of noisy versions.
    noise
        Standard deviation of the noise, as a share of the image's value range (its largest value less its smallest).
        The paper uses 0.1 to 0.2.
    seed
        Seed of the noise; each image has its own, made from this and its content.
    """

    base: BaseMethod = field(default_factory=Gradient)
    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="smoothgrad",
        title="SmoothGrad",
        summary="The mean of a method's maps over noisy versions of the image; of the gradient unless told otherwise.",
        source="Smilkov, Thorat, Kim, Viégas, Wattenberg 2017, arXiv 1706.03825, sec. 3",
        cost="`samples` times its base method",
    )

    def __post_init__(self) -> None:
        at_least("samples", self.samples, 1)
        if not 0 <= self.noise < float("inf"):
            raise bad_parameter("noise", "must be a share of the image's value range, at least 0", self.noise)

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k), or as the base method's are.

        With `create_graph` they can be differentiated with respect to the images, if the base method's can. The noise
        counts as given, its size as a function of the image's value range: each image has noise of its own, so that
        one that was changed gets other noise. The graphs of all samples are held until then: give fewer images, or
        fewer samples, if they do not fit into memory.
        """
        check_pairs(images, classes)
        maps_of = base_maps(self.base, create_graph)
        images = images if create_graph else images.detach()
        generators = image_generators(images, self.seed)
        spread = self.noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        total = images.new_zeros(())
        for chunk in chunks(self.samples, len(images)):
            count = chunk.stop - chunk.start
            noise = torch.stack([normal(images, generators) for _ in range(count)])
            noisy = (images + spread * noise).flatten(0, 1)
            # Of one noisy version a gradient may well be zero; of all of them it is said below.
            with leaving_unsaid(EMPTY):
                maps = maps_of(classifier, noisy, for_each_sample(classes, count))
            total = total + maps.view(count, len(images), *maps.shape[1:]).sum(0)
        if not total.flatten(1).any(1).all():
            warn(
                f"A map is zero at every pixel, because that of {describe(self.base)} is for every noisy version.",
                stacklevel=2,
            )
        return total / self.samples
