"""Dissections whose units overlap with their concept as they are told to."""

from __future__ import annotations

import torch
from torch import Tensor

from whyfooled import Classifier
from whyfooled.classifier.layers import choose_layers
from whyfooled.classifier.passes import Passes
from whyfooled.units.dissection.dissection import Dissection
from whyfooled.units.dissection.results import CUTOFF, DissectedLayer

PIXELS = 100_000


def dissection_of(classifier: Classifier, *, dead: tuple[int, ...] = (), **iou: Tensor) -> Dissection:
    """Make one of a classifier's layers from (u,) the best IoU of each unit; by chance it is a tenth of that."""
    layers = choose_layers(classifier, list(iou))
    return Dissection(
        layers=tuple(_layer(layer, iou[layer.name], dead) for layer in layers),
        concepts=("sky",),
        category_of=(0,),
        categories=("object",),
        area=torch.tensor([PIXELS]),
        images=("a.png", "b.png"),
        cutoff=CUTOFF,
        model_digest=classifier.digest(),
        parameters={"model": classifier.name, "concepts": "masks:made"},
        notes=(),
        seconds={},
        passes=Passes(),
    )


def _layer(layer, iou, dead):
    none = torch.zeros(layer.units, 0)
    return DissectedLayer(
        layer=layer,
        positions=100,
        threshold=torch.zeros(layer.units),
        above=torch.ones(layer.units, dtype=torch.int64),
        dead=torch.tensor([unit in dead for unit in range(layer.units)]),
        mean=torch.zeros(layer.units),
        std=torch.ones(layer.units),
        both=(iou.double() * PIXELS).round().long().unsqueeze(1),
        union=torch.full((layer.units, 1), PIXELS),
        active_images=torch.full((layer.units,), 2),
        most=(iou.double() * PIXELS / 2).round().long().unsqueeze(1),
        null_iou=torch.stack([iou, iou]).double() / 10,
        top_images=none.long(),
        top_values=none,
        top_maps=none.view(layer.units, 0, 1, 1),
    )
