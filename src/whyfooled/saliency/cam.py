"""Class activation maps: which places of a late layer speak for a class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, bad_parameter, did_you_mean
from whyfooled.registry import Card
from whyfooled.saliency._gradients import check_pairs, logit_gradients, ruled_logits
from whyfooled.saliency.guided import GuidedBackprop
from whyfooled.types import Images, ManyClasses, ManyMaps


@final
@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM: the layer's channels, weighted by the mean of their gradients, summed, positive part, at image size.

    ``relu(Σ_k α_k A_k)``, ``α_k`` the spatial mean of ``∂z/∂A_k`` (Selvaraju et al. 2017, eq. 1 and 2). Upsampled
    bilinearly.

    Parameters
    ----------
    layer
        Name of the layer (as in ``module.named_modules()``); the last whose output is still spatial if None.
    """

    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="gradcam",
        title="Grad-CAM",
        summary="Which places of the last spatial layer speak for the class; coarse, and never negative.",
        source="Selvaraju et al. 2017, arXiv 1610.02391, sec. 3",
        cost="1 forward, 1 partial backward (to the layer) for each class",
    )

    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k).

        Raises
        ------
        ParameterError
            If the model has no layer of that name.
        MethodError
            If no layer is spatial, or the named one is not.
        """
        activation, gradients = _layer_gradients(classifier, images, classes, self.layer)
        weights = gradients.mean((-2, -1), keepdim=True)
        return _at_image_size(weights * activation, images)


@final
@dataclass(frozen=True)
class GradCAMPlusPlus:
    """Grad-CAM++: as Grad-CAM, with a channel's positive gradients weighted place by place (Chattopadhay et al. 2018).

    ``relu(Σ_k w_k A_k)``, ``w_k = Σ_ij α_kij · relu(g_kij)``, ``α_kij = g² / (2g² + Σ_ab A_kab · g³)``, with ``g`` the
    gradient of the logit (eq. 5 and 19). The paper differentiates ``exp(z)``; its gradient is ``exp(z)·g``, and that
    factor, the same for all places of a map, is left out: it overflows. Where the denominator is 0, so is α.

    Parameters
    ----------
    layer
        Name of the layer (as in ``module.named_modules()``); the last whose output is still spatial if None.
    """

    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="gradcampp",
        title="Grad-CAM++",
        summary="As Grad-CAM, with weights that do not shrink where a class is seen in several places.",
        source="Chattopadhay, Sarkar, Howlader, Balasubramanian 2018, arXiv 1710.11063, sec. 3",
        cost="1 forward, 1 partial backward (to the layer) for each class",
    )

    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k).

        Raises
        ------
        ParameterError
            If the model has no layer of that name.
        MethodError
            If no layer is spatial, or the named one is not.
        """
        activation, gradients = _layer_gradients(classifier, images, classes, self.layer)
        # α is g² over a multiple of g²: divided by it, nothing underflows where gradients are small.
        below = 2 + activation.sum((-2, -1), keepdim=True) * gradients
        alphas = torch.where(below == 0, 0, 1 / below)
        weights = (alphas * gradients.clamp_min(0)).sum((-2, -1), keepdim=True)
        return _at_image_size(weights * activation, images)


@final
@dataclass(frozen=True)
class GuidedGradCAM:
    """Guided Grad-CAM: guided backpropagation where Grad-CAM is, their product (Selvaraju et al. 2017, sec. 3.3).

    Raises `MethodError` on networks whose activations are no ReLUs.

    Parameters
    ----------
    layer
        Grad-CAM's layer (as in ``module.named_modules()``); the last whose output is still spatial if None.
    """

    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="guided-gradcam",
        title="Guided Grad-CAM",
        summary="Guided backpropagation times Grad-CAM: fine detail, in the places that speak for the class.",
        source="Selvaraju et al. 2017, arXiv 1610.02391, sec. 3.3",
        cost="2 forwards, 1 backward and 1 partial backward (to the layer) for each class",
    )

    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        Raises
        ------
        ParameterError
            If the model has no layer of that name.
        MethodError
            If no layer is spatial, or the named one is not.
        """
        where = GradCAM(self.layer)(classifier, images, classes)
        return GuidedBackprop()(classifier, images, classes) * where


def _layer_gradients(
    classifier: Classifier, images: Images, classes: ManyClasses, layer: str | None
) -> tuple[Tensor, Tensor]:
    """Return a layer's output (n,d,h,w), or (n,1,d,h,w) for classes (n,k), and the logits' gradients there."""
    check_pairs(images, classes)
    with torch.enable_grad():
        with _record(classifier.module, layer) as outputs:
            logits = ruled_logits(classifier, images.detach().clone().requires_grad_(), None)
        activation = _choose(outputs, layer)
        gradients = logit_gradients(logits, classes, activation)
    activation = activation.detach()
    return activation.unsqueeze(1) if classes.ndim == 2 else activation, gradients


def _at_image_size(weighted: Tensor, images: Images) -> Tensor:
    """Sum the weighted channels, keep the positive part, and enlarge it bilinearly to the images' size."""
    cams = weighted.sum(-3, keepdim=True).clamp_min(0)
    size = images.shape[-2:]
    upsampled = F.interpolate(cams.flatten(0, -4), size=size, mode="bilinear", align_corners=False)
    return upsampled.view(*cams.shape[:-3], 1, *size)


@contextmanager
def _record(module: nn.Module, layer: str | None) -> Iterator[list[tuple[str, Tensor]]]:
    """Collect (name, output) of one layer, or of all, in the order in which they finish; no hook stays behind."""
    layers = {name: part for name, part in module.named_modules() if name}
    if layer is not None:
        if layer not in layers:
            raise bad_parameter("layer", "must be a layer of the model", repr(layer), did_you_mean(layer, layers))
        layers = {layer: layers[layer]}
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Any:
        def hook(part: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs.append((name, output))

        return hook

    with ExitStack() as stack:
        for name, part in layers.items():
            stack.callback(part.register_forward_hook(keep(name)).remove)
        yield outputs


def _choose(outputs: list[tuple[str, Tensor]], layer: str | None) -> Tensor:
    spatial = [(place, output) for place, (_, output) in enumerate(outputs) if _is_spatial(output)]
    if not spatial:
        where = f"the layer {layer!r}" if layer else "every layer"
        raise MethodError(
            f"Grad-CAM needs a layer whose output is (n, channels, height, width); {where} of this model has another."
        )
    place, chosen = spatial[-1]
    if layer is None and any(output.ndim == 3 for _, output in outputs[place + 1 :]):
        raise MethodError(
            "Grad-CAM finds no late layer of this model whose output is (n, channels, height, width): it goes on with "
            f"tokens after {outputs[place][0]!r}. Name a layer with gradcam(layer=...)."
        )
    return chosen


def _is_spatial(output: Tensor) -> bool:
    return output.ndim == 4 and min(output.shape[-2:]) > 1 and output.requires_grad
