"""What class activation maps share: the layer they are made of, and maps brought to the size of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast, final
from weakref import WeakKeyDictionary

import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from whyfooled.classifier import Classifier
from whyfooled.classifier.axes import Axes, read_axes
from whyfooled.classifier.dependence import walk
from whyfooled.classifier.heads import identify_parts
from whyfooled.classifier.layers import describe_output, find_layers, is_grid, watch_layers
from whyfooled.classifier.placed import find_last_read
from whyfooled.classifier.tracing import Moment, PassTrace
from whyfooled.errors import MethodError, ModelError
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import ruled_logits
from whyfooled.types import Images, Logits


class ChosenOutput(NamedTuple):
    """The output of a layer that maps are made of: what it was, which of its axes are which, its place in the graph."""

    value: Tensor
    axes: Axes
    edge: GradientEdge


def run_to_layer(
    classifier: Classifier, images: Images, layer: str | None, card: Card, *, keep_graph: bool = False
) -> tuple[Logits, ChosenOutput]:
    """Run the classifier, and take what one layer gave: the named one, or the last that has places.

    Which one that is, and which of its axes are which, is found out once for a model and a size of images. With
    `keep_graph`, what the layer gave can be differentiated; then finding out takes a forward pass of its own.

    Raises
    ------
    ParameterError
        If the model has no layer of that name.
    MethodError
        In the name of the method, if no layer has such an output, or the named one has another.
    ModelError
        If the logits do not depend on what has.
    """
    choices = _CHOICES.setdefault(classifier.module, {})
    key = layer, images.shape[1:], identify_parts(classifier.module)
    if keep_graph and key not in choices:
        run_to_layer(classifier, images.detach().requires_grad_(), layer, card)
    if key in choices:
        logits, again = _run_to_known(classifier, images, layer, choices[key], keep_graph)
        if again is not None:
            return logits, again
    if keep_graph:
        raise MethodError(
            f"The maps of {card.title} cannot be differentiated here, because this model goes another way each time."
        )
    trace, outputs = PassTrace(images), list[LayerOutput]()

    def see(name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        edge = get_gradient_edge(output) if output.requires_grad else None
        outputs.append(LayerOutput(name, part, trace.hold(output), edge))

    with watch_layers(find_layers(classifier.module, layer), see), trace:
        logits = ruled_logits(classifier, images, None, whole_way=False)
    chosen = _choose(outputs, logits, layer, card)
    axes = chosen.known_axes
    if len(logits):
        choices[key] = _Choice(chosen.name, outputs.index(chosen), len(outputs), chosen.shape[1:], axes)
    return logits, ChosenOutput(chosen.moment.value, axes, cast(GradientEdge, chosen.edge))


class _Choice(NamedTuple):
    """Which output was chosen, of how many that were watched, its shape for one image, and its axes."""

    name: str
    place: int
    outputs: int
    shape: tuple[int, ...]
    axes: Axes


_CHOICES: WeakKeyDictionary[nn.Module, dict[Any, _Choice]] = WeakKeyDictionary()


def choose_alike(classifier: Classifier, original: Classifier) -> None:
    """Let a copy with other weights be looked at where the original was, without finding out once more.

    If it goes another way than the original did, it is found out all the same.
    """
    original_parts, copied_parts = identify_parts(original.module), identify_parts(classifier.module)
    _CHOICES[classifier.module] = {
        (*key, copied_parts): choice
        for (*key, parts), choice in _CHOICES.get(original.module, {}).items()
        if parts == original_parts
    }


def _run_to_known(
    classifier: Classifier, images: Images, layer: str | None, choice: _Choice, keep_graph: bool
) -> tuple[Logits, ChosenOutput | None]:
    """Run the classifier, and take the output that was chosen before; None if it goes another way now."""
    names: list[str] = []
    chosen: list[tuple[Tensor, GradientEdge]] = []

    def see(name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        names.append(name)
        if len(names) == choice.place + 1 and name == choice.name and output.requires_grad:
            # A copy: the next layer may work in place.
            kept = output if keep_graph else output.detach()
            chosen.append((kept.clone(), get_gradient_edge(output)))

    with watch_layers(find_layers(classifier.module, layer), see):
        logits = ruled_logits(classifier, images, None, whole_way=False)
    if len(names) != choice.outputs or not chosen or chosen[0][0].shape != (len(logits), *choice.shape):
        return logits, None
    ((value, edge),) = chosen
    return logits, ChosenOutput(value, choice.axes, edge)


@final
@dataclass(frozen=True, eq=False)
class LayerOutput:
    """What a layer gave in a forward pass, as it was then, whatever was written into it later.

    Parameters
    ----------
    name, part
        The layer's name, and the layer.
    moment
        What it gave.
    edge
        Its place in the graph, None if it has no gradient.
    """

    name: str
    part: nn.Module
    moment: Moment
    edge: GradientEdge | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what it gave."""
        return tuple(self.moment.tensor.shape)

    @cached_property
    def axes(self) -> Axes | str:
        """Which of its axes are channels and places, or what it is in place of that."""
        return read_axes(self.moment.seen.origin, self.shape)

    @property
    def spatial(self) -> bool:
        """Whether it has channels with more than one row and column of places, tokens on a grid included."""
        return is_grid(self.axes, self.shape[1:])

    @property
    def known_axes(self) -> Axes:
        """Which of its axes are which, of one that has places."""
        return cast(Axes, self.axes)

    def __str__(self) -> str:
        return describe_output(self.axes, self.shape[1:])


