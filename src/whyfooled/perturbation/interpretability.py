"""The interpretability score: how much of a perturbation lies where a class activation map is high (Xu et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from whyfooled.errors import ParameterError, bad_parameter
from whyfooled.types import Images, ManyNumbers, Maps

QUANTILE = 0.3
"""Which share of a map's pixels is its discriminative region unless told otherwise. [ours]"""

QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""The shares of a curve over them unless told otherwise. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class IS:
    """The interpretability score: how much of a perturbation lies in the discriminative region; of one size, or of q.

    Parameters
    ----------
    score
        (n,), or (n,q), from 0 to 1: the share of the perturbation's energy ``‖δ‖²`` that is in the region; NaN for a
        perturbation that is 0 everywhere.
    chance
        Of the same shape: the share of the pixels that are in the region, which is what perturbations of every
        direction score in the mean.
    quantiles
        The share of the pixels that the region was to have, or the q shares.
    """

    score: ManyNumbers
    chance: ManyNumbers
    quantiles: tuple[float, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each image and size of the region."""
        n, q = len(self.score), len(self.quantiles)
        return pd.DataFrame(
            {
                "image": torch.arange(n).repeat_interleave(q).numpy(),
                "quantile": list(self.quantiles) * n,
                "score": self.score.flatten().cpu().numpy(),
                "chance": self.chance.flatten().cpu().numpy(),
            }
        )


def interpretability_score(delta: Images, cam: Maps, quantile: float = QUANTILE) -> IS:
    """Measure how much of a perturbation lies where a map is high: ``IS = ‖B∘δ‖² / ‖δ‖²`` (Xu et al. 2019, fig. 5).

    ``B`` is the map's `discriminative_region`. A score says little by itself: compare it with its chance level.

    Parameters
    ----------
    delta
        (n,c,h,w) The perturbations, of any size; the score does not change with it.
    cam
        (n,1,h,w) A class activation map for each; (n,d,h,w) maps are summed over their channels.
    quantile
        Which share of the pixels is in the region, above 0 and at most 1. [ours]: the paper's threshold is not public.

    Returns
    -------
    IS
        With scores (n,).

    Raises
    ------
    ParameterError
        If there is not a map of its size for each perturbation, a map has NaN, or the quantile is out of range.
    """
    curve = interpretability_curve(delta, cam, (quantile,))
    return IS(curve.score[:, 0], curve.chance[:, 0], curve.quantiles)


def interpretability_curve(delta: Images, cam: Maps, quantiles: Sequence[float] = QUANTILES) -> IS:
    """Measure the `interpretability_score` for several sizes of the region: a curve that never falls as it grows.

    Parameters
    ----------
    delta, cam
        As for `interpretability_score`.
    quantiles
        Shares of the pixels, each above 0 and at most 1.

    Returns
    -------
    IS
        With scores (n,q).

    Raises
    ------
    ParameterError
        If there is not a map of its size for each perturbation, a map has NaN, or a quantile is out of range.
    """
    if len(cam) != len(delta) or cam.shape[-2:] != delta.shape[-2:]:
        raise ParameterError(
            f"`cam` must have a map of {tuple(delta.shape[-2:])} pixels for each of {len(delta)} perturbations; "
            f"got the shape {tuple(cam.shape)}."
        )
    if not quantiles:
        raise ParameterError("`quantiles` must have at least one entry.")
    energy = delta.double().square().sum(1)
    regions = torch.stack([discriminative_region(cam, quantile) for quantile in quantiles], dim=1)
    inside = (energy.unsqueeze(1) * regions).sum((-2, -1))
    # 0 / 0 is NaN: where nothing was changed, no share of the change is anywhere.
    score = inside / energy.sum((-2, -1)).unsqueeze(1)
    return IS(score, regions.double().mean((-2, -1)), tuple(quantiles))


def discriminative_region(cam: Maps, quantile: float = QUANTILE) -> Bool[Tensor, "n h w"]:
    """Find (n,h,w) where each map is high: the pixels whose value is among the top share of them.

    With ``k = quantile · h · w``, rounded and at least 1, and ν the k-th largest value, that is ``F ≥ ν``. Where many
    pixels have the value ν itself (a Grad-CAM is 0 at most places), the region would have more than k pixels: then
    these are left out, ``F > ν``, and the region may have fewer. If nothing is larger than ν, it keeps them; of a
    constant map it is everything.

    Parameters
    ----------
    cam
        (n,1,h,w) Maps, signed or not; (n,d,h,w) maps are summed over their channels.
    quantile
        The share of the pixels, above 0 and at most 1. [ours]

    Raises
    ------
    ParameterError
        If the quantile is out of range, or a map has NaN.
    """
    if not 0 < quantile <= 1:
        raise bad_parameter("quantile", "must be a share of the pixels, above 0 and at most 1", quantile)
    saliency = cam.double().sum(1)
    if saliency.isnan().any():
        raise ParameterError("`cam` must not have NaN: a map that is not a number points at no place.")
    flat = saliency.flatten(1)
    count = max(1, round(quantile * flat.shape[1]))
    threshold = flat.kthvalue(flat.shape[1] - count + 1, dim=1).values.view(-1, 1, 1)
    region, above = saliency >= threshold, saliency > threshold
    is_tied = (region.sum((1, 2)) > count) & above.any(2).any(1)
    return torch.where(is_tied.view(-1, 1, 1), above, region)
