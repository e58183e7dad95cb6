"""Models whose units have known effects, dissections of them, and pairs of images."""

from dataclasses import replace

import torch
from torch import nn

from tests.helpers.made_dissections import CONCEPTS, made_dissection
from whyfooled import Classifier
from whyfooled.classifier.layers import list_layers
from whyfooled.units.dissection.dissection import Dissection


class Pooled(nn.Module):
    """Two convolutions with ReLUs, in place or not, global average pooling, a linear head."""

    def __init__(self, inplace: bool = True, classes: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1),
                nn.ReLU(inplace),
                nn.Conv2d(6, 5, 3, stride=2, padding=1),
                nn.ReLU(inplace),
            )
            self.head = nn.Linear(5, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


LAST = "body.3"
"""After it, the model is linear."""


def pooled(inplace: bool = True, names=None) -> Classifier:
    module = Pooled(inplace).eval()
    return Classifier(module, (0.5,) * 3, (0.25,) * 3, (16, 16), names, name="pooled")


def a_pair(seed: int = 4, size: float = 0.1):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(1, 3, 16, 16, generator=generator)
    return clean, (clean + size * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def dissection_of(classifier: Classifier, *layers: str, concepts=CONCEPTS, **columns) -> Dissection:
    """Make a dissection of a classifier's layers whose numbers are made up, but for those given by name."""
    known = {layer.name: layer for layer in list_layers(classifier)}
    made = made_dissection({name: known[name].units for name in layers}, concepts, source=False)
    own = tuple(replace(one, layer=known[one.layer.name], **columns) for one in made.layers)
    return replace(
        made,
        layers=own,
        model_digest=classifier.digest(),
        parameters={**made.parameters, "model": classifier.name},
        fit=classifier.fit,
    )


def detecting(*best: int, concepts: int = len(CONCEPTS)) -> dict[str, torch.Tensor]:
    """Give the counts of units that each detect one concept; none for −1."""
    both = torch.tensor([[50 * (index == one) for index in range(concepts)] for one in best])
    return {"both": both, "union": torch.full_like(both, 100)}
