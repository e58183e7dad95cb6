"""The layers of a model: listing them, choosing some by name, and seeing what they give as the model runs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from whyfooled.classifier.axes import CHANNELS_FIRST, Axes, read_axes
from whyfooled.classifier.borrowing import hooked_after, one_thread
from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.placed import find_last_read
from whyfooled.classifier.tracing import PassTrace, Seen
from whyfooled.errors import MethodError, ModelError, ParameterError, bad_parameter, did_you_mean
from whyfooled.types import Images

LAST_STAGE = "last-stage"
"""Stands for the outermost of the modules that give the last output with places, such as ``layer4`` of a ResNet.

What the logits do not depend on, such as a decoder beside the head, does not count; nor do the patches after the last
attention, where a class token gives the logits: there it is the norm before, such as ``blocks.11.norm1`` of a ViT.
"""

See = Callable[[str, nn.Module, tuple[Any, ...], Tensor], None]
"""Called with a layer's name, the layer, its arguments and its output, each time that it ran."""


@final
@dataclass(frozen=True)
class Layer:
    """One layer of a model, and what it gives for one image.

    Parameters
    ----------
    name
        Its name in the model, such as ``"layer4.1.conv2"``.
    kind
        The name of its class.
    shape
        Shape of its output, without the batch; of the last one, if it runs several times in a pass.
    axes
        Which of its output's axes are channels and places; or, in words, what it gives in place of them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    axes: Axes | str = CHANNELS_FIRST

    @property
    def spatial(self) -> bool:
        """Whether its output has units with more than one place either way, tokens on a grid of places included."""
        return is_grid(self.axes, self.shape)

    @property
    def units(self) -> int:
        """How many units (channels) it has."""
        return self.shape[self.known_axes.channels - 1] if self.shape else 0

    @property
    def map_size(self) -> tuple[int, int]:
        """How many rows and columns one unit's activation map has."""
        return self.known_axes.size(self.shape) if self.spatial else (0, 0)

    @property
    def places(self) -> int:
        """How many places one unit's activation map has."""
        height, width = self.map_size
        return height * width

    @property
    def known_axes(self) -> Axes:
        """Which of its output's axes are which; as if channels came first where there are no places."""
        return self.axes if isinstance(self.axes, Axes) else CHANNELS_FIRST

    @property
    def output(self) -> str:
        """What it gives for n images, in words."""
        return describe_output(self.axes, self.shape)

    def to_maps(self, output: Tensor) -> Tensor:
        """Turn its output, or a gradient of that shape, into (n, units, height, width)."""
        return self.known_axes.to_grid(output)


def is_grid(axes: Axes | str, shape: tuple[int, ...]) -> bool:
    """Tell whether an output of this shape, for one image, has channels with more than one row and column of places."""
    if not isinstance(axes, Axes):
        return False
    return len(shape) == (2 if axes.tokens else 3) and min(axes.size(shape)) > 1


def describe_output(axes: Axes | str, shape: tuple[int, ...]) -> str:
    """Say what an output of this shape, for one image, is: ``(n, 197, 192): tokens at 14 × 14 places``."""
    sizes = f"({', '.join(map(str, ('n', *shape)))})"
    if isinstance(axes, str):
        return f"{sizes}: {axes}"
    return f"{sizes}: tokens at {' × '.join(map(str, axes.size(shape)))} places" if axes.tokens else sizes


@one_thread()
def list_layers(classifier: Classifier) -> list[Layer]:
    """List the layers that give a tensor with a row for each image, in the order in which they finish.

    It takes one forward pass.
    """
    return list(list_used_layers(classifier))


