"""Meaningful perturbation: the smallest part of the image whose deletion takes the class away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled._adam import Moments
from whyfooled.classifier import Classifier, check_classes
from whyfooled.errors import at_least, bad_parameter, one_of, positive
from whyfooled.fills import FILLS, Fill, filled
from whyfooled.randomness import image_generators
from whyfooled.registry import Card
from whyfooled.saliency._gradients import check_pairs, plain_logits
from whyfooled.saliency._samples import AT_ONCE
from whyfooled.types import Images, ManyClasses, ManyMaps

_FEWEST_PIXELS_A_CELL = 4


@final
@dataclass(frozen=True)
class MeaningfulPerturbation:
    """The small, smooth region whose deletion lowers the logit most: the deletion game (Fong & Vedaldi 2017).

    A mask m of few cells (1 keeps, 0 deletes) is enlarged to the image, which it mixes with a reference without
    content; Adam minimises ``z(mix)/scale + l1 · mean(1 − m) + tv · mean(|∇m|^β)``. A map is ``1 − m``, from 0 to 1.

    The paper minimises the class's probability, with which the weights are of the right size for every image, but which
    is flat where the classifier is sure. Here it is the logit, divided by what deleting the whole image takes from it
    [ours] (or by the standard deviation of the image's logits, where that is larger: the class is hardly in the image).
    With ``l1 = 1`` to delete a share of the image then pays if it takes away a larger share of that. The mask begins at
    1/2 everywhere [ours: the paper searches for a disc] and is enlarged bilinearly.

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

    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k)."""
        check_pairs(images, classes)
        images = images.detach()
        columns = classes.reshape(len(classes), -1).long()
        generators = image_generators(images, self.seed)
        reference = filled(images, self.fill, generators)
        scale = _scale(classifier, images, reference, columns).flatten()
        reach = round(self.jitter * min(images.shape[-2:]))
        shifts = torch.stack([torch.randint(2 * reach + 1, (self.steps, 2), generator=g) for g in generators])
        # One mask for each image and class; the classes of an image share its shifts.
        owners = torch.arange(len(images), device=images.device).repeat_interleave(columns.shape[1])
        masks = [
            self._mask(classifier, images[some], reference[some], asked, size, shifts[some.cpu()], reach)
            for some, asked, size in zip(
                *(torch.split(values, AT_ONCE) for values in (owners, columns.flatten(), scale)), strict=True
            )
        ]
        deleted = 1 - _enlarged(torch.cat(masks), images)
        return deleted.view(*classes.shape, 1, *images.shape[-2:])

    def _mask(
        self,
        classifier: Classifier,
        images: Tensor,
        reference: Tensor,
        classes: Tensor,
        scale: Tensor,
        shifts: Tensor,
        reach: int,
    ) -> Tensor:
        """Find the masks (n,1,rows,columns) of n images."""
        mask = images.new_full((len(images), 1, *mask_size(images, self.cells)), 0.5)
        moments = Moments.zero(mask)
        pictures, blanks = (F.pad(values, (reach,) * 4, mode="replicate") for values in (images, reference))
        for step in range(self.steps):
            picture, blank = (_shifted(values, shifts[:, step], images) for values in (pictures, blanks))
            leaf = mask.requires_grad_()
            with torch.enable_grad():
                mixed = blank + _enlarged(leaf, images) * (picture - blank)
                logits = plain_logits(classifier, mixed).gather(1, classes.unsqueeze(1)).squeeze(1)
                # A sum: each mask has the gradient of its own image.
                loss = (logits / scale + self._cost(leaf)).sum()
                (slope,) = torch.autograd.grad(loss, leaf)
            moments = moments.after(slope)
            mean, size = moments.direction(step + 1)
            mask = (mask.detach() - self.learning_rate * mean / size).clamp(0, 1)
        return mask

    def _cost(self, mask: Tensor) -> Tensor:
        """Compute what each mask costs: the share that it deletes, and its roughness."""
        down, across = mask.diff(dim=-2).abs(), mask.diff(dim=-1).abs()
        roughness = down.pow(self.beta).flatten(1).sum(1) + across.pow(self.beta).flatten(1).sum(1)
        return self.l1 * (1 - mask).flatten(1).mean(1) + self.tv * roughness / mask[0].numel()


@torch.no_grad()
def _scale(classifier: Classifier, images: Images, reference: Images, columns: Tensor) -> Tensor:
    """Return (n,k) how large a change of a logit is large."""
    whole = classifier.logits(images)
    check_classes(columns, whole)
    lost = (whole - classifier.logits(reference)).gather(1, columns)
    return torch.maximum(lost, whole.std(1, keepdim=True)).clamp_min(1e-12)


def mask_size(images: Images, cells: int) -> tuple[int, int]:
    """Return how many rows and columns a mask has: `cells` along the shorter side, fewer in a small image."""
    height, width = images.shape[-2:]
    shorter = min(height, width)
    number = max(1, min(cells, shorter // _FEWEST_PIXELS_A_CELL))
    return round(number * height / shorter), round(number * width / shorter)


def _enlarged(mask: Tensor, images: Images) -> Tensor:
    return F.interpolate(mask, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _shifted(padded: Tensor, shifts: Tensor, images: Images) -> Tensor:
    """Cut images of the original size out of padded ones, each at its own place."""
    h, w = images.shape[-2:]
    return torch.stack([image[:, y : y + h, x : x + w] for image, (y, x) in zip(padded, shifts.tolist(), strict=True)])
