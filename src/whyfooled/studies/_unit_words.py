"""The link between sensitive and interpretable units in rows of tables and in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from whyfooled.statistics import Interval
from whyfooled.studies._unit_links import ATTACK, BEYOND, NOISE, Link, LivingUnits, Top, links, tops
from whyfooled.summary import Cell

LEVEL = 0.05
"""Corrected p-values below it are said to show something. [ours]"""
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


def unit_row(units: LivingUnits) -> tuple[Cell, ...]:
    """Write what units a layer has."""
    return (
        *(units.layer, units.attack, units.images, units.whole, units.count, int(units.detector.sum())),
        float(units.chance_detector.sum()),
        *(float(one.mean()) for one in (units.iou, units.chance_iou)),
    )


def link_rows(units: LivingUnits, found: Ranked) -> Iterator[tuple[Cell, ...]]:
    """Write each ranking's link."""
    for kind, link in found.links.items():
        yield (
            *(units.layer, _CALLED[kind].format(units.attack), link.iou, link.p_value, link.over_noise),
            *(link.above_chance, link.given_std, link.auroc, link.std, link.sparsity, link.repeatable),
        )


def size_rows(units: LivingUnits, found: Ranked) -> Iterator[tuple[Cell, ...]]:
    """Write, for each ranking, what is among the most sensitive units and among the rest."""
    for kind in found.links:
        for first, second in zip(found.detectors[kind], found.iou[kind], strict=True):
            ranked_by = f"{_CALLED[kind].format(units.attack)}"
            numbers = [
                cell
                for top in (first, second)
                for cell in (top.top, top.rest, top.top - top.rest, top.p_value, top.corrected)
            ]
            yield (ranked_by, f"{first.size} ({100 * first.size / units.count:.0f} %)", *numbers)


def verdict(units: LivingUnits, found: Ranked) -> str:
    """Say of one layer and attack whether sensitive units are the interpretable ones, and how sure that is."""
    head = f"{units.layer}, {units.attack} ({units.images} images, {units.count} of {units.whole} units living): "
    if not found.iou[ATTACK]:
        return f"{head}too few units to hold some against others."
    link = found.links[ATTACK]
    text = (
        f"{head}{_claim(found.detectors[ATTACK], found.iou[ATTACK])}. Spearman's correlation of sensitivity and best "
        f"IoU: {link.iou.format(2, sign=True)}, {_p(link.p_value)}{_auroc(units, link)}. The ranking's "
        f"repeatability is {_share(link.repeatable)}."
    )
    if found.agreement is None:
        return text
    beyond = found.links[BEYOND]
    return (
        f"{text} With the sensitivity to noise as large, that to the attack has a correlation of "
        f"{found.agreement.format(2, sign=True)}; noise's has one of "
        f"{found.links[NOISE].iou.format(2, sign=True)} with the IoU: {_against_noise(link.over_noise)}. Ranked by "
        f"sensitivity to the attack over that to noise: {_claim(found.detectors[BEYOND], found.iou[BEYOND])} "
        f"({beyond.iou.format(2, sign=True)}, {_p(beyond.p_value)})."
    )


def _claim(detectors: Sequence[Top], iou: Sequence[Top]) -> str:
    """Say what the sizes with a corrected p-value below the level show together."""
    clear = [(top, name) for name, own in (("", detectors), (_IOU, iou)) for top in own if top.corrected < LEVEL]
    if not clear:
        return "the most sensitive units are not seen to be more or less interpretable than the rest"
    signs = {top.top > top.rest for top, _ in clear}
    if len(signs) > 1:
        return f"it depends on how many units are taken: {'; '.join(_compared(*one) for one in _extremes(clear))}"
    best = min(clear, key=lambda one: one[0].corrected)
    word = "more" if signs == {True} else "less"
    sizes = len(detectors) + len(iou)
    return (
        f"sensitive units are {word} interpretable than others, in {len(clear)} of {sizes} comparisons; most clearly, "
        f"{_compared(*best)}"
    )


_IOU = "mean IoU"


def _extremes(clear: Sequence[tuple[Top, str]]) -> list[tuple[Top, str]]:
    """Return the clearest comparison to either side."""
    sides = ([one for one in clear if (one[0].top > one[0].rest) == up] for up in (True, False))
    return [min(side, key=lambda one: one[0].corrected) for side in sides]


def _compared(top: Top, name: str) -> str:
    if name == _IOU:
        return (
            f"the mean IoU of the {top.size} most sensitive ones is {top.top:.3f}, of the rest {top.rest:.3f} "
            f"({_p(top.corrected)} after Holm)"
        )
    return (
        f"of the {top.size} most sensitive ones {100 * top.top:.0f} % are detectors, of the rest "
        f"{100 * top.rest:.0f} % ({_p(top.corrected)} after Holm)"
    )


def _auroc(units: LivingUnits, link: Link) -> str:
    if link.auroc.count == 0:
        return "; all units are detectors" if bool(units.detector.all()) else "; no unit is a detector"
    return f"; a detector is ranked above another unit with a share of {link.auroc.format(2)}"


def _share(value: float) -> str:
    return "not known of so few images" if value != value else f"{value:.2f}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _against_noise(value: Interval | None) -> str:
    if value is None or value.count < 2:
        return "of so few images nothing can be said about the difference"
    if value.low <= 0 <= value.high:
        return "no difference is seen"
    return f"that to the attack is {'higher' if value.low > 0 else 'lower'} by {value.format(2, sign=True)}"
