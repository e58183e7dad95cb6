"""The link between sensitive and interpretable units in rows of tables and in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from whyfooled.drawing.summary import Cell
from whyfooled.studies.units.links import ATTACK, BEYOND, NOISE, Link, LivingUnits, Top, links, tops
from whyfooled.tensors.statistics import Interval

LEVEL = 0.05
"""Corrected p-values below it are said to show something. [ours]"""
REPEATED = 0.5
"""Where a ranking's repeatability is below it, too few images are said to be there: chance in the ranking then draws a
correlation to less than 0.7 (the root of 0.5) of what it would be. [ours]"""
_CALLED = {ATTACK: "{}", NOISE: "noise as large as {}", BEYOND: "{}, over that to noise"}


@dataclass(frozen=True)
class Ranked:
    """Everything about one layer under one attack, for each ranking: its link, and the most sensitive units' numbers.

    Parameters
    ----------
    links
        For each ranking, how it goes with what the units detect.
    detectors, iou
        For each ranking, the share of detectors and the mean IoU among the most sensitive units.
    agreement
        Spearman's correlation of the sensitivity to the attack with that to noise.
    """

    links: Mapping[str, Link]
    detectors: Mapping[str, Sequence[Top]]
    iou: Mapping[str, Sequence[Top]]
    agreement: Interval | None


def ranked(units: LivingUnits, seed: int) -> Ranked:
    """Measure everything about one layer under one attack."""
    linked, agreement = links(units, seed)
    found = {kind: tops(units, score, seed) for kind, score in units.plain_scores().items()}
    return Ranked(
        linked,
        {kind: detectors for kind, (detectors, _) in found.items()},
        {kind: iou for kind, (_, iou) in found.items()},
        agreement,
    )


def unit_rows(layers: Sequence[LivingUnits]) -> list[tuple[Cell, ...]]:
    """Write what units each layer has: one line for attacks whose images leave the same units living."""
    attacks: dict[tuple[Cell, ...], list[str]] = {}
    for units in layers:
        means = [float(one) for one in (units.chance_detector.sum(), units.iou.mean(), units.chance_iou.mean())]
        # What is not known is left empty: NaN is not equal to itself.
        known = (None if math.isnan(mean) else mean for mean in means)
        line = (units.layer, units.whole, units.count, int(units.detector.sum()), *known)
        attacks.setdefault(line, []).append(units.attack)
    return [(line[0], ", ".join(names), *line[1:]) for line, names in attacks.items()]


def link_rows(units: LivingUnits, found: Ranked) -> Iterator[tuple[Cell, ...]]:
    """Write each ranking's link."""
    for kind, link in found.links.items():
        smallest = min((top.corrected for top in (*found.detectors[kind], *found.iou[kind])), default=math.nan)
        yield (
            *(units.layer, _CALLED[kind].format(units.attack), link.iou, link.p_value, smallest, link.over_noise),
            *(link.above_chance, link.given_std, link.auroc, link.std, link.evenness, link.repeatable),
        )


def size_rows(units: LivingUnits, found: Ranked) -> Iterator[tuple[Cell, ...]]:
    """Write, for each ranking, what is among the N most sensitive units and among the rest, for the N that pass."""
    for kind in found.links:
        for pair in zip(found.detectors[kind], found.iou[kind], strict=True):
            if min(top.corrected for top in pair) >= LEVEL:
                continue
            size = pair[0].size
            numbers = [
                cell for top in pair for cell in (top.top, top.rest, top.top - top.rest, top.p_value, top.corrected)
            ]
            share = f"{size} ({100 * size / units.count:.0f} %)"
            yield (units.layer, _CALLED[kind].format(units.attack), share, *numbers)


