"""How sensitive and interpretable units are written up: both tests for each layer and attack, and curves over N."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import FOOLED
from whyfooled.studies.parts.fooled import describe_fooled
from whyfooled.studies.parts.over_images import Spread, group_rows
from whyfooled.studies.table import Table
from whyfooled.studies.units.links import Link, measure_links
from whyfooled.studies.units.living_units import ATTACK, BEYOND, NOISE, LivingUnits, read_units
from whyfooled.studies.units.most_sensitive import DETECTORS, IOU, Top, TopCurves, compute_curves
from whyfooled.studies.units.unit_curves import unit_curves_figure
from whyfooled.tensors.statistics import Interval

LEVEL = 0.05
"""Corrected p-values below it are said to show something. [ours]"""
REPEATED = 0.5
"""Where a ranking's repeatability is below it, too few images are said to be there: chance in the ranking then draws a
correlation to less than 0.7 (the root of 0.5) of what it would be. [ours]"""


def summarise(table: Table, seed: int) -> Summary:
    """Correlations, the most sensitive units against the rest, and for each layer and attack what they say."""
    layers = list(read_units(table))
    measured = [(units, *measure_links(units, seed)) for units in layers]
    link_rows = [row for units, links, _ in measured for row in _link_rows(units, links)]
    tables = [_table(_UNITS, _UNIT_COLUMNS, unit_rows(layers)), _table(_LINKS, _LINK_COLUMNS, link_rows)]
    tops = [row for units, links, _ in measured for row in _top_rows(units, links)]
    if tops:
        tables.append(_table(_TOPS, _TOP_COLUMNS, tops))
    who = f"{describe_fooled(table)} Mean ℓ2 norm of the perturbations: {_norms(table, seed)}."
    verdicts = [verdict(units, links, agreement) for units, links, agreement in measured]
    return Summary((who, _SENSITIVITY, _HOW_SURE, *verdicts), tuple(tables))


def draw(table: Table, seed: int) -> Figure:
    """Draw, for each layer, the share of detectors and the mean IoU among the N most sensitive units, over N."""
    columns: dict[str, dict[str, dict[str, TopCurves]]] = {}
    for units in read_units(table):
        column = columns.setdefault(units.layer, {DETECTORS: {}, IOU: {}})
        column[DETECTORS][units.attack] = compute_curves(units, units.detector.double(), seed)
        column[IOU][units.attack] = compute_curves(units, units.iou, seed)
    return unit_curves_figure(columns, x="most sensitive units, % of the layer's")


def _norms(table: Table, seed: int) -> str:
    """Say how large each attack's perturbations are, and the noise that should be as large."""
    rows = table.read(["index", "attack", "perturbation", "l2"], [("outcome", "==", FOOLED)])
    norms = {kind: Spread.of(part, "attack", "l2", seed).means for (kind,), part in group_rows(rows, "perturbation")}
    noise = {attack: f" (noise: {norm})" for attack, norm in norms.get(NOISE, {}).items()}
    return ", ".join(f"{attack} {norm}{noise.get(attack, '')}" for attack, norm in norms[ATTACK].items())


def unit_rows(layers: Sequence[LivingUnits]) -> list[tuple[Cell, ...]]:
    """Write what units each layer has: one line for attacks whose images leave the same units living."""
    attacks: dict[tuple[Cell, ...], list[str]] = {}
    for units in layers:
        means = [float(mean) for mean in (units.chance_detector.sum(), units.iou.mean(), units.chance_iou.mean())]
        # What is not known is left empty: NaN is not equal to itself.
        known = (None if math.isnan(mean) else mean for mean in means)
        line = (units.layer, units.whole, units.count, int(units.detector.sum()), *known)
        attacks.setdefault(line, []).append(units.attack)
    return [(line[0], ", ".join(names), *line[1:]) for line, names in attacks.items()]


_CALLED = {ATTACK: "{}", NOISE: "noise as large as {}", BEYOND: "{}, over that to noise"}


def _link_rows(units: LivingUnits, links: Mapping[str, Link]) -> Iterator[tuple[Cell, ...]]:
    """Write each ranking's link."""
    for kind, link in links.items():
        smallest = min((top.corrected for top in link.tops), default=math.nan)
        yield (
            *(units.layer, _CALLED[kind].format(units.attack), link.iou, link.p_value, smallest, link.over_noise),
            *(link.above_chance, link.given_std, link.auroc, link.std, link.evenness, link.repeatable),
        )


