"""DeepLIFT: what each pixel's difference from a baseline adds to the logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.dependence import check_recording
from whyfooled.classifier.heads import knows_ending
from whyfooled.errors import MethodError, one_of
from whyfooled.registry import Card
from whyfooled.saliency._baselines import BASELINES, Baseline, make_baselines
from whyfooled.saliency.backward.gradients import (
    check_pairs,
    logit_gradients,
    own_copy,
    plain_logits,
    warn_of_empty,
)
from whyfooled.saliency.backward.graph import uncompiled
from whyfooled.saliency.backward.rescale import RecordedInputs, RescaledCalls, Rescaling
from whyfooled.saliency.backward.rules import check_activations
from whyfooled.types import Images, Logits, ManyClasses, ManyMaps


@final
@dataclass(frozen=True)
class DeepLIFT:
    """DeepLIFT with the rescale rule: contributions to the logit's difference from a baseline (Shrikumar et al. 2017).

    A backward pass in which every ReLU's derivative is replaced by ``Δoutput/Δinput`` between image and baseline, and a
    max pooling's by its like; the result is multiplied by the image's difference from the baseline. The values of a map
    add up to the difference of the logits, ``z(x) − z(b)``, and this is checked. ReLUs count wherever they are called
    and however they are spelled; where pooling windows overlap, each has its share.

    Raises `MethodError` on networks whose activations are no ReLUs, and where the values do not add up: the network
    then has another step that is not linear, such as a gate, attention or another pooling.

    Parameters
    ----------
    baseline
        ``"zero"`` (black), ``"mean"`` (the image's mean colour) or ``"blur"`` (the image blurred; σ = 5 % of its
        shorter side). The paper leaves it to the task, and prefers a blurred image on CIFAR-10.
    """

    baseline: Baseline = "zero"

    card: ClassVar[Card] = Card(
        name="deeplift",
        title="DeepLIFT",
        summary="What each pixel's difference from a baseline adds to the class's logit, shared out at every ReLU.",
        source="Shrikumar, Greenside, Kundaje 2017, arXiv 1704.02685, sec. 3.5.2 (rescale rule)",
        cost="2 forwards, 1 backward for each class",
    )

    def __post_init__(self) -> None:
        one_of("baseline", self.baseline, BASELINES)

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images: all of the formula, so the baselines
        that are made of the images too.
        """
        check_pairs(images, classes)
        check_recording(classifier.module)
        leaf = own_copy(images, create_graph)
        images = leaf if create_graph else images.detach()
        start = make_baselines(images, self.baseline)
        if not knows_ending(classifier.module):
            # To find out how a model ends takes several passes; what is recorded below must be one.
            classifier.forward(start[:1].detach())
        # Black is black whatever the image.
        rescaling, references = Rescaling(again=create_graph), RecordedInputs(keeps_graph=start.requires_grad)
        reference = start if start.requires_grad else start.clone().requires_grad_()
        # With a graph, as for the images: what a model does without one must be the same in both passes.
        with torch.enable_grad(), uncompiled(), references:
            before = plain_logits(classifier, reference.clone()).detach()
        with torch.enable_grad():
            with uncompiled(), RescaledCalls(references, rescaling) as calls:
                after = plain_logits(classifier, leaf)
            calls.check_all_met()
            check_activations(classifier.module, after, leaf, calls)
            slopes = logit_gradients(after, classes, leaf, create_graph=create_graph)
        rescaling.over = True
        warn_of_empty(slopes)
        way = images - start
        maps = slopes * (way if classes.ndim == 1 else way.unsqueeze(1))
        _check_sum(maps.detach(), before, after.detach(), classes, _SMOOTH if rescaling.smoothed else _ROUNDING)
        return maps


_ROUNDING, _SMOOTH = 1e-5, 1e-3
"""By how much sums may be off, relative to their terms; by more where slopes of smooth activations are quotients."""


def _check_sum(maps: Tensor, before: Logits, after: Logits, classes: Tensor, rounding: float) -> None:
    """Raise `MethodError` unless the maps add up to the differences of the logits, as far as rounding lets them."""
    sums = maps.flatten(-3).sum(-1)
    columns = classes.reshape(len(classes), -1).long()
    low, high = (logits.gather(1, columns).view_as(sums) for logits in (before, after))
    allowed = rounding * (maps.flatten(-3).abs().sum(-1) + low.abs() + high.abs())
    if bool(((sums - (high - low)).abs() > allowed).any()):
        raise MethodError(
            "This method's values must add up to the logit's difference from the baseline, and they do not: this model "
            "has a step that is neither linear nor a ReLU nor 2d max pooling, such as a gate or attention. Use "
            "integrated-gradients, which holds for every model."
        )
