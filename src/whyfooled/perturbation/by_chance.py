"""Whether a perturbation's size alone fools a classifier: random ones of the same length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from whyfooled.classifier import Classifier
from whyfooled.classifier.workers import share_out
from whyfooled.errors import at_least
from whyfooled.tensors.randomness import add_noise
from whyfooled.types import Images

DRAWS = 19
"""How many random perturbations: if none fools, an attack's is one in twenty at the most by chance. [ours]"""


@final
@dataclass(frozen=True)
class FooledByChance:
    """What random perturbations of an attack's length do to the prediction.

    Parameters
    ----------
    draws
        How many random perturbations were added to the clean image, one at a time.
    fooled
        Under how many of them another class than the true one is predicted.
    """

    draws: int
    fooled: int


@torch.no_grad()
def count_fooled_by_chance(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    true: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    batch_size: int = 4,
) -> FooledByChance:
    """Count how many random perturbations, as long in ℓ2 as the attack's, change the prediction too.

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    clean, adversarial
        (1,c,h,w) The image before and after, values in [0, 1].
    true
        The true class.
    draws
        How many random perturbations, of independent normal values before they are clipped.
    seed
        Seed of the random perturbations; each image has its own, made from this and its content.
    batch_size
        How many images are classified at once.
    """
    at_least("draws", draws, 1)
    length = float((adversarial - clean).norm())
    noisy = torch.cat([add_noise(clean, length, seed + number) for number in range(draws)])
    predictions = torch.cat(list(share_out(classifier, classifier.predict, torch.split(noisy, batch_size))))
    return FooledByChance(draws, int((predictions != true).sum()))
