"""How much an attack changes each unit's activation map, in units of what the map varies on clean images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_attempted, check_classifier, check_images
from whyfooled.classifier.layers import Layer, activations, choose_layers
from whyfooled.classifier.memory import batch_size_for
from whyfooled.classifier.workers import most_together
from whyfooled.errors import ImageError, at_least
from whyfooled.types import Images, Progress, silent

RESOLUTION = 1e-6
"""A standard deviation below this share of the root mean square is what single precision leaves of nothing. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class PairMoves:
    """What n pairs of images do to one layer's u units; all float64, on the CPU.

    Parameters
    ----------
    distance
        (n,u) Length of the difference of the unit's two activation maps, ``‖a_k(x') − a_k(x)‖₂``.
    mean, square
        (n,u) Mean over the places of the clean image's activations, and of their squares.
    """

    distance: Float[Tensor, "n u"]
    mean: Float[Tensor, "n u"]
    square: Float[Tensor, "n u"]

    @staticmethod
    def join(parts: Sequence[PairMoves]) -> PairMoves:
        """Put the pairs of several together."""
        columns = ([getattr(part, name) for part in parts] for name in ("distance", "mean", "square"))
        return PairMoves(*map(torch.cat, columns))

    def std(self) -> Float[Tensor, " u"]:
        """Return each unit's (population) standard deviation over all places of all clean images.

        It is 0 for a unit that gives the same everywhere, up to rounding.
        """
        square = self.square.mean(0)
        variance = square - self.mean.mean(0).square()
        return variance.where(variance > RESOLUTION**2 * square, 0.0).sqrt()

    def relative(self) -> Float[Tensor, "n u"]:
        """Return each pair's distance over the unit's standard deviation; 0 where neither varies.

        Where the clean images give the unit the same everywhere, and an adversarial one does not, it is infinite.
        """
        return (self.distance / self.std()).nan_to_num(nan=0.0, posinf=float("inf"))


def pair_moves(
    classifier: Classifier, layers: Sequence[Layer], clean: Images, adversarial: Images
) -> dict[str, PairMoves]:
    """Measure a batch of pairs, by the layers' names; it takes two forward passes a pair."""
    before, after = activations(classifier, layers, clean), activations(classifier, layers, adversarial)
    return {layer.name: _measure_moves(before[layer.name].double(), after[layer.name].double()) for layer in layers}


def _measure_moves(before: Tensor, after: Tensor) -> PairMoves:
    per_unit = ((after - before).flatten(2).norm(dim=2), before.mean((2, 3)), before.square().mean((2, 3)))
    return PairMoves(*(one.cpu() for one in per_unit))


@final
@dataclass(frozen=True, eq=False)
class UnitSensitivity:
    """How much an attack changes the units of some layers.

    Parameters
    ----------
    layers
        The layers.
    moves
        What every pair of images does to each of them, by name.
    """

    layers: tuple[Layer, ...]
    moves: Mapping[str, PairMoves]

    def __getitem__(self, layer: str) -> Float[Tensor, " u"]:
        """Return the sensitivity of a layer's units: the mean of `PairMoves.relative` over the pairs."""
        return self.moves[layer].relative().mean(0)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each unit: its sensitivity, and its standard deviation on the clean images."""
        parts = [
            pd.DataFrame(
                {
                    "layer": layer.name,
                    "unit": range(layer.units),
                    "sensitivity": self[layer.name].numpy(),
                    "distance": self.moves[layer.name].distance.mean(0).numpy(),
                    "std": self.moves[layer.name].std().numpy(),
                }
            )
            for layer in self.layers
        ]
        return pd.concat(parts, ignore_index=True)


@one_thread()
def unit_sensitivity(
    classifier: Classifier,
    layers: str | Sequence[str],
    clean: Images,
    adversarial: Images,
    *,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> UnitSensitivity:
    """Measure how much an attack changes each unit (after Xu et al. 2019; the exact form is ours).

    A unit's sensitivity is the mean over the pairs of ``‖a_k(x') − a_k(x)‖₂``, over the standard deviation of ``a_k``
    on the clean images. It takes two forward passes a pair.

    Parameters
    ----------
    classifier
        The classifier.
    layers
        Names, patterns or ``"last-stage"``, see `whyfooled.classifier.layers.choose_layers`.
    clean, adversarial
        (n,c,h,w) The pairs, values in [0, 1].
    batch_size
        Pairs worked on together; as many as fit into memory if None, on a CPU 8 at most.
        Large pairs go one at a time there, whatever is given.
    progress
        Called with the pairs done, the pairs in all, and what is being done.

    Returns
    -------
    UnitSensitivity

    Raises
    ------
    ParameterError
        If there is no such layer, or it has no units with places, or `batch_size` is not positive.
    ImageError
        If the images do not pair up, or there are none.
    """
    check_classifier(classifier, several_labels=True)
    check_images(clean)
    check_attempted(clean, adversarial)
    if not len(clean):
        raise ImageError("There is no pair of images to measure.")
    chosen = choose_layers(classifier, layers)
    size = batch_size_for(classifier) if batch_size is None else batch_size
    at_least("batch_size", size, 1)
    size = most_together(classifier, size)
    moves: list[dict[str, PairMoves]] = []
    for before, after in zip(torch.split(clean, size), torch.split(adversarial, size), strict=True):
        moves.append(pair_moves(classifier, chosen, before, after))
        progress(min(len(moves) * size, len(clean)), len(clean), "units")
    return UnitSensitivity(chosen, {layer.name: PairMoves.join([one[layer.name] for one in moves]) for layer in chosen})
