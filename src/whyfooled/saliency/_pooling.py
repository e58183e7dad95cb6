"""Finding a network's last steps: whether its logits are a linear layer of the mean of a spatial tensor, and of which.

What happens in a forward pass decides, not what layers are called: the values that the linear layer takes must be the
mean, over the places, of a spatial tensor that was seen. Whatever lies between (dropout in evaluation mode, a change of
shape) is then the identity.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whyfooled.classifier import Classifier
from whyfooled.classifier.axes import Axes, read_axes
from whyfooled.classifier.heads import identify_parts
from whyfooled.classifier.layers import describe_output, find_layers, is_grid, watch_layers
from whyfooled.classifier.outputs import to_two_logits
from whyfooled.classifier.tracing import NOTHING, PassTrace, Seen
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.saliency.backward.calls import tensors_in
from whyfooled.saliency.backward.gradients import own_copy, ruled_logits
from whyfooled.types import Images, Logits

_ROUNDING = 1000
"""How many units in the last place two sums of the same numbers may be apart."""


class PooledLinear(NamedTuple):
    """Logits (n,m) that are ``features.mean((2, 3)) @ weight.T`` plus a bias, for features (n,d,h,w), weight (m,d)."""

    logits: Logits
    features: Tensor
    weight: Tensor


def find_pooled_linear(
    classifier: Classifier, images: Images, layer: str | None, card: Card, *, create_graph: bool = False
) -> PooledLinear:
    """Run one forward pass, and take its last steps apart.

    Parameters
    ----------
    classifier
        The classifier.
    images
        (n,c,h,w), values in [0, 1].
    layer
        The layer that gives the features; found if None.
    card
        Of the method that asks, for its errors.
    create_graph
        Whether the features can be differentiated with respect to the images.

    Raises
    ------
    ParameterError
        If the model has no layer of that name.
    MethodError
        If the logits are computed in another way.
    """
    find_layers(classifier.module, layer)
    given = own_copy(images, create_graph) if create_graph else images.detach()
    with torch.enable_grad() if create_graph else torch.no_grad():
        return _take_apart(classifier, given, layer, card)


def _take_apart(classifier: Classifier, images: Images, layer: str | None, card: Card) -> PooledLinear:
    choices = _CHOICES.setdefault(classifier.module, {})
    key = layer, images.shape[1:], identify_parts(classifier.module)
    if key in choices:
        logits, seen, candidates = _watch(classifier, images, layer, None)
        again = _take_known(choices[key], seen, candidates, logits)
        if again is not None:
            return again
    logits, seen, candidates = _watch(classifier, images, layer, PassTrace)
    head = next((head for head in reversed(seen.heads) if _gives(head, logits)), None)
    if head is None:
        raise MethodError(
            f"{card.title} needs logits that a linear layer computes from the mean of a spatial layer's channels; the "
            f"logits of this model are not the output of a linear layer. {_ADVICE}"
        )
    grids = {place: grid for place, each in enumerate(candidates) if (grid := each.to_grid()) is not None}
    place = next((place for place in reversed(grids) if _is_mean(head.values, grids[place])), None)
    if place is None:
        why = _say_why_not(head, list(grids.values()), seen.last, layer)
        raise MethodError(f"{card.title} does not work on this model: {why}. {_ADVICE}")
    if len(logits):
        choices[key] = _Choice(place, candidates[place].tensor.shape[1:], cast(Axes, candidates[place].axes))
    return PooledLinear(logits, grids[place], head.weight)


class _Choice(NamedTuple):
    """Which candidate is what the linear layer takes the mean of, its shape for one image, and its axes."""

    place: int
    shape: tuple[int, ...]
    axes: Axes


_CHOICES: WeakKeyDictionary[nn.Module, dict[Any, _Choice]] = WeakKeyDictionary()


def _watch(
    classifier: Classifier, images: Images, layer: str | None, tracing: type[PassTrace] | None
) -> tuple[Logits, _SeenLayers, list[_Candidate]]:
    """Run a forward pass; return the logits, what layers show, and what may be the features, the last ones last."""
    trace = None if tracing is None else tracing(images)
    seen, leaving = _SeenLayers(layer, classifier.label, trace), _LeavingCalls(trace)
    with watch_layers(find_layers(classifier.module, None), seen.see), leaving, trace or nullcontext():
        logits = ruled_logits(classifier, images, None)
    return logits, seen, ([] if seen.last is None else [seen.last]) + ([] if layer else leaving.inputs)


def _take_known(
    choice: _Choice, seen: _SeenLayers, candidates: list[_Candidate], logits: Logits
) -> PooledLinear | None:
    """Take the features that were found before; None if they are not what they were."""
    head = next((head for head in reversed(seen.heads) if _gives(head, logits)), None)
    tensor = candidates[choice.place].tensor if choice.place < len(candidates) else None
    if head is None or tensor is None or tensor.shape[1:] != choice.shape:
        return None
    features = choice.axes.to_grid(tensor)
    return PooledLinear(logits, features, head.weight) if _is_mean(head.values, features) else None


_ADVICE = "Use gradcam, which needs no such layers."


class _Head(NamedTuple):
    """A call of a linear layer that has one output for each image and class; `label` is the one that is asked about."""

    name: str
    layer: Any
    inputs: Tensor
    label: int | None

    @property
    def values(self) -> Tensor:
        """(n,d) What the layer took."""
        return self.inputs.flatten(1)

    @property
    def weight(self) -> Tensor:
        """(m,d) What each logit makes of it."""
        weight: Tensor = to_two_logits(self.layer.weight.flatten(1).T, self.label).T
        return weight


class _Candidate(NamedTuple):
    """A tensor that may have channels and places."""

    tensor: Tensor
    seen: Seen

    @classmethod
    def of(cls, tensor: Tensor, trace: PassTrace | None) -> _Candidate:
        """Note a tensor, and where its values come from if that is followed."""
        return cls(tensor, NOTHING if trace is None else trace.look(tensor))

    @property
    def axes(self) -> Axes | str:
        """Which of its axes are channels and places, or what it is in place of that."""
        return read_axes(self.seen.origin, tuple(self.tensor.shape))

    def to_grid(self) -> Tensor | None:
        """Return it as (n,d,h,w); None if it is something else."""
        axes = self.axes
        if isinstance(axes, Axes) and is_grid(axes, tuple(self.tensor.shape[1:])):
            return axes.to_grid(self.tensor)
        return None


class _SeenLayers:
    """What layers show in a forward pass: calls of linear layers, and the last output of one, or any, with places."""

    def __init__(self, layer: str | None, label: int | None, trace: PassTrace | None) -> None:
        self.layer, self.label, self.trace = layer, label, trace
        self.heads: list[_Head] = []
        self.last: _Candidate | None = None

    def see(self, name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        """Note a layer that ran."""
        if given and isinstance(given[0], Tensor) and _is_linear(part) and not _may_have_places(output):
            self.heads.append(_Head(name, part, given[0], self.label))
        if name == self.layer or (self.layer is None and _may_have_places(output)):
            self.last = _Candidate.of(output, self.trace)


class _LeavingCalls(TorchFunctionMode):
    """While active, keeps the spatial tensors that go into calls from which none of as many axes comes.

    A pooling is among them, however it is spelled, over rows and columns together or one after the other.
    """

    def __init__(self, trace: PassTrace | None) -> None:
        super().__init__()
        self.trace = trace
        self.inputs: list[_Candidate] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if isinstance(outputs, Tensor):
            has_places = _may_have_places(outputs)
            taken = filter(_may_have_places, tensors_in((args, kwargs or {})))
            leaving = [tensor for tensor in taken if not has_places or tensor.ndim > outputs.ndim]
            self.inputs += [_Candidate.of(tensor, self.trace) for tensor in leaving]
        return outputs


def _may_have_places(tensor: Tensor) -> bool:
    """Tell whether a tensor's shape allows for channels and more than one row and column of places, or for tokens."""
    return (tensor.ndim == 4 and min(tensor.shape[-2:]) > 1) or (tensor.ndim == 3 and min(tensor.shape[1:]) > 1)


