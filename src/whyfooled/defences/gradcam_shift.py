"""Whether the classifier looks elsewhere once the image went through a median filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.dependence import check_recording, differentiate
from whyfooled.defences.detector import EvadableDetector
from whyfooled.defences.layer_maps import run_to_maps
from whyfooled.defences.squeezing import check_window
from whyfooled.errors import ModelError
from whyfooled.registry import Card
from whyfooled.tensors.medians import filter_median
from whyfooled.types import Classes, Images, PerImage

_LEAK = 0.01
"""[ours]"""


@final
@dataclass(frozen=True)
class GradCAMShift(EvadableDetector):
    """Compare where the classifier looks with where it looks once the image is filtered.

    The score is 1 minus the cosine of two Grad-CAM maps of the class that is predicted on the image: that of the image,
    and that of its copy under a median filter. It is 1 where one of them is empty, 0 where both are. [ours]

    Parameters
    ----------
    size
        Side of the filter's window, in pixels.
    layer
        Name of Grad-CAM's layer (as in ``module.named_modules()``); if None, the last whose output has places.
    """

    size: int = 2
    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="gradcam-shift",
        title="Grad-CAM shift",
        summary="Images whose Grad-CAM map of the predicted class changes under a small median filter.",
        source="this package; Grad-CAM of Selvaraju et al. 2017, the filter of Xu et al. 2018",
        cost="2 forwards, 2 partial backwards",
    )

    def __post_init__(self) -> None:
        check_window(self.size)

    @one_thread()
    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) 1 minus the cosine of the two maps."""
        check_recording(classifier.module)
        with torch.enable_grad():
            return self._shift(classifier, images.clone().requires_grad_(), create_graph=False).detach()

    @one_thread()
    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return the score with a graph, through the gradients in the maps.

        An empty map has no slope that would fill it, so what is negative counts a hundredth in place of nothing.
        """
        return self._shift(classifier, images, create_graph=True)

    def _shift(self, classifier: Classifier, images: Images, create_graph: bool) -> PerImage:
        map_before, predicted = self._find_map(classifier, images, None, create_graph)
        map_after, _ = self._find_map(classifier, filter_median(images, self.size), predicted, create_graph)
        before, after = map_before.flatten(1), map_after.flatten(1)
        lengths = [maps.norm(dim=1).clamp_min(torch.finfo(maps.dtype).tiny) for maps in (before, after)]
        cosine = (before / lengths[0].unsqueeze(1) * after / lengths[1].unsqueeze(1)).sum(1)
        both_empty = ~(before.any(1) | after.any(1))
        return torch.where(both_empty, 0, 1 - cosine)

    def _find_map(
        self, classifier: Classifier, images: Images, classes: Classes | None, create_graph: bool
    ) -> tuple[Tensor, Classes]:
        """Return (n,1,h,w) Grad-CAM of a class for each image, of the predicted one if None, and the classes."""
        seen = run_to_maps(classifier, images, self.layer)
        classes = seen.logits.argmax(1) if classes is None else classes
        if seen.edge is None:
            raise ModelError("Grad-CAM shift needs a layer that the gradient of a logit reaches; there is none.")
        chosen = seen.logits.gather(1, classes.unsqueeze(1)).sum()
        slopes = seen.layer.to_maps(differentiate(chosen, seen.edge, create_graph=create_graph, retain_graph=True))
        weighted = (slopes.mean((-2, -1), keepdim=True) * seen.maps).sum(1, keepdim=True)
        cams = F.leaky_relu(weighted, _LEAK if create_graph else 0)
        return F.interpolate(cams, size=images.shape[-2:], mode="bilinear", align_corners=False), classes
