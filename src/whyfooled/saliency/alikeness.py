"""How alike two maps are, by the measures of Adebayo et al. 2018: what sanity checks of saliency methods compare by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from whyfooled.tensors.measures import cosine, rank_correlation, structural_similarity
from whyfooled.types import Maps, PerImage


def size_correlation(maps: Maps, others: Maps) -> PerImage:
    """Return (n,) the rank correlation of the sizes of the pixels' saliency: absolute values, summed over channels."""
    return rank_correlation(maps.abs(), others.abs())


ALIKENESS: Mapping[str, Callable[[Maps, Maps], PerImage]] = {
    "rank_correlation": rank_correlation,
    "size_correlation": size_correlation,
    "ssim": structural_similarity,
    "cosine": cosine,
}
"""Measures of how alike two maps are, by name; each is 1 for equal maps, and NaN where a map is empty."""

ALIKENESS_TITLES: Mapping[str, str] = {
    "rank_correlation": "rank correlation",
    "size_correlation": "rank correlation without sign",
    "ssim": "SSIM",
    "cosine": "cosine similarity",
}