def verdict(units: LivingUnits, found: Ranked) -> str:
    """Say of one layer and attack whether sensitive units are the interpretable ones, and how sure that is."""
    head = f"{units.layer}, {units.attack} ({units.images} images, {units.count} of {units.whole} units living): "
    if not found.iou[ATTACK]:
        return f"{head}too few units to hold some against others."
    link = found.links[ATTACK]
    repeats = f" The ranking repeats with {link.repeatable:.2f}." if link.repeatable >= REPEATED else ""
    text = f"{head}{_claim(link, found.detectors[ATTACK], found.iou[ATTACK])}{_detectors(units)}.{repeats}"
    if found.agreement is None:
        return text
    return (
        f"{text} The correlation of sensitivity to the attack with that to noise as large is "
        f"{found.agreement.format(2, sign=True)}. Noise's correlation with the IoU is "
        f"{found.links[NOISE].iou.format(2, sign=True)}; {_against_noise(link.over_noise)}. Ranked by sensitivity to "
        f"the attack over that to noise: {_claim(found.links[BEYOND], found.detectors[BEYOND], found.iou[BEYOND])}."
    )


def _claim(link: Link, detectors: Sequence[Top], iou: Sequence[Top]) -> str:
    """Say what both tests of one ranking show, each with its p-value; first, if so, that there are too few images."""
    clear = [(top, name) for name, own in (("", detectors), (_IOU, iou)) for top in own if top.corrected < LEVEL]
    by_rank = link.p_value < LEVEL
    sides = {top.top > top.rest for top, _ in clear} | ({link.iou.mean > 0} if by_rank else set())
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
        f"{_too_few(link.repeatable, bool(sides))}{said}{_over_sizes(clear, [*detectors, *iou])}; by rank correlation "
        f"with the best IoU {link.iou.format(2, sign=True)}, {_p(link.p_value)}{uncorrected}"
    )


def _too_few(repeatable: float, seen: bool) -> str:
    """Say that a ranking is too much a matter of chance, if it is."""
    if repeatable >= REPEATED:
        return ""
    if math.isnan(repeatable):
        return "Too few images: how well the ranking repeats is not known; "
    so = "numbers are drawn towards 0" if seen else "a link could hardly be seen"
    return f"Too few images: the ranking repeats with {repeatable:.2f} only, so {so}; "


def _over_sizes(clear: Sequence[tuple[Top, str]], whole: Sequence[Top]) -> str:
    """Say which of the comparisons over N have a corrected p-value below the level."""
    of = f"of {len(whole)} comparisons over N"
    if not clear:
        return f"{of} none passes Holm (smallest {_p(min(top.corrected for top in whole))})"
    if len({top.top > top.rest for top, _ in clear}) > 1:
        return f"{of} {len(clear)} pass Holm, and it depends on N: {'; '.join(_compared(*one) for one in _ends(clear))}"
    passing = "1 passes Holm" if len(clear) == 1 else f"{len(clear)} pass Holm, most clearly"
    return f"{of} {passing}: {_compared(*min(clear, key=lambda one: one[0].corrected))}"


_IOU = "mean IoU"


def _ends(clear: Sequence[tuple[Top, str]]) -> list[tuple[Top, str]]:
    """Return the clearest comparison to either side."""
    sides = ([one for one in clear if (one[0].top > one[0].rest) == up] for up in (True, False))
    return [min(side, key=lambda one: one[0].corrected) for side in sides]


def _compared(top: Top, name: str) -> str:
    if name == _IOU:
        return (
            f"the mean IoU of the {top.size} most sensitive ones is {top.top:.3f}, of the rest {top.rest:.3f} "
            f"({_p(top.corrected)})"
        )
    return (
        f"of the {top.size} most sensitive ones {100 * top.top:.0f} % are detectors, of the rest "
        f"{100 * top.rest:.0f} % ({_p(top.corrected)})"
    )


def _detectors(units: LivingUnits) -> str:
    if bool(units.detector.all()):
        return "; all units are detectors"
    return "" if bool(units.detector.any()) else "; no unit is a detector"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _against_noise(value: Interval | None) -> str:
    if value is None or value.count < 2:
        return "of so few images nothing can be said about the difference"
    if value.low <= 0 <= value.high:
        return "no difference to the attack's is seen"
    return f"the attack's is {'higher' if value.low > 0 else 'lower'} by {value.format(2, sign=True)}"
