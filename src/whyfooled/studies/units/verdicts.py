"""The sentences that say of a layer and an attack whether sensitive units are the interpretable ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from whyfooled.studies.units.links import Link, measure_links
from whyfooled.studies.units.living_units import ATTACK, BEYOND, NOISE, LivingUnits
from whyfooled.studies.units.most_sensitive import DETECTORS, Top, compare_with_rest
from whyfooled.tensors.statistics import Interval

LEVEL = 0.05
"""Corrected p-values below it are said to show something. [ours]"""
REPEATED = 0.5
"""Where a ranking's repeatability is below it, too few images are said to be there: chance in the ranking then draws a
correlation to less than 0.7 (the root of 0.5) of what it would be. [ours]"""


@final
@dataclass(frozen=True)
class Rankings:
    """Everything about one layer under one attack, for each ranking of its units.

    Parameters
    ----------
    links
        How it correlates with what the units detect.
    tops
        The most sensitive units compared with the rest.
    agreement
        Spearman's correlation of the sensitivity to the attack with that to noise.
    """

    links: Mapping[str, Link]
    tops: Mapping[str, Sequence[Top]]
    agreement: Interval | None


def measure_rankings(units: LivingUnits, seed: int) -> Rankings:
    """Measure everything about one layer under one attack."""
    links, agreement = measure_links(units, seed)
    tops = {kind: compare_with_rest(units, score, seed) for kind, score in units.plain_scores().items()}
    return Rankings(links, tops, agreement)


def verdict(units: LivingUnits, rankings: Rankings) -> str:
    """Say of one layer and attack whether sensitive units are the interpretable ones, and how sure that is."""
    head = f"{units.layer}, {units.attack} ({units.images} images, {units.count} of {units.whole} units living): "
    if not rankings.tops[ATTACK]:
        return f"{head}too few units to hold some against others."
    link = rankings.links[ATTACK]
    repeats = f" The ranking repeats with {link.repeatable:.2f}." if link.repeatable >= REPEATED else ""
    text = f"{head}{_claim(link, rankings.tops[ATTACK])}{_detectors(units)}.{repeats}"
    if rankings.agreement is None:
        return text
    return (
        f"{text} The correlation of sensitivity to the attack with that to noise as large is "
        f"{rankings.agreement.format(2, sign=True)}. Noise's correlation with the IoU is "
        f"{rankings.links[NOISE].iou.format(2, sign=True)}; {_against_noise(link.over_noise)}. Ranked by sensitivity "
        f"to the attack over that to noise: {_claim(rankings.links[BEYOND], rankings.tops[BEYOND])}."
    )


def _claim(link: Link, tops: Sequence[Top]) -> str:
    """Say what both tests of one ranking show, each with its p-value; first, if so, that there are too few images."""
    clear = [top for top in tops if top.corrected < LEVEL]
    by_rank = link.p_value < LEVEL
    sides = {top.top > top.rest for top in clear} | ({link.iou.mean > 0} if by_rank else set())
    word = "more" if sides == {True} else "less"
    if not sides:
        said = "no link is seen: " if link.repeatable >= REPEATED else ""
    elif len(sides) > 1:
        said = "comparisons point to both sides: "
    elif clear and by_rank:
        said = f"sensitive units are {word} interpretable than others: "
    else:
        said = f"by one test of two only, sensitive units are {word} interpretable than others: "
    uncorrected = ", not corrected for layers and attacks" if by_rank else ""
    return (
        f"{_too_few(link.repeatable, bool(sides))}{said}{_over_sizes(clear, tops)}; by rank correlation with the best "
        f"IoU {link.iou.format(2, sign=True)}, {_p(link.p_value)}{uncorrected}"
    )


def _too_few(repeatable: float, seen: bool) -> str:
    """Say that a ranking is too much a matter of chance, if it is."""
    if repeatable >= REPEATED:
        return ""
    if math.isnan(repeatable):
        return "Too few images: how well the ranking repeats is not known; "
    so = "numbers are drawn towards 0" if seen else "a link could hardly be seen"
    return f"Too few images: the ranking repeats with {repeatable:.2f} only, so {so}; "


def _over_sizes(clear: Sequence[Top], tops: Sequence[Top]) -> str:
    """Say which of the comparisons over N have a corrected p-value below the level."""
    of = f"of {len(tops)} comparisons over N"
    if not clear:
        return f"{of} none passes Holm (smallest {_p(min(top.corrected for top in tops))})"
    sides = ([top for top in clear if (top.top > top.rest) == up] for up in (True, False))
    clearest = [_compared(min(side, key=lambda top: top.corrected)) for side in sides if side]
    if len(clearest) > 1:
        return f"{of} {len(clear)} pass Holm, and it depends on N: {'; '.join(clearest)}"
    passing = "1 passes Holm" if len(clear) == 1 else f"{len(clear)} pass Holm, most clearly"
    return f"{of} {passing}: {clearest[0]}"


def _compared(top: Top) -> str:
    if top.number == DETECTORS:
        numbers = f"of the {top.size} most sensitive ones {100 * top.top:.0f} % are detectors, of the rest "
        return f"{numbers}{100 * top.rest:.0f} % ({_p(top.corrected)})"
    numbers = f"the mean IoU of the {top.size} most sensitive ones is {top.top:.3f}, of the rest {top.rest:.3f}"
    return f"{numbers} ({_p(top.corrected)})"


def _detectors(units: LivingUnits) -> str:
    if bool(units.detector.all()):
        return "; all units are detectors"
    return "" if bool(units.detector.any()) else "; no unit is a detector"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _against_noise(value: Interval | None) -> str:
    if value is None or value.count < 2:
        return "of so few images nothing can be said about the difference"
    said = {"above": "the attack's is higher by", "below": "the attack's is lower by"}.get(value.side())
    return f"{said} {value.format(2, sign=True)}" if said else "no difference to the attack's is seen"
