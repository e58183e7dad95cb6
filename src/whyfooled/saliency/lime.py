"""LIME: a linear model of what the classifier does when parts of the image are hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.errors import at_least, bad_parameter, one_of, positive
from whyfooled.registry import Card
from whyfooled.saliency._samples import chunks
from whyfooled.saliency.backward.gradients import check_pairs
from whyfooled.tensors.fills import FILLS, filled
from whyfooled.tensors.randomness import image_generators
from whyfooled.types import Image, Images, ManyClasses, ManyMaps

LimeFill = Literal["superpixel", "zero", "mean", "noise", "blur"]


@final
@dataclass(frozen=True)
class LIME:
    """LIME: how much each superpixel adds to the logit, by a linear model near the image (Ribeiro et al. 2016).

    Superpixels are hidden at random, each with probability 1/2; on the logits of the images so made, weighted by how
    much of the image is left, a ridge regression on the superpixels' presence is fitted. A map gives every pixel its
    superpixel's coefficient.

    It follows the authors' code for images, where the paper leaves the choice: cosine distance, the kernel
    ``exp(−D²/2σ²)``, the ridge, and all superpixels in the fit instead of the best K. It differs from it in two ways:
    what is fitted is the logit, not the probability, which is flat where the classifier is sure; and superpixels are
    SLIC's with adaptive compactness (Achanta et al. 2012) [ours], not quickshift's, whose number cannot be chosen (26
    to 36 on three photographs, of up to an eighth of the image) and which takes ten times as long.

    Parameters
    ----------
    samples
        Number of images with hidden superpixels; the first one is whole.
    superpixels
        About how many superpixels there are. [ours]
    kernel_width
        The kernel's σ: the smaller, the less images count of which much is hidden.
    fill
        What a hidden pixel becomes: ``"superpixel"`` (its superpixel's mean colour, as in the authors' code),
        ``"zero"`` (black), ``"mean"`` (of the image), ``"noise"`` or ``"blur"``.
    ridge
        Weight of the coefficients' squares in the fit.
    seed
        Seed of what is hidden; each image has its own, made from this and its content.
    """

    samples: int = 500
    superpixels: int = 50
    kernel_width: float = 0.25
    fill: LimeFill = "superpixel"
    ridge: float = 1.0
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="lime",
        title="LIME",
        summary="How much each superpixel adds to the class's logit, in a linear model of what hiding them does.",
        source="Ribeiro, Singh, Guestrin 2016, arXiv 1602.04938, sec. 3",
        cost="`samples` forwards, for all classes together",
    )

    def __post_init__(self) -> None:
        at_least("samples", self.samples, 2)
        at_least("superpixels", self.superpixels, 2)
        positive("kernel_width", self.kernel_width)
        one_of("fill", self.fill, ("superpixel", *FILLS))
        if not 0 <= self.ridge < float("inf"):
            raise bad_parameter("ridge", "must be a finite number, at least 0", self.ridge)

    @one_thread()
    @torch.no_grad()
    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k)."""
        check_pairs(images, classes)
        columns = classes.reshape(len(classes), -1).long()
        generators = image_generators(images, self.seed)
        parts = [make_superpixels(image, self.superpixels) for image in images]
        hidden = self._hide(images, parts, generators)
        present = [
            torch.rand(self.samples, int(part.max()) + 1, generator=generator) < 0.5
            for part, generator in zip(parts, generators, strict=True)
        ]
        for presence in present:
            presence[0] = True
        logits = []
        for chunk in chunks(self.samples, len(images)):
            keep = torch.stack(
                [z[chunk].to(part.device)[:, part] for z, part in zip(present, parts, strict=True)], dim=1
            )
            chunk_logits = classifier.logits(torch.where(keep.unsqueeze(2), images, hidden).flatten(0, 1))
            check_classes(classes, chunk_logits)
            wanted = columns.repeat(len(keep), 1)
            logits.append(chunk_logits.gather(1, wanted).view(len(keep), *columns.shape))
        answers = torch.cat(logits).double().cpu()
        maps = torch.stack(
            [
                fit(presence, answers[:, i], self.kernel_width, self.ridge).to(images)[:, part]
                for i, (presence, part) in enumerate(zip(present, parts, strict=True))
            ]
        )
        return maps.view(*classes.shape, 1, *images.shape[-2:])

    def _hide(self, images: Images, parts: list[Tensor], generators: list[torch.Generator]) -> Images:
        if self.fill != "superpixel":
            return filled(images, self.fill, generators)
        return torch.stack([mean_colours(image, part) for image, part in zip(images, parts, strict=True)])


def make_superpixels(image: Image, superpixels: int) -> Int[Tensor, "h w"]:
    """Segment an image into about so many superpixels, numbered from 0."""
    # Imported here, because it takes a second and no other method needs it.
    from skimage.segmentation import slic

    pixels = image.detach().clamp(0, 1).permute(1, 2, 0).to("cpu", torch.float64).numpy()
    labels = slic(pixels, n_segments=superpixels, slic_zero=True, start_label=0, channel_axis=-1)
    _, numbers = np.unique(labels, return_inverse=True)
    return torch.from_numpy(numbers.reshape(labels.shape)).long().to(image.device)


def mean_colours(image: Image, parts: Int[Tensor, "h w"]) -> Image:
    """Give every pixel the mean colour of its superpixel."""
    flat = parts.flatten()
    count = int(flat.max()) + 1
    sums = image.new_zeros(len(image), count).index_add_(1, flat, image.flatten(1))
    return (sums / torch.bincount(flat, minlength=count))[:, flat].view_as(image)


def fit(
    presence: Bool[Tensor, "s d"], answers: Float[Tensor, "s k"], kernel_width: float, ridge: float
) -> Float[Tensor, "k d"]:
    """Fit ``answers ≈ presence · coefficients + constant`` by weighted ridge regression; the constant is not penalised.

    A sample's weight is ``exp(−D²/2σ²)``, with ``D = 1 − √p`` its cosine distance from the whole image, when a share p
    of the superpixels is present.
    """
    z = presence.double()
    distance = 1 - z.mean(1).sqrt()
    weights = torch.exp(-(distance**2) / (2 * kernel_width**2)).unsqueeze(1)
    z = z - (weights * z).sum(0) / weights.sum()
    y = answers - (weights * answers).sum(0) / weights.sum()
    # The penalty as rows of their own, so that least squares hold with a ridge of 0, too.
    penalty = ridge**0.5 * torch.eye(z.shape[1], dtype=z.dtype)
    rows = torch.cat([weights.sqrt() * z, penalty])
    values = torch.cat([weights.sqrt() * y, penalty.new_zeros(len(penalty), y.shape[1])])
    solution: Tensor = torch.linalg.lstsq(rows, values, driver="gelsd").solution
    return solution.T
