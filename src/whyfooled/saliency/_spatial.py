"""What class activation maps share: the layers of a model as they run, and maps brought to the size of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from whyfooled.errors import MethodError, bad_parameter, did_you_mean
from whyfooled.registry import Card
from whyfooled.types import Images

See = Callable[[str, nn.Module, tuple[Any, ...], Tensor], None]
"""Called with a layer's name, the layer, its arguments and its output, each time that it ran."""


def layers_of(module: nn.Module, layer: str | None) -> dict[str, nn.Module]:
    """Return the layer of that name, or all, by name; raise `ParameterError` if there is none of that name."""
    layers = {name: part for name, part in module.named_modules() if name}
    if layer is None:
        return layers
    if layer not in layers:
        raise bad_parameter("layer", "must be a layer of the model", repr(layer), did_you_mean(layer, layers))
    return {layer: layers[layer]}


@contextmanager
def watched(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Tell of each of these layers, in the order in which they finish, when it gave a tensor; no hook stays behind."""

    def hook_of(name: str) -> Any:
        def hook(part: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                see(name, part, given, output)

        return hook

    with ExitStack() as stack:
        for name, part in layers.items():
            stack.callback(part.register_forward_hook(hook_of(name)).remove)
        yield


def is_spatial(tensor: Tensor) -> bool:
    """Tell whether a tensor is (n, channels, height, width) with more than one place either way."""
    return tensor.ndim == 4 and min(tensor.shape[-2:]) > 1


def choose_spatial(outputs: list[tuple[str, Tensor]], layer: str | None, card: Card) -> Tensor:
    """Choose the last spatial output that has a gradient, or raise `MethodError` in the name of the method."""
    spatial = [(place, one) for place, (_, one) in enumerate(outputs) if is_spatial(one) and one.requires_grad]
    if not spatial:
        where = f"the layer {layer!r}" if layer else "every layer"
        raise MethodError(
            f"{card.title} needs a layer whose output is (n, channels, height, width); {where} of this model has "
            "another."
        )
    place, chosen = spatial[-1]
    if layer is None and any(output.ndim == 3 for _, output in outputs[place + 1 :]):
        raise MethodError(
            f"{card.title} finds no late layer of this model whose output is (n, channels, height, width): it goes on "
            f"with tokens after {outputs[place][0]!r}. Name a layer with {card.name}(layer=...)."
        )
    return chosen


def at_image_size(cams: Tensor, images: Images) -> Tensor:
    """Enlarge maps (…,h,w) bilinearly to the images' size."""
    size = images.shape[-2:]
    enlarged = F.interpolate(cams.flatten(0, -3).unsqueeze(1), size=size, mode="bilinear", align_corners=False)
    return enlarged.view(*cams.shape[:-2], *size)
