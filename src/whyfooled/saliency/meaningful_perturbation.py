"""Meaningful perturbation: the smallest part of the image whose deletion takes the class away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.dependence import differentiate
from whyfooled.errors import at_least, bad_parameter, one_of, positive, warn
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import check_pairs, plain_logits
from whyfooled.tensors.adam import Moments
from whyfooled.tensors.fills import FILLS, Fill, filled
from whyfooled.tensors.randomness import image_generators
from whyfooled.types import Images, ManyClasses, ManyMaps

_FEWEST_PIXELS_A_CELL = 4


@final
@dataclass(frozen=True)
class MeaningfulPerturbation:
    """The small, smooth region whose deletion lowers the logit most: the deletion game (Fong & Vedaldi 2017).

    A mask m of few cells (1 keeps, 0 deletes) is enlarged to the image, which it mixes with a reference without
    content; Adam minimises ``z(mix)/scale + l1 · mean(1 − m) + tv · mean(|∇m|^β)``. A map is ``1 − m``, from 0 to 1.

    The paper minimises the class's probability, with which the weights are of the right size for every image, but which
    is flat where the classifier is sure. Here it is the logit, divided by the most that deleting the whole image takes
    from any class's logit [ours]. For that class, with ``l1 = 1``, to delete a share of the image pays if it takes away
    a larger share of the evidence; of a class that is hardly in the image little or nothing is deleted, and where it is
    nothing a warning says so. The mask begins at 1/2 everywhere [ours: the paper searches for a disc] and is enlarged
    bilinearly.

    Parameters
    ----------
    steps
        Number of Adam's steps; the paper takes 300.
    learning_rate
        Size of Adam's steps.
    fill
        The reference: ``"blur"`` (the image blurred; σ = 5 % of its shorter side), ``"zero"``, ``"mean"`` or
        ``"noise"``.
    cells
        Number of the mask's cells along the shorter side; fewer where they had less than 4 pixels.
    l1
        Weight of the share of the image that is deleted. [ours]
    tv
        Weight of the total variation. [ours]
    beta
        Exponent β of the total variation.
    jitter
        By how much the image is shifted under the mask at random in each step, at most, as a share of its shorter side:
        1/56 is 4 of 224 pixels. What no shift disturbs is no artefact of single pixels.
    seed
        Seed of the shifts and of noise; each image has its own, made from this and its content.
    """

    steps: int = 100
    learning_rate: float = 0.1
    fill: Fill = "blur"
    cells: int = 28
    l1: float = 1.0
    tv: float = 10.0
    beta: float = 3.0
    jitter: float = 1 / 56
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="meaningful-perturbation",
        title="Meaningful perturbation",
        summary="The small, smooth region of the image whose deletion takes most from the class's logit.",
        source="Fong & Vedaldi 2017, arXiv 1704.03296, sec. 4",
        cost="2 forwards, and `steps` times 1 forward and 1 backward for each class",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        positive("learning_rate", self.learning_rate)
        one_of("fill", self.fill, FILLS)
        at_least("cells", self.cells, 1)
        for name, value in (("l1", self.l1), ("tv", self.tv)):
            if not 0 <= value < float("inf"):
                raise bad_parameter(name, "must be a finite number, at least 0", value)
        at_least("beta", self.beta, 1)
        if not 0 <= self.jitter < 1:
            raise bad_parameter("jitter", "must be a share of the image's side, at least 0 and below 1", self.jitter)

    @one_thread()
    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k)."""
        check_pairs(images, classes)
        images = images.detach()
        columns = classes.reshape(len(classes), -1)
        # One image at a time: Adam's steps make much of the rounding, which depends on the size of a batch.
        masks = torch.cat([self._find_masks(classifier, images[i : i + 1], columns[i]) for i in range(len(images))])
        if not (masks < 1).flatten(1).any(1).all():
            warn(
                "An image has nothing whose deletion lowers the logit by as much as it costs. Its map is empty; with "
                "a smaller `l1` deletion costs less.",
                stacklevel=2,
            )
        return (1 - _enlarged(masks, images.shape[-2:])).view(*classes.shape, 1, *images.shape[-2:])

    def _find_masks(self, classifier: Classifier, image: Images, classes: Tensor) -> Tensor:
        """Find the masks (k,1,rows,columns) of k classes of one image (1,c,h,w)."""
        generators = image_generators(image, self.seed)
        reference = filled(image, self.fill, generators)
        scale = _scale(classifier, image, reference, classes)
        reach = round(self.jitter * min(image.shape[-2:]))
        shifts = torch.randint(2 * reach + 1, (self.steps, 2), generator=generators[0]).tolist()
        both = F.pad(torch.cat([image, reference]), (reach,) * 4, mode="replicate")
        masks = [
            self._find_mask(classifier, both, shifts, image.shape[-2:], index, scale) for index in classes.tolist()
        ]
        return torch.cat(masks)

    def _find_mask(
        self,
        classifier: Classifier,
        both: Tensor,
        shifts: list[list[int]],
        size: torch.Size,
        index: int,
        scale: Tensor,
    ) -> Tensor:
        """Find the mask (1,1,rows,columns) of a class, from the image and the reference, padded for the shifts."""
        mask = both.new_full((1, 1, *mask_size(size, self.cells)), 0.5)
        moments = Moments.zero(mask)
        for step, (y, x) in enumerate(shifts):
            image, reference = torch.split(both[:, :, y : y + size[0], x : x + size[1]], 1)
            leaf = mask.requires_grad_()
            with torch.enable_grad():
                logits = plain_logits(classifier, reference + _enlarged(leaf, size) * (image - reference))
                slope = differentiate(logits[0, index] / scale + self._compute_cost(leaf), leaf)
            moments = moments.after(slope)
            mean, deviation = moments.direction(step + 1)
            mask = (mask.detach() - self.learning_rate * mean / deviation).clamp(0, 1)
        return mask

    def _compute_cost(self, mask: Tensor) -> Tensor:
        """Compute what a mask costs: the share that it deletes, and its roughness."""
        roughness = sum(mask.diff(dim=side).abs().pow(self.beta).sum() for side in (-2, -1))
        return self.l1 * (1 - mask).mean() + self.tv * roughness / mask.numel()


def _scale(classifier: Classifier, image: Images, reference: Images, classes: Tensor) -> Tensor:
    """Return how large a change of a logit is large in an image, and check the classes."""
    whole = classifier.logits(image)
    check_classes(classes, whole)
    return (whole - classifier.logits(reference)).max().clamp_min(1e-12)


def mask_size(size: tuple[int, ...], cells: int) -> tuple[int, int]:
    """Return how many rows and columns a mask has: `cells` along the shorter side, fewer in a small image."""
    height, width = size
    shorter = min(height, width)
    number = max(1, min(cells, shorter // _FEWEST_PIXELS_A_CELL))
    return round(number * height / shorter), round(number * width / shorter)


def _enlarged(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