def _is_linear(part: nn.Module) -> bool:
    if isinstance(part, nn.Conv2d):
        return part.kernel_size == (1, 1) and part.groups == 1 and part.padding in ((0, 0), "valid", "same")
    return isinstance(part, nn.Linear)


def _gives(head: _Head, logits: Tensor) -> bool:
    """Tell whether the logits are the layer's weights times what it took, plus its bias."""
    weight = head.layer.weight
    if head.values.shape != (len(logits), weight.shape[1]) or len(head.weight) != logits.shape[1]:
        return False
    with torch.autocast(logits.device.type, enabled=False):
        compute = F.conv2d if isinstance(head.layer, nn.Conv2d) else F.linear
        computed = compute(head.inputs.to(weight), weight, head.layer.bias).flatten(1)
        again = to_two_logits(computed, head.label)
    return _close(again, logits, logits.abs().amax(1, keepdim=True))


def _is_mean(values: Tensor, features: Tensor) -> bool:
    if values.shape != features.shape[:2]:
        return False
    return _close(features.mean((-2, -1)), values, features.abs().mean((-2, -1)))


def _close(first: Tensor, second: Tensor, scale: Tensor) -> bool:
    return bool(((first - second).abs() <= _ROUNDING * torch.finfo(second.dtype).eps * scale).all())


def _say_why_not(head: _Head, candidates: list[Tensor], last: _Candidate | None, layer: str | None) -> str:
    takes = f"the logits come from {head.name!r}, which takes {head.values.shape[1]} numbers that are not the mean of"
    if layer is not None:
        if not candidates:
            gives = f", but {describe_output(last.axes, tuple(last.tensor.shape[1:]))}" if last is not None else ""
            return f"the output of {layer!r} is not (n, channels, height, width){gives}"
        return f"{takes} the output of {layer!r}, {_size(candidates[-1])}"
    alike = [one for one in candidates if one.shape[:2] == head.values.shape]
    if not alike:
        return f"{takes} a spatial layer's channels (2 × 2 places at least)"
    return (
        f"{takes} a spatial layer's channels: after the last with so many, {_size(alike[-1])}, more follows than the "
        "mean over its places, such as a normalisation"
    )


def _size(features: Tensor) -> str:
    _, channels, height, width = features.shape
    return f"{channels} channels of {height} × {width} places"