def list_used_layers(classifier: Classifier) -> dict[Layer, bool]:
    """List the layers as `list_layers` does, and say of each whether the logits depend on what it gave."""
    blank = classifier.mean.new_zeros(1, classifier.channels, *classifier.size)
    trace = PassTrace(blank)
    seen: dict[str, tuple[str, tuple[int, ...], Seen]] = {}

    def see(name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        seen.pop(name, None)
        if output.ndim and len(output) == 1:
            seen[name] = type(part).__name__, tuple(output.shape[1:]), trace.look(output)

    with watch_layers(find_layers(classifier.module, None), see), trace:
        logits = classifier.logits(blank)
    used = trace.find_ancestors(logits)
    return {
        # One row of numbers for each image has no places to look for.
        Layer(name, kind, shape, CHANNELS_FIRST if len(shape) < 2 else read_axes(known.origin, (1, *shape))): (
            known.step in used
        )
        for name, (kind, shape, known) in seen.items()
    }


def choose_layers(classifier: Classifier, wanted: str | Sequence[str], argument: str = "layers") -> tuple[Layer, ...]:
    """Choose layers that have units with places.

    Parameters
    ----------
    classifier
        The classifier.
    wanted
        Names; patterns such as ``"blocks.*"``, where ``*`` stays between two dots; `LAST_STAGE`.
    argument
        What they are called in an error message.

    Returns
    -------
    tuple of Layer
        In the order in which they finish, each once.

    Raises
    ------
    ParameterError
        If there is no such layer, or it has no units with places.
    ModelError
        If no layer has.
    """
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise ParameterError(f"`{argument}` must have at least one entry.")
    known = list_used_layers(classifier)
    if not any(layer.spatial for layer in known):
        raise ModelError(
            "No layer of this model gives an output (n, units, height, width), or tokens on a grid, with more than one "
            "place, so it has no units to look at."
        )
    chosen = {
        layer.name
        for name in names
        for layer in ([_find_last(classifier, known)] if name == LAST_STAGE else _match_layers(name, known, argument))
    }
    return tuple(layer for layer in known if layer.name in chosen)


@final
@dataclass(frozen=True, eq=False)
class _Output:
    """What a layer gave in a pass with a graph."""

    layer: Layer
    part: nn.Module
    shape: tuple[int, ...]
    edge: GradientEdge | None

    @property
    def known_axes(self) -> Axes:
        return self.layer.known_axes


def _find_last(classifier: Classifier, known: Mapping[Layer, bool]) -> Layer:
    """Find the last layer whose places the logits depend on; where that cannot be told, they may depend on all."""
    spatial = [layer for layer in known if layer.spatial]
    # What a module is the last part of finishes after it, so the last is the outermost.
    used = [layer for layer in spatial if known[layer]]
    if not used or not used[-1].known_axes.tokens:
        return (used or spatial)[-1]
    outputs: dict[str, _Output] = {}
    layers = {layer.name: layer for layer in used}

    def see(name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        outputs.pop(name, None)
        edge = get_gradient_edge(output) if output.requires_grad else None
        outputs[name] = _Output(layers[name], part, tuple(output.shape), edge)

    parts = find_layers(classifier.module, None)
    with torch.inference_mode(mode=False), torch.enable_grad():
        blank = classifier.mean.new_zeros(1, classifier.channels, *classifier.size).requires_grad_()
        with watch_layers({name: parts[name] for name in layers}, see):
            logits = classifier(blank)
        last = find_last_read(list(outputs.values()), logits)
    return used[-1] if last is None else last.layer


def _match_layers(name: str, known: Mapping[Layer, bool], argument: str) -> list[Layer]:
    spatial = [layer for layer in known if layer.spatial]
    exact = [layer for layer in known if layer.name == name]
    if exact and not exact[0].spatial:
        raise bad_parameter(
            argument,
            "must name layers whose output is (n, units, height, width), in any order, or tokens on a grid, with more "
            "than one place",
            f"{name!r}, whose output is {exact[0].output}",
            f"The last one that has it is {spatial[-1].name!r}.",
        )
    matches = exact or [layer for layer in spatial if _fits(layer.name, name)]
    if not matches:
        near = did_you_mean(name, [LAST_STAGE, *(layer.name for layer in spatial)])
        fix = near or "All that there are: whyfooled layers."
        raise bad_parameter(argument, "must name a layer of the model, or match some", repr(name), fix)
    return matches


def _fits(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def find_layers(module: nn.Module, layer: str | None) -> dict[str, nn.Module]:
    """Return the layer of that name, or all, by name; raise `ParameterError` if there is none of that name."""
    layers = {name: part for name, part in module.named_modules() if name}
    if layer is None:
        return layers
    if layer not in layers:
        raise bad_parameter("layer", "must be a layer of the model", repr(layer), did_you_mean(layer, layers))
    return {layer: layers[layer]}


@contextmanager
def watch_layers(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Tell of each of these layers, in the order in which they finish, when it gave a tensor; no hook stays behind.

    What other threads send through the same layers in the meantime is not seen.

    Raises
    ------
    MethodError
        If all of them are scripted or traced.
    """

    def hook_of(name: str) -> Any:
        def hook(part: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                see(name, part, given, output)

        return hook

    # PyTorch calls no hooks in what is scripted, or does not take any.
    seen = {name: part for name, part in layers.items() if not isinstance(part, torch.jit.ScriptModule)}
    if layers and not seen:
        raise MethodError(
            "This needs to see what the model's layers give, and they are scripted or traced, where nobody can look. "
            "Give the plain Python module."
        )
    with hooked_after((part, hook_of(name)) for name, part in seen.items()):
        yield


@torch.no_grad()
def activations(classifier: Classifier, layers: Sequence[Layer], images: Images) -> dict[str, Tensor]:
    """Return what each layer gives for a batch, by name: (n, units, height, width); it takes one forward pass.

    Of a layer that runs several times in a pass, the last.

    Raises
    ------
    ParameterError
        If the model has no such layer.
    ModelError
        If a layer does not run, gives something else, or an activation is NaN or infinite.
    """
    outputs: dict[str, Tensor] = {}

    def see(name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        # A copy: the next layer may work in place.
        outputs[name] = output.clone(memory_format=torch.contiguous_format)

    parts = {name: part for layer in layers for name, part in find_layers(classifier.module, layer.name).items()}
    with watch_layers(parts, see):
        classifier.logits(images)
    return {layer.name: _check_maps(layer, outputs.get(layer.name), images) for layer in layers}


def _check_maps(layer: Layer, output: Tensor | None, images: Images) -> Tensor:
    """Return a layer's activation maps, or raise `ModelError` if its output is none of them."""
    if output is None or output.ndim != 1 + len(layer.shape) or len(output) != len(images):
        got = "nothing" if output is None else f"the shape {tuple(output.shape)}"
        wanted = "(n, tokens, units)" if layer.known_axes.tokens else "(n, units, height, width)"
        raise ModelError(f"The layer {layer.name!r} must give {wanted} for n={len(images)} images; got {got}.")
    if not torch.isfinite(output).all():
        raise ModelError(
            f"The layer {layer.name!r} must give finite activations; got NaN or infinite ones. Check the weights."
        )
    return layer.to_maps(output).contiguous()
