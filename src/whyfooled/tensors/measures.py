"""Measures of saliency maps: plain functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from whyfooled.errors import ParameterError, bad_parameter
from whyfooled.types import Maps, PerImage

PerRegion = Float[Tensor, "n r"]
"""One number for each region of each image."""

Regions = Bool[Tensor, "n r"]
"""Which regions of each image count."""


def binary_similarity(maps: Maps, others: Maps) -> PerImage:
    """Compare two maps by their signs alone: (n,) the share of elements that are positive in both or in neither.

    The filtering effect (Gu & Tresp 2019, fig. 1): maps are binarised, ``1[s > 0]``.
    """
    _check_same_shape(maps, others)
    return ((maps > 0) == (others > 0)).flatten(1).double().mean(1)


def chance_similarity(maps: Maps, others: Maps) -> PerImage:
    """Return (n,) the `binary_similarity` of independent maps with as many positive elements as these."""
    _check_same_shape(maps, others)
    p, q = ((one > 0).flatten(1).double().mean(1) for one in (maps, others))
    return p * q + (1 - p) * (1 - q)


def average_difference(maps: Maps, others: Maps) -> PerImage:
    """Compare two maps by their size alone: (n,) ``|A − B| / max(A, B)`` of the means of their positive parts.

    Avg-Diff (Gu & Tresp 2019, fig. 1), from 0 (as large as the other) to 1; NaN where both have no positive part.
    """
    _check_same_shape(maps, others)
    a, b = (one.clamp_min(0).flatten(1).double().mean(1) for one in (maps, others))
    return (a - b).abs() / torch.maximum(a, b)


def cosine(maps: Maps, others: Maps) -> PerImage:
    """Return (n,) the cosine between two maps, from −1 to 1; NaN where one of them is 0 everywhere."""
    _check_same_shape(maps, others)
    first, second = (F.normalize(one.flatten(1).double(), dim=1) for one in (maps, others))
    return torch.where(first.any(1) & second.any(1), (first * second).sum(1), torch.nan)


def rank_correlation(maps: Maps, others: Maps) -> PerImage:
    """Return (n,) Spearman's rank correlation of the pixels' saliency (summed over channels), from −1 to 1.

    Equal values share their mean rank. NaN where a map has one value only.
    """
    _check_same_shape(maps, others)
    first, second = (mean_ranks(one.double().sum(1).flatten(1)) for one in (maps, others))
    first, second = (ranks - ranks.mean(1, keepdim=True) for ranks in (first, second))
    correlation: Tensor = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    return correlation


def pearson_correlation(values: PerRegion, others: PerRegion, where: Regions | None = None) -> PerImage:
    """Return (n,) Pearson's correlation over the regions of each image, from −1 to 1.

    Parameters
    ----------
    values, others
        (n,r) Two numbers of each region.
    where
        (n,r) Which regions count; all if None.

    Returns
    -------
    Tensor
        (n,), in double precision; NaN where one of the numbers does not vary.
    """
    chosen = _chosen(values, others, where)
    x, y = values.double(), others.double()
    varied = [
        one.masked_fill(~chosen, -torch.inf).amax(1) > one.masked_fill(~chosen, torch.inf).amin(1) for one in (x, y)
    ]
    count = chosen.sum(1, keepdim=True)
    x, y = (one.masked_fill(~chosen, 0) for one in (x, y))
    x, y = ((one - one.sum(1, keepdim=True) / count).masked_fill(~chosen, 0) for one in (x, y))
    correlation = (F.normalize(x, dim=1, eps=0) * F.normalize(y, dim=1, eps=0)).sum(1).clamp(-1, 1)
    return torch.where(varied[0] & varied[1], correlation, torch.nan)


def kendall_correlation(values: PerRegion, others: PerRegion, where: Regions | None = None) -> PerImage:
    """Return (n,) Kendall's rank correlation over the regions of each image, from −1 to 1.

    It is tau-b (Kendall 1945), in which ties are no disagreement: pairs that both numbers put in the same order, minus
    those that they put in opposite orders, over the geometric mean of the pairs that each number tells apart. It takes
    r² comparisons, a bounded number of them at once.

    Parameters
    ----------
    values, others
        (n,r) Two numbers of each region.
    where
        (n,r) Which regions count; all if None.

    Returns
    -------
    Tensor
        (n,), in double precision; NaN where one of the numbers does not vary.
    """
    correlations = values.new_empty(len(values), dtype=torch.float64)
    for number, chosen in enumerate(_chosen(values, others, where)):
        correlations[number] = _tau_b(values[number, chosen], others[number, chosen])
    return correlations


_COMPARISONS = 4_000_000
"""How many pairs of regions are compared at once."""


def _tau_b(x: Tensor, y: Tensor) -> Tensor:
    agreement, apart_x, apart_y = x.new_zeros(3, dtype=torch.float64)
    for rows in torch.split(torch.arange(len(x), device=x.device), max(1, _COMPARISONS // max(1, len(x)))):
        first, second = (_order(one[rows].unsqueeze(1), one) for one in (x, y))
        agreement = agreement + (first * second).sum()
        apart_x, apart_y = apart_x + first.abs().sum(), apart_y + second.abs().sum()
    correlation: Tensor = agreement / (apart_x * apart_y).sqrt()
    return correlation


def _order(values: Tensor, others: Tensor) -> Tensor:
    """Tell which value is larger: 1, −1, or 0 for a tie."""
    return (values > others).to(torch.int8) - (values < others).to(torch.int8)


def _chosen(values: Tensor, others: Tensor, where: Tensor | None) -> Tensor:
    for name, other in (("others", others), ("where", where)):
        if other is not None and other.shape != values.shape:
            raise ParameterError(
                f"`{name}` must have the shape of `values`, {tuple(values.shape)}; got {tuple(other.shape)}."
            )
    return torch.ones_like(values, dtype=torch.bool) if where is None else where


def top_overlap(maps: Maps, others: Maps, share: float = 0.05) -> PerImage:
    """Return (n,) how much of the most salient pixels two maps have in common, from 0 to 1; chance is `share`.

    Parameters
    ----------
    maps, others
        (n,c,h,w), summed over channels.
    share
        Which share of the pixels counts as most salient; at least one pixel. [ours]
    """
    _check_same_shape(maps, others)
    if not 0 < share <= 1:
        raise bad_parameter("share", "must be above 0 and at most 1", share)
    first, second = (one.double().sum(1).flatten(1) for one in (maps, others))
    count = max(1, round(share * first.shape[1]))
    chosen = [torch.zeros_like(one).scatter_(1, one.topk(count, dim=1).indices, 1) for one in (first, second)]
    return (chosen[0] * chosen[1]).sum(1) / count


def structural_similarity(maps: Maps, others: Maps) -> PerImage:
    """Return (n,) the mean SSIM of two maps, summed over channels, each divided by its largest absolute value.

    Wang et al. 2004: Gaussian window of 11 pixels and σ = 1.5, K1 = .01, K2 = .03; values from −1 to 1, a range of 2.
    Where the window would leave the map nothing is counted. Maps under 11 pixels a side have none: NaN.
    """
    _check_same_shape(maps, others)
    x, y = (_scaled(one.double().sum(1, keepdim=True)) for one in (maps, others))
    if min(x.shape[-2:]) < _WINDOW:
        return x.new_full((len(x),), torch.nan)
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x, var_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).flatten(1).mean(1)


def centre_shift(maps: Maps, others: Maps) -> PerImage:
    """Return (n,) how far apart the centres of mass of two maps lie, in pixels; NaN where a map is 0 everywhere.

    Ghorbani, Abid, Zou 2019, arXiv 1710.10547, sec. 3.3. A pixel's mass is the absolute value of its saliency, summed
    over channels.
    """
    _check_same_shape(maps, others)
    first, second = (centre_of_mass(one.double().abs().sum(1)) for one in (maps, others))
    shift: Tensor = (first - second).norm(dim=1)
    return shift


def centre_of_mass(mass: Tensor) -> Tensor:
    """Return (n,2) the mean row and column of (n,h,w) masses, in pixels; NaN where all are 0. Differentiable."""
    rows, columns = (torch.arange(side, device=mass.device, dtype=mass.dtype) for side in mass.shape[-2:])
    total = mass.sum((1, 2))
    return torch.stack([mass.sum(2) @ rows / total, mass.sum(1) @ columns / total], dim=1)


_WINDOW = 11


def _windowed(images: Tensor) -> Tensor:
    distance = torch.arange(_WINDOW, device=images.device, dtype=images.dtype) - _WINDOW // 2
    weights = torch.softmax(-(distance**2) / (2 * 1.5**2), dim=0)
    return F.conv2d(F.conv2d(images, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))


def _scaled(maps: Tensor) -> Tensor:
    largest = maps.abs().amax((-2, -1), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)


def mean_ranks(values: Tensor) -> Tensor:
    """Rank (n,p) values within each row from 0, equal ones by the mean of their ranks."""
    ordered, order = values.sort(dim=1)
    place = torch.arange(values.shape[1], device=values.device).expand_as(order)
    differs = ordered[:, 1:] != ordered[:, :-1]
    # Of each run of equal values, the places of the first and of the last.
    first = torch.where(F.pad(differs, (1, 0), value=True), place, 0).cummax(1).values
    last = torch.where(F.pad(differs, (0, 1), value=True), place, values.shape[1]).flip(1).cummin(1).values.flip(1)
    return torch.empty_like(values, dtype=torch.float64).scatter_(1, order, (first + last).double() / 2)


def _check_same_shape(maps: Tensor, others: Tensor) -> None:
    if maps.shape != others.shape:
        raise ParameterError(f"`others` must have the shape of `maps`, {tuple(maps.shape)}; got {tuple(others.shape)}.")
