"""Finding a network's last steps: whether its logits are a linear layer of the mean of a spatial tensor, and of which.

What happens in a forward pass decides, not what layers are called: the values that the linear layer takes must be the
mean, over the places, of a spatial tensor that was seen. Whatever lies between (dropout in evaluation mode, a change of
shape) is then the identity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import find_layers, is_spatial, watch_layers
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.saliency.backward.calls import tensors_in
from whyfooled.saliency.backward.gradients import ruled_logits
from whyfooled.types import Images, Logits

_ROUNDING = 1000
"""How many units in the last place two sums of the same numbers may be apart."""


class PooledLinear(NamedTuple):
    """Logits (n,m) that are ``features.mean((2, 3)) @ weight.T`` plus a bias, for features (n,d,h,w), weight (m,d)."""

    logits: Logits
    features: Tensor
    weight: Tensor


@torch.no_grad()
def find_pooled_linear(classifier: Classifier, images: Images, layer: str | None, card: Card) -> PooledLinear:
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

    Raises
    ------
    ParameterError
        If the model has no layer of that name.
    MethodError
        If the logits are computed in another way.
    """
    find_layers(classifier.module, layer)
    seen, leaving = _Seen(layer), _LeavingCalls()
    with watch_layers(find_layers(classifier.module, None), seen.see), leaving:
        logits = ruled_logits(classifier, images.detach(), None)
    head = next((head for head in reversed(seen.heads) if _gives(head, logits)), None)
    if head is None:
        raise MethodError(
            f"{card.title} needs logits that a linear layer computes from the mean of a spatial layer's channels; the "
            f"logits of this model are not the output of a linear layer. {_ADVICE}"
        )
    candidates = ([] if seen.spatial is None else [seen.spatial]) + ([] if layer else leaving.inputs)
    features = next((one for one in reversed(candidates) if _is_mean(head.values, one)), None)
    if features is None:
        raise MethodError(
            f"{card.title} does not work on this model: {_say_why_not(head, candidates, layer)}. {_ADVICE}"
        )
    return PooledLinear(logits, features, head.layer.weight.flatten(1))


_ADVICE = "Use gradcam, which needs no such layers."


class _Head(NamedTuple):
    """A call of a linear layer that has one output for each image and class."""

    name: str
    layer: Any
    inputs: Tensor

    @property
    def values(self) -> Tensor:
        """(n,d) What the layer took."""
        return self.inputs.flatten(1)


class _Seen:
    """What layers show in a forward pass: calls of linear layers, and the last spatial output of one layer, or any."""

    def __init__(self, layer: str | None) -> None:
        self.layer = layer
        self.heads: list[_Head] = []
        self.spatial: Tensor | None = None

    def see(self, name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        """Note a layer that ran."""
        if given and isinstance(given[0], Tensor) and _is_linear(part) and not is_spatial(output):
            self.heads.append(_Head(name, part, given[0]))
        if is_spatial(output) and self.layer in (None, name):
            self.spatial = output


class _LeavingCalls(TorchFunctionMode):
    """While active, keeps the spatial tensors that go into calls from which no spatial tensor comes.

    A pooling is among them, however it is spelled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if isinstance(outputs, Tensor) and not is_spatial(outputs):
            self.inputs += filter(is_spatial, tensors_in((args, kwargs or {})))
        return outputs


def _is_linear(part: nn.Module) -> bool:
    if isinstance(part, nn.Conv2d):
        return part.kernel_size == (1, 1) and part.groups == 1 and part.padding in ((0, 0), "valid", "same")
    return isinstance(part, nn.Linear)


def _gives(head: _Head, logits: Tensor) -> bool:
    """Tell whether the logits are the layer's weights times what it took, plus its bias."""
    weight = head.layer.weight
    if head.values.shape != (len(logits), weight.shape[1]) or len(weight) != logits.shape[1]:
        return False
    with torch.autocast(logits.device.type, enabled=False):
        compute = F.conv2d if isinstance(head.layer, nn.Conv2d) else F.linear
        again = compute(head.inputs, weight, head.layer.bias).flatten(1)
    return _close(again, logits, logits.abs().amax(1, keepdim=True))


def _is_mean(values: Tensor, features: Tensor) -> bool:
    if values.shape != features.shape[:2]:
        return False
    return _close(features.mean((-2, -1)), values, features.abs().mean((-2, -1)))


def _close(first: Tensor, second: Tensor, scale: Tensor) -> bool:
    return bool(((first - second).abs() <= _ROUNDING * torch.finfo(second.dtype).eps * scale).all())


def _say_why_not(head: _Head, candidates: list[Tensor], layer: str | None) -> str:
    takes = f"the logits come from {head.name!r}, which takes {head.values.shape[1]} numbers that are not the mean of"
    if layer is not None:
        if not candidates:
            return f"the output of {layer!r} is not (n, channels, height, width)"
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
