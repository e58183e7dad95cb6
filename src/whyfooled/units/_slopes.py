"""Activations of some layers for two images, and the slopes of two logits with respect to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.axes import Axes, read_axes
from whyfooled.classifier.dependence import check_recording
from whyfooled.classifier.layers import Layer, find_layers, watch_layers
from whyfooled.classifier.tracing import PassTrace, Seen
from whyfooled.errors import ModelError
from whyfooled.saliency.backward.gradients import ruled_logits
from whyfooled.types import Classes, Images


@final
@dataclass(frozen=True, eq=False)
class PairThrough:
    """What happens on the way of two images through a classifier, on its device.

    Parameters
    ----------
    logits
        (2,k) Of both images, for each of k classes, float64.
    maps
        (2,u,h,w) By a layer's name, its activations for both images.
    slopes
        (k,2,u,h,w) By a layer's name, the gradients of each class's logit with respect to them.
    unused
        The layers that no logit depends on.
    """

    logits: Float[Tensor, "2 k"]
    maps: dict[str, Tensor]
    slopes: dict[str, Tensor]
    unused: tuple[str, ...]


def differentiate_layers(
    classifier: Classifier, layers: Sequence[Layer], images: Images, classes: Classes
) -> PairThrough:
    """Send two images through a classifier, and differentiate (k,) classes' logits with respect to layers' outputs.

    It takes a forward pass for each image and a partial backward pass for each image and class; no parameter's gradient
    is computed. Of a layer that runs several times in a pass, the last counts.

    Raises
    ------
    ModelError
        If a layer gives no finite units with places, or none at all.
    ParameterError
        If there is no such layer, or no such class.
    """
    maps: dict[str, Tensor] = {}
    edges: dict[str, GradientEdge] = {}
    origins: dict[str, Seen] = {}
    check_recording(classifier.module)
    leaf = images.detach().clone().requires_grad_()
    trace = PassTrace(leaf)

    def see(name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        # A copy, and a place in the graph: the next layer may work in place, and then the tensor is what it gives.
        maps[name] = output.detach().clone(memory_format=torch.contiguous_format)
        origins[name] = trace.look(output)
        edges.pop(name, None)
        if output.requires_grad:
            edges[name] = get_gradient_edge(output)

    parts = {name: part for one in layers for name, part in find_layers(classifier.module, one.name).items()}
    with torch.enable_grad():
        with watch_layers(parts, see), trace:
            logits = ruled_logits(classifier, leaf, None, whole_way=False)
        axes = {layer.name: _check(layer, maps.get(layer.name), origins.get(layer.name)) for layer in layers}
        check_classes(classes, logits)
        chosen = logits[:, classes]
        slopes: dict[str, list[Tensor | None]] = {name: [] for name in maps}
        for k in range(len(classes) if edges else 0):
            gradients = torch.autograd.grad(
                chosen[:, k].sum(), list(edges.values()), retain_graph=k < len(classes) - 1, allow_unused=True
            )
            for name, slope in zip(edges, gradients, strict=True):
                slopes[name].append(slope)
    return PairThrough(
        logits=chosen.detach().double(),
        maps={name: axes[name].to_grid(maps[name]).contiguous() for name in maps},
        slopes={name: _stack(slopes[name], maps[name], axes[name], len(classes)) for name in maps},
        unused=tuple(name for name in maps if all(slope is None for slope in slopes[name])),
    )


def _stack(slopes: Sequence[Tensor | None], maps: Tensor, axes: Axes, classes: int) -> Tensor:
    there = [torch.zeros_like(maps) if slope is None else slope for slope in slopes]
    return torch.stack([axes.to_grid(slope) for slope in there or [torch.zeros_like(maps)] * classes])


def _check(layer: Layer, output: Tensor | None, seen: Seen | None) -> Axes:
    """Return which of a layer's axes are which, or raise `ModelError` if it is not as it was when it was dissected."""
    axes = None if output is None or seen is None else read_axes(seen.origin, tuple(output.shape))
    if (
        output is None
        or not isinstance(axes, Axes)
        or axes != layer.axes
        or min(axes.size(tuple(output.shape[1:]))) < 2
    ):
        raise ModelError(
            f"The layer {layer.name!r} must give (n, units, height, width) with more than one place, as it did when it "
            "was dissected; it does not. Dissect the model as it is now."
        )
    if not torch.isfinite(output).all():
        raise ModelError(
            f"The layer {layer.name!r} must give finite activations; got NaN or infinite ones. Check the weights."
        )
    return axes