def _top_rows(units: LivingUnits, links: Mapping[str, Link]) -> Iterator[tuple[Cell, ...]]:
    """Write, for each ranking, what is among the N most sensitive units and among the rest, for the N that pass."""
    for kind, link in links.items():
        for size in sorted({top.size for top in link.tops if top.corrected < LEVEL}):
            share = f"{size} ({100 * size / units.count:.0f} %)"
            of_size = [top for top in link.tops if top.size == size]
            numbers = [(top.top, top.rest, top.top - top.rest, top.p_value, top.corrected) for top in of_size]
            yield (units.layer, _CALLED[kind].format(units.attack), share, *numbers[0], *numbers[1])


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> SummaryTable:
    signed = frozenset(name for name in columns if name.endswith("difference") or name == "minus noise")
    return SummaryTable(caption, tuple(columns), rows, signed=signed)


def verdict(units: LivingUnits, links: Mapping[str, Link], agreement: Interval | None) -> str:
    """Say of one layer and attack whether sensitive units are the interpretable ones, and how sure that is."""
    head = f"{units.layer}, {units.attack} ({units.images} images, {units.count} of {units.whole} units living): "
    link = links[ATTACK]
    if not link.tops:
        return f"{head}too few units to compare some with others."
    repeats = f" The ranking repeats with {link.repeatable:.2f}." if link.repeatable >= REPEATED else ""
    text = f"{head}{_claim(link)}{_detectors(units)}.{repeats}"
    if agreement is None:
        return text
    return (
        f"{text} The correlation of sensitivity to the attack with that to noise as large is "
        f"{agreement.format(2, sign=True)}. Noise's correlation with the IoU is "
        f"{links[NOISE].iou.format(2, sign=True)}; {_against_noise(link.over_noise)}. Ranked by sensitivity "
        f"to the attack over that to noise: {_claim(links[BEYOND])}."
    )


def _claim(link: Link) -> str:
    """Say what both tests of one ranking show, each with its p-value; first, if so, that there are too few images."""
    clear = [top for top in link.tops if top.corrected < LEVEL]
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
        f"{_too_few(link.repeatable, bool(sides))}{said}{_over_sizes(clear, link.tops)}; by rank correlation with the "
        f"best IoU {link.iou.format(2, sign=True)}, {_p(link.p_value)}{uncorrected}"
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


_SENSITIVITY = (
    "A unit's sensitivity is the mean over images of how far its map changes (ℓ2 norm), over its standard deviation on "
    "the clean images."
)
_HOW_SURE = (
    "Two tests ask whether the sensitive units are the interpretable ones. Over N: the N most sensitive units against "
    "the rest, in the share of detectors and in the mean of the best IoU, corrected (Holm) for these comparisons. By "
    "rank: Spearman's correlation of sensitivity with the best IoU. Both p-values are over units: how often chance "
    "goes as far when what a layer's units detect is permuted among them. Neither is corrected for layers and "
    "attacks, and neither is over models. Intervals are over images, for these units and this dissection (basic "
    "bootstrap). How well a ranking repeats is the correlation of the rankings by two halves of the images, as if each "
    "half had all of them; where it is low, correlations are drawn towards 0 and their intervals are too narrow. Units "
    "that give the same everywhere are left out."
)
_UNITS = (
    "The units. Detectors are those whose best IoU is above the cutoff; by chance: when annotations are permuted "
    "among the images."
)
_UNIT_COLUMNS = (
    *("layer", "attack", "units", "living", "detectors", "detectors by chance"),
    *("mean best IoU", "mean best IoU by chance"),
)
_LINKS = (
    "How the ranking of the living units correlates with what they detect: Spearman's correlation with the best IoU, "
    "and its p; the smallest p over N, after Holm; the correlation minus that of noise; the correlation with the IoU "
    "less what chance gives, and given the unit's standard deviation (partial correlation); how often a detector is "
    "ranked above another unit (AUROC). And with the unit's activity: its standard deviation, and its evenness, which "
    "is its squared mean over its mean square: 1 for a unit that is on everywhere alike, near 0 for one that is seldom "
    "on. Repeatability: how well the ranking agrees with that of as many other images."
)
_LINK_COLUMNS = (
    *("layer", "ranked by sensitivity to", "IoU", "p", "smallest p over N", "minus noise", "IoU above chance"),
    *("IoU, given deviation", "AUROC of detectors", "deviation", "evenness", "repeatability"),
)
_TOPS = (
    "The N most sensitive units against the rest, in the share of detectors and in the mean of the best IoU: the N at "
    f"which one of the two passes Holm (p under {LEVEL}). The figure has the curves over N."
)
_TOP_COLUMNS = (
    *("layer", "ranked by sensitivity to", "N", "detectors", "in the rest", "difference", "p", "p after Holm"),
    *("IoU", "of the rest", "IoU difference", "IoU p", "IoU p after Holm"),
)