def _choose(outputs: Sequence[LayerOutput], logits: Logits, layer: str | None, card: Card) -> LayerOutput:
    """Choose the last output that has places and that the logits depend on."""
    nodes = set(walk(logits))
    rows = [output for output in outputs if output.shape[:1] == logits.shape[:1]]
    used = [output for output in rows if output.edge is not None and output.edge.node in nodes]
    if layer is not None:
        return _choose_named(layer, rows, used, card)
    return _choose_last(rows, used, logits, card)


def _choose_last(
    outputs: Sequence[LayerOutput], used: Sequence[LayerOutput], logits: Logits, card: Card
) -> LayerOutput:
    """Choose the last output whose places are read, unless the model goes on with something else that has none."""
    spatial = [output for output in used if output.spatial]
    if not spatial:
        if any(output.spatial for output in outputs):
            raise ModelError(_CUT_OFF.format("any layer whose output has places"))
        raise MethodError(
            f"{card.title} needs a layer whose output is (n, channels, height, width), or tokens on a grid; every "
            "layer of this model has another."
        )
    later = next((output for output in reversed(used[used.index(spatial[-1]) + 1 :]) if _has_other_axes(output)), None)
    if later is not None:
        goes_on = "tokens" if len(later.shape) == 3 else "others"
        raise MethodError(
            f"{card.title} finds no late layer of this model whose output has channels and places: it goes on with "
            f"{goes_on} after {spatial[-1].name!r}, up to {later.name!r}, whose output is {later}. Name a layer with "
            f"{card.name}(layer=...)."
        )
    return find_last_read(spatial, logits) or spatial[-1]


_CUT_OFF = (
    "The model's logits do not depend on the output of {} by operations that have a gradient: it is beside the way to "
    "them, or something cuts it off, such as torch.no_grad(), detach() or NumPy."
)


def _choose_named(layer: str, outputs: Sequence[LayerOutput], used: Sequence[LayerOutput], card: Card) -> LayerOutput:
    """Choose the last run of a layer that gave places."""
    placed = [output for output in outputs if output.spatial]
    if not placed:
        gives = f"is {outputs[-1]}" if outputs else "is none with a row for each image"
        raise MethodError(
            f"{card.title} needs a layer whose output has channels and places; that of {layer!r} {gives}. Name another "
            f"with {card.name}(layer=...). All that there are: whyfooled layers."
        )
    if not any(output in placed for output in used):
        if placed[-1].moment.copy is not None:
            # A view that is written into has another place in the graph from then on.
            raise MethodError(
                f"{card.title} cannot take a gradient to {layer!r}: the model writes into its output, which is a view "
                f"of another tensor. Name another layer with {card.name}(layer=...)."
            )
        raise ModelError(_CUT_OFF.format(repr(layer)))
    return next(output for output in reversed(used) if output in placed)


def _has_other_axes(output: LayerOutput) -> bool:
    """Tell whether an output has several axes, and not those of channels and places; one token is none of several."""
    shape = output.shape
    return not output.spatial and len(shape) in (3, 4) and min(shape[1:] if len(shape) == 3 else shape[-2:]) > 1


def at_image_size(cams: Tensor, images: Images) -> Tensor:
    """Enlarge maps (…,h,w) bilinearly to the images' size."""
    size = images.shape[-2:]
    enlarged = F.interpolate(cams.flatten(0, -3).unsqueeze(1), size=size, mode="bilinear", align_corners=False)
    return enlarged.view(*cams.shape[:-2], *size)
