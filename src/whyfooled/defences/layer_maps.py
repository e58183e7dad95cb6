"""What a layer gives for a batch, with its graph: for detectors that look inside the classifier, and their attacks."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from whyfooled.classifier import Classifier
from whyfooled.classifier.heads import identify_parts
from whyfooled.classifier.layers import LAST_STAGE, Layer, choose_layers, find_layers, watch_layers
from whyfooled.defences.detector import run
from whyfooled.errors import ModelError, bad_parameter
from whyfooled.types import Images, Logits


class LayerMaps(NamedTuple):
    """What a layer gave.

    Parameters
    ----------
    logits
        (n,m) The logits of the same pass.
    maps
        (n,units,h,w)
    edge
        Its place in the graph, where gradients of the logits are taken; None without a graph.
    layer
        The layer, which turns such gradients into maps.
    """

    logits: Logits
    maps: Tensor
    edge: GradientEdge | None
    layer: Layer


def run_to_maps(classifier: Classifier, images: Images, name: str | None) -> LayerMaps:
    """Run the classifier, and take what one layer gave: the named one, or the last whose output has places.

    Raises
    ------
    ParameterError
        If the model has no layer of that name with places.
    ModelError
        If no layer has, or it does not run.
    """
    layer = _find_layer(classifier, name)
    outputs: list[tuple[Tensor, GradientEdge | None]] = []

    def see(_: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        # A copy: the next layer may work in place.
        outputs.append((output.clone(), get_gradient_edge(output) if output.requires_grad else None))

    with watch_layers(find_layers(classifier.module, layer.name), see):
        logits = run(classifier, images)
    if not outputs or outputs[-1][0].ndim != 1 + len(layer.shape):
        raise ModelError(f"The layer {layer.name!r} must give maps of its units for these images; it gave none.")
    output, edge = outputs[-1]
    return LayerMaps(logits, layer.to_maps(output), edge, layer)


def _find_layer(classifier: Classifier, name: str | None) -> Layer:
    """Find a layer; it takes a pass, so it is done once for a model."""
    known = _LAYERS.setdefault(classifier.module, {})
    key = name, identify_parts(classifier.module)
    if key not in known:
        layers = choose_layers(classifier, LAST_STAGE if name is None else name, "layer")
        if len(layers) > 1:
            names = ", ".join(layer.name for layer in layers)
            raise bad_parameter("layer", "must name one layer", f"{name!r}, which matches {names}")
        known[key] = layers[0]
    return known[key]


_LAYERS: WeakKeyDictionary[nn.Module, dict[Any, Layer]] = WeakKeyDictionary()
