"""A model without the units that an attack moves most, beside the same model without as many random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from whyfooled.classifier import Classifier
from whyfooled.studies.parts.ranked_units import RankedUnits
from whyfooled.tensors.randomness import choose
from whyfooled.types import Classes, Images, PerImage
from whyfooled.units.masking import mark_units, without


@final
@dataclass(frozen=True, eq=False)
class MaskedModels:
    """One model under several masks of one size.

    Parameters
    ----------
    most
        Without the most sensitive units.
    random
        Without random ones, one model for each draw.
    ranked_on
        The digests of the images that the units were ranked on, of which nothing should be told.
    """

    most: Classifier
    random: Sequence[Classifier]
    ranked_on: frozenset[str]

    @classmethod
    def of(
        cls, model: Classifier, ranked: RankedUnits, attack: str, share: float, draws: int, seed: int
    ) -> MaskedModels:
        """Mask a share of every layer's units: those most sensitive to an attack, and random ones.

        Parameters
        ----------
        model
            The model that the units were ranked on.
        ranked
            Its layers and their units.
        attack
            The attack's name.
        share
            The share of each layer's units; rounded, but at least one unit, and all but one at most.
        draws
            How many times random units are drawn.
        seed
            Seed of the draws.
        """
        sizes = {layer: min(layer.units - 1, max(1, round(share * layer.units))) for layer in ranked.layers}
        most = {
            layer: mark_units(layer.units, ranked.order(attack, layer.name)[:size]) for layer, size in sizes.items()
        }
        drawn = [
            {
                layer: mark_units(layer.units, torch.tensor(choose(layer.units, size, seed + draw)))
                for layer, size in sizes.items()
            }
            for draw in range(draws)
        ]
        return cls(without(model, most), [without(model, masks) for masks in drawn], ranked.digests)

    @property
    def models(self) -> list[Classifier]:
        """All of them."""
        return [self.most, *self.random]

    def tell(self, images: Images, true: Classes) -> tuple[PerImage, PerImage]:
        """Say (n,) whether each image is given its true class without the most sensitive units; without random ones.

        Both from 0 to 1; the second is a share of the draws.
        """
        random = torch.stack([(model.predict(images) == true).double() for model in self.random])
        return (self.most.predict(images) == true).double(), random.mean(0)
