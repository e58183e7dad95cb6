"""Class activation maps: which places of a late layer speak for a class."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.dependence import check_recording
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.saliency._pooling import find_pooled_linear
from whyfooled.saliency._spatial import at_image_size, run_to_layer
from whyfooled.saliency.backward.gradients import check_pairs, logit_gradients, own_copy
from whyfooled.saliency.backward.graph import plain_attention
from whyfooled.saliency.guided import GuidedBackprop
from whyfooled.types import Images, ManyClasses, ManyMaps


@final
@dataclass(frozen=True)
class CAM:
    """Class activation mapping: the last spatial layer's channels, weighted by the linear layer that gives the logit.

    ``Σ_k w_ck A_k`` (Zhou et al. 2016, sec. 2), signed, upsampled bilinearly to the images' size. It speaks of the
    logit: the mean of the map over the layer's places, plus the bias, is the logit. Where the images' height and width
    are multiples of the layer's, so is the mean of the upsampled map.

    That is exact, and offered, only where the logits are a linear layer (``nn.Linear``, or ``nn.Conv2d`` of 1 × 1) of
    the mean over the places of ``A``; there it is what Grad-CAM is before its positive part is taken, times the number
    of places. The paper trains such a head on networks that have another; here a network is used as it is.

    Parameters
    ----------
    layer
        Name of the layer whose output is ``A`` (as in ``module.named_modules()``); if None, the last tensor whose mean
        the linear layer takes is found in the forward pass. Channels may come first or last, and places may be tokens.
    """

    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="cam",
        title="CAM",
        summary="Which places of the last spatial layer raise the class's logit, which lower it; for pooled features.",
        source="Zhou, Khosla, Lapedriza, Oliva, Torralba 2016, arXiv 1512.04150, sec. 2",
        cost="1 forward, for all classes",
    )

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.

        Raises
        ------
        ParameterError
            If the model has no layer of that name.
        MethodError
            If the logits are not a linear layer of the mean of a spatial layer's channels, or of the named one's.
        """
        check_pairs(images, classes)
        logits, features, weight = find_pooled_linear(
            classifier, images, self.layer, self.card, create_graph=create_graph
        )
        check_classes(classes, logits)
        chosen = weight.detach()[classes.long().to(weight.device)]
        with torch.autocast(features.device.type, enabled=False):
            cams = torch.einsum("n...d,ndhw->n...hw", chosen, features.to(chosen))
        return at_image_size(cams, images).unsqueeze(-3)


@final
@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM: the layer's channels, weighted by the mean of their gradients, summed, positive part, at image size.

    ``relu(Σ_k α_k A_k)``, ``α_k`` the spatial mean of ``∂z/∂A_k`` (Selvaraju et al. 2017, eq. 1 and 2). Upsampled
    bilinearly.

    Parameters
    ----------
    layer
        Name of the layer (as in ``module.named_modules()``); if None, the last whose output has places that the logits
        depend on. Channels may come first or last, and places may be tokens: what they are is told by what the model
        does with the image. Tokens that have no place, such as a class token, are left out; where one gives the logits,
        the layer is the norm before the last attention (``blocks.11.norm1`` of a ViT), as no patch is read after it.
    """

    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="gradcam",
        title="Grad-CAM",
        summary="Which places of the last spatial layer speak for the class; coarse, and never negative.",
        source="Selvaraju et al. 2017, arXiv 1610.02391, sec. 3",
        cost="1 forward, 1 partial backward (to the layer) for each class",
    )

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.

        Raises
        ------
        ParameterError
            If the model has no layer of that name.
        MethodError
            If no layer is spatial, or the named one is not.
        ModelError
            If the logits do not depend on what the layer gives.
        """
        return _grad_cam(classifier, images, classes, self, create_graph)


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
        Name of the layer, as for `GradCAM`.
    """

    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="gradcampp",
        title="Grad-CAM++",
        summary="As Grad-CAM, with weights that do not shrink where a class is seen in several places.",
        source="Chattopadhay, Sarkar, Howlader, Balasubramanian 2018, arXiv 1710.11063, sec. 3",
        cost="1 forward, 1 partial backward (to the layer) for each class",
    )

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,1,h,w) for classes (n,), (n,k,1,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.

        Raises
        ------
        ParameterError
            If the model has no layer of that name.
        MethodError
            If no layer is spatial, or the named one is not.
        ModelError
            If the logits do not depend on what the layer gives.
        """
        activation, gradients = _layer_gradients(classifier, images, classes, self, create_graph)
        # α is g² over a multiple of g²: divided by it, nothing underflows where gradients are small.
        below = 2 + activation.sum((-2, -1), keepdim=True) * gradients
        alphas = torch.where(below == 0, 0, 1 / below)
        weights = (alphas * gradients.clamp_min(0)).sum((-2, -1), keepdim=True)
        return _positive_sum(weights * activation, images)


