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
        check_pairs(images, classes)
        module = classifier.module
        with torch.enable_grad():
            with _record(module, self.layer) as outputs:
                logits = ruled_logits(classifier, images.detach().clone().requires_grad_(), None)
            activation = _choose(outputs, self.layer)
            gradients = logit_gradients(logits, classes, activation)
        activation = activation.detach()
        if classes.ndim == 2:
            activation = activation.unsqueeze(1)
        weights = gradients.mean((-2, -1), keepdim=True)
        cams = (weights * activation).sum(-3, keepdim=True).clamp_min(0)
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
