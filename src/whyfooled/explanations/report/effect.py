"""What a report says of a perturbation's effect, region by region: its numbers, and a sentence or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from whyfooled.drawing.pictures import scale_of
from whyfooled.drawing.words import by_number, counted
from whyfooled.explanations.report.evidence import measure_similarities
from whyfooled.perturbation import KINDS, Sensitivity, interpretability_curve
from whyfooled.perturbation.effect import Effect
from whyfooled.saliency.evidence import Evidence
from whyfooled.types import Image

QUANTILES = (0.1, 0.2, 0.3, 0.5)
"""Shares of the pixels at which the interpretability score is listed; the sentence is about `DISCRIMINATIVE`."""
DISCRIMINATIVE = 0.3
CARRIED = 0.8
"""Share of the effect whose carriers are counted."""

ALONE = (2 / 3, 1.5)
"""Between which shares of the whole change the sum over the regions is taken for all of it. [ours]"""

MOSTLY = 0.5
"""Share of the effect that must lie in one ninth of the image to be called mostly there. [ours]"""
MOSTLY_HALF = 2 / 3
"""The same for half of the image. [ours]"""


KIND_WORDS = {
    "suppression": "mostly holds down",
    "promotion": "mostly lifts",
    "balanced": "does both",
    "inert": "neither",
}
"""What a report calls the papers' kinds of regions; it gives the papers' words once, where it explains these."""


def collect_effect_numbers(effect: Effect, delta: Image, logits: Tensor, true: int, wrong: int) -> dict[str, Any]:
    """Collect everything that a report says of an effect in figures.

    Parameters
    ----------
    effect
        What the perturbation does.
    delta
        (c,h,w) The perturbation.
    logits
        (2,m) The logits of the clean and of the adversarial image.
    true, wrong
        The two classes.
    """
    sensitivity = effect.sensitivity
    there, touched = sensitivity.sizes[0] > 0, sensitivity.touched[0]
    squares = delta.double().square().sum(0, keepdim=True)
    energy = torch.stack([squares[sensitivity.on_image(sensitivity.kind) == code].sum() for code in range(len(KINDS))])
    pixels = torch.bincount(sensitivity.on_image(sensitivity.kind).flatten(), minlength=len(KINDS)).double()
    holds = float(sensitivity.suppression_share)
    place, place_share = _find_place(sensitivity.on_image(_density(sensitivity, holds))[0])
    return {
        "regions": {
            "what": effect.regions,
            "count": int(there.sum()),
            "touched": int(touched.sum()),
            "carry_80_percent": int(sensitivity.carriers(CARRIED)),
        },
        "true_drop": float(sensitivity.true_drop.sum()),
        "target_gain": float(sensitivity.target_gain.sum()),
        "suppression_share": holds if holds == holds else None,
        "place": place,
        "place_share": place_share,
        "logit_change": {
            "true": float(logits[1, true] - logits[0, true]),
            "wrong": float(logits[1, wrong] - logits[0, wrong]),
        },
        "sum_over_regions": {
            "true": float(sensitivity.true_change.sum()),
            "wrong": float(sensitivity.target_change.sum()),
        },
        "kinds": {
            kind: {
                "regions": int(((sensitivity.kind[0] == code) & there).sum()),
                "effect": _share(sensitivity.effect_by_kind[0, code]),
                "perturbation": _share(energy[code] / energy.sum()),
                "pixels": _share(pixels[code] / pixels.sum()),
            }
            for code, kind in enumerate(KINDS)
        },
        "first_order_rank_correlation": _share(sensitivity.rank_correlation(effect.first_order)[0]),
        "cam": None if effect.cams is None else _collect_cam_numbers(effect.cams, delta),
    }


def _share(value: Tensor) -> float | None:
    number = float(value)
    return number if number == number else None


def _density(sensitivity: Sensitivity, holds: float) -> Tensor:
    """Return (1,r) what most of the effect is, the true class's drop or the target's gain, per pixel of a region."""
    return (sensitivity.true_drop if not holds < 0.5 else sensitivity.target_gain) / sensitivity.sizes.clamp_min(1)


def _collect_cam_numbers(cams: Evidence, delta: Image) -> dict[str, Any]:
    maps = {"true": cams.maps[0, 1:], "wrong": cams.maps[1, :1]}
    curves = {cls: interpretability_curve(delta.unsqueeze(0), cam, QUANTILES) for cls, cam in maps.items()}
    scale = scale_of(cams.maps)
    return {
        "method": cams.method,
        "title": cams.title,
        "summary": cams.summary,
        "contrastive": cams.contrastive,
        **measure_similarities(cams),
        "scale": {"end": scale.end, "signed": scale.signed},
        "interpretability": {
            cls: {
                "quantile": list(QUANTILES),
                "score": curve.score[0].tolist(),
                "chance": curve.chance[0].tolist(),
            }
            for cls, curve in curves.items()
        },
    }


_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


def _find_place(density: Tensor) -> tuple[str, float] | tuple[None, None]:
    """Say where most of a map (h,w) of values that are at least 0 lies, and how much; None where it is spread, or 0."""
    total = float(density.sum())
    if total <= 0:
        return None, None
    height, width = density.shape
    rows = torch.arange(height) * 3 // height
    columns = torch.arange(width) * 3 // width
    ninths = torch.zeros(9, dtype=torch.float64)
    ninths.scatter_add_(0, (rows.unsqueeze(1) * 3 + columns).flatten(), density.double().flatten())
    if float(ninths.max()) >= MOSTLY * total:
        row, column = divmod(int(ninths.argmax()), 3)
        name = "centre" if (row, column) == (1, 1) else f"{_ROWS[row]} {_COLUMNS[column]}"
        return name, float(ninths.max()) / total
    halves = {
        "upper half": density[: height // 2],
        "lower half": density[-(height // 2) :],
        "left half": density[:, : width // 2],
        "right half": density[:, -(width // 2) :],
    }
    name, share = max(((name, float(half.sum()) / total) for name, half in halves.items()), key=lambda pair: pair[1])
    return (name, share) if share >= MOSTLY_HALF else (None, None)


WHAT_EFFECT_IS = (
    "A region's effect: how the two classes' scores (logits) differ with the perturbation there and without it."
)


def write_effect_sentences(numbers: dict[str, Any], true: str, wrong: str) -> list[str]:
    """Say what an effect is, what most of it is and where, how few regions carry it, and how it lies to the maps."""
    return [*write_place_sentences(numbers, true, wrong), *write_overlap_with_maps(numbers["cam"], true, wrong)]


def write_place_sentences(numbers: dict[str, Any], true: str, wrong: str) -> list[str]:
    """Say what an effect is, what most of it is and where, and how few regions carry it."""
    regions, share = numbers["regions"], numbers["suppression_share"]
    if share is None:
        return [f"In no region alone does the perturbation hold {true} down or lift {wrong}."]
    what, how_much = (f"holds {true} down", share) if share >= 0.5 else (f"lifts {wrong}", 1 - share)
    where = "all over the image"
    if numbers["place"]:
        where = f"mostly in the {numbers['place']} of the image ({100 * numbers['place_share']:.0f} %)"
    few = regions["carry_80_percent"]
    part = "The effect lies " if _are_opposite(numbers) else f"{100 * how_much:.0f} % of the effect {what}, "
    sentence = (
        f"{part}{where}; {few} of {counted(regions['count'], 'region')} {by_number(few, 'carries', 'carry')} "
        f"{100 * CARRIED:.0f} % of it."
    )
    return [WHAT_EFFECT_IS, sentence, *_write_interaction(numbers)]


_OPPOSITE = 1e-4
"""How far from opposite changes of opposite logits may be, by rounding. [ours]"""


def _are_opposite(numbers: Mapping[str, Any]) -> bool:
    """Tell whether what holds the one class down lifts the other by as much: they are one logit with either sign."""
    changes = (numbers["logit_change"], numbers["sum_over_regions"])
    return all(abs(each["true"] + each["wrong"]) <= _OPPOSITE * abs(each["true"]) for each in changes)


def find_share_alone(numbers: Mapping[str, Any]) -> float | None:
    """Return how much of what happens between the two logits the regions account for one by one; None if nothing."""
    changes, parts = numbers["logit_change"], numbers["sum_over_regions"]
    whole = changes["wrong"] - changes["true"]
    return (parts["wrong"] - parts["true"]) / whole if whole > 0 else None


def regions_add_up(alone: float) -> bool:
    """Tell whether regions account one by one for nearly all that the perturbation does."""
    return ALONE[0] <= alone <= ALONE[1]


def _write_interaction(numbers: dict[str, Any]) -> list[str]:
    """Say how much of the logits' change the regions account for one by one, if that is far from all of it."""
    alone = find_share_alone(numbers)
    if alone is None or regions_add_up(alone):
        return []
    return [
        f"Removed from one region at a time, the perturbation accounts for {100 * alone:.0f} % of what it changes as a "
        "whole between the two logits; the difference is what the regions do together."
    ]


def write_overlap_with_maps(cam: dict[str, Any] | None, true: str, wrong: str) -> list[str]:
    """Say how much of the perturbation lies where the class activation maps are strongest."""
    if cam is None:
        return []
    shares = []
    for cls in ("true", "wrong"):
        curve = cam["interpretability"][cls]
        at = curve["quantile"].index(DISCRIMINATIVE)
        shares.append((100 * curve["score"][at], 100 * curve["chance"][at]))
    (on_true, chance), (on_wrong, other_chance) = shares
    chances = f"{chance:.0f} %" if round(chance) == round(other_chance) else f"{chance:.0f} and {other_chance:.0f} %"
    return [
        f"{on_true:.0f} % of the perturbation's squared length lies on the {100 * DISCRIMINATIVE:.0f} % of the pixels "
        f"where {cam['title']} sees most of {true} in the clean image, {on_wrong:.0f} % where it sees most of {wrong} "
        f"in the adversarial one (by chance {chances})."
    ]