@final
@dataclass(frozen=True)
class GuidedGradCAM:
    """Guided Grad-CAM: guided backpropagation where Grad-CAM is, their product (Selvaraju et al. 2017, sec. 3.3).

    Guided backpropagation is that of `GuidedBackprop`, whatever the activations are.

    Parameters
    ----------
    layer
        Name of Grad-CAM's layer, as for `GradCAM`.
    """

    layer: str | None = None

    card: ClassVar[Card] = Card(
        name="guided-gradcam",
        title="Guided Grad-CAM",
        summary="Guided backpropagation times Grad-CAM: fine detail, in the places that speak for the class.",
        source="Selvaraju et al. 2017, arXiv 1610.02391, sec. 3.3",
        cost="2 forwards, 1 backward and 1 partial backward (to the layer) for each class",
    )

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.

        Raises
        ------
        ParameterError
            If the model has no layer of that name.
        MethodError
            If no layer is spatial, or the named one is not.
        ModelError
            If the logits do not depend on what the layer gives.
        """
        where = _grad_cam(classifier, images, classes, self, create_graph)
        return GuidedBackprop()(classifier, images, classes, create_graph=create_graph) * where


def _grad_cam(
    classifier: Classifier, images: Images, classes: ManyClasses, method: _OfLayer, create_graph: bool
) -> ManyMaps:
    activation, gradients = _layer_gradients(classifier, images, classes, method, create_graph)
    return _positive_sum(gradients.mean((-2, -1), keepdim=True) * activation, images)


_OfLayer = GradCAM | GradCAMPlusPlus | GuidedGradCAM


def _layer_gradients(
    classifier: Classifier, images: Images, classes: ManyClasses, method: _OfLayer, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Return a layer's output (n,d,h,w), or (n,1,d,h,w) for classes (n,k), and the logits' gradients there."""
    check_pairs(images, classes)
    check_recording(classifier.module)
    leaf = own_copy(images, create_graph)
    attention = plain_attention() if create_graph else nullcontext()
    with torch.enable_grad(), attention:
        logits, (value, axes, edge) = run_to_layer(classifier, leaf, method.layer, method.card, keep_graph=create_graph)
        gradients = logit_gradients(logits, classes, edge, create_graph=create_graph)
    activation = axes.to_grid(value)
    if classes.ndim == 1:
        slopes = axes.to_grid(gradients)
    else:
        slopes = axes.to_grid(gradients.flatten(0, 1))
        slopes = slopes.view(*gradients.shape[:2], *slopes.shape[1:])
    if axes.tokens and not slopes.any():
        raise MethodError(
            f"{method.card.title} needs a layer whose places the logits depend on; after {method.layer!r} they depend "
            f"on none of its {slopes.shape[-2]} × {slopes.shape[-1]}, only on tokens that have no place, such as a "
            f"class token. Name an earlier layer with {method.card.name}(layer=...)."
        )
    return activation.unsqueeze(1) if classes.ndim == 2 else activation, slopes


def _positive_sum(weighted: Tensor, images: Images) -> ManyMaps:
    """Sum the weighted channels, keep the positive part, and bring it to the images' size."""
    return at_image_size(weighted.sum(-3).clamp_min(0), images).unsqueeze(-3)
