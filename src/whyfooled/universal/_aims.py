"""What an attack on one image's interpretation is to reach: measures of the clean map and the map now."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from whyfooled.saliency.interpretations import Interpretations, interpretation
from whyfooled.tensors.measures import centre_of_mass
from whyfooled.universal.dissimilarity import distance
from whyfooled.universal.maps import Measure

Objective = Literal["dissimilarity", "top-k", "mass-centre", "target", "region"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
AIMED: tuple[str, ...] = ("target", "region")
"""The objectives that need to be told where to go."""


def make_measure(objective: Objective, clean: Interpretations, share: float, targets: Tensor | None) -> Measure:
    """Make the measure that an objective makes large.

    Parameters
    ----------
    clean
        (n,h,w) The clean images' interpretations on the true network, whose largest values `"top-k"` means.
    share
        Which share of the pixels these are.
    targets
        (n,h,w) for `"target"` and `"region"`; None for the others.
    """
    if objective == "dissimilarity":
        return distance
    if objective == "mass-centre":
        return lambda before, now: (centre_of_mass(now) - centre_of_mass(before)).norm(dim=1)
    if objective == "top-k" or targets is None:
        largest = most_salient(clean, share)
        return lambda before, now: -(now * largest).sum((1, 2))
    wanted = targets.to(clean)
    if objective == "region":
        return lambda before, now: (now * wanted).sum((1, 2))
    wanted = interpretation(wanted.unsqueeze(1))
    return lambda before, now: -distance(wanted, now)


def most_salient(maps: Interpretations, share: float) -> Tensor:
    """Return (n,h,w) 1 at the largest values of each map, the share of all (at least one), and 0 elsewhere."""
    flat = maps.flatten(1)
    places = flat.topk(max(1, round(share * flat.shape[1])), dim=1).indices
    return torch.zeros_like(flat).scatter_(1, places, 1).view_as(maps)
