"""What class activation maps share: the layer they are made of, and maps brought to the size of the images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier.layers import is_spatial
from whyfooled.errors import MethodError
from whyfooled.registry import Card
from whyfooled.types import Images


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
