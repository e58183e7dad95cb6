"""What each attack's effect is made of, and what attacks differ in: the account of `effect_mix`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from matplotlib.figure import Figure

from whyfooled.drawing.figures.bars import bars_figure
from whyfooled.drawing.style import KIND_COLOURS
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.fooled import describe_fooled, read_fooled
from whyfooled.studies.parts.over_images import Spread, swap_keys, tabulate_means
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, variance_explained

SHOWN = ("suppression", "balanced", "promotion", "inert")
"""The kinds in the order of their ratio, and what has none."""
LOGITS = {
    "true_fall": "true class falls by",
    "target_rise": "target rises by",
    "explained": "sum of the regions over the whole",
    "against": "share against the attack",
}
_TABLES: Mapping[str, Mapping[str, str]] = {
    "Share of the effect in regions of each kind, and share of it that holds the true class down (the rest lifts the "
    "target).": {**{kind: kind for kind in SHOWN}, "held_down": "holds the true class down"},
    "How few regions carry the effect, and how many none.": {
        "half": "regions with half of the effect",
        "most": "regions with 80 % of the effect",
        "half_share": "share of the regions with half",
        "most_share": "with 80 %",
        "untouched": "untouched",
        "idle": "share of the touched that are inert",
    },
    "Where each kind of region lies: its share of the pixels, and of the squared norm of the perturbation.": {
        **{f"pixels_{kind}": f"pixels, {kind}" for kind in SHOWN},
        **{f"energy_{kind}": f"norm², {kind}" for kind in SHOWN},
    },
    "What the whole perturbation does, in logits; how much of it (on target minus true class) the effects of the "
    "regions add up to, 1 if they do not interact; and the share of all changes that works against the attack.": {
        "l2": "ℓ2 norm",
        **LOGITS,
    },
}
"""The columns of each table of means, by its caption."""
_COMPARED = {
    "held_down": "share of the effect that holds the true class down",
    "suppression": "share of the effect in suppression regions",
    "promotion": "share in promotion regions",
    "balanced": "share in balanced regions",
    "most_share": "share of the regions with 80 % of the effect",
    "untouched": "share of untouched regions",
    "idle": "share of touched regions that are inert",
    "explained": "sum of the regions' effects over the whole",
    "against": "share of the effect against the attack",
}
"""What attacks are compared in: shares and ratios, which do not grow with the size of the perturbation alone."""
_PAIRED = ("held_down", "suppression", "balanced", "promotion", "most_share")
_MARKS = {
    "share of the regions": {
        "half of the effect": "half_share",
        "80 % of the effect": "most_share",
        "untouched": "untouched",
    },
    "share of the effect": {"holds the true class down": "held_down", "works against the attack": "against"},
}
"""The columns that the figure's panels mark, beside the bars."""

Compared = Mapping[str, Spread]
"""For each column of `_COMPARED`, its values by attack."""


def summarise(table: Table, seed: int) -> Summary:
    """Means of every attack, and what attacks differ in, image by image."""
    sentences, rows = [describe_fooled(table)], read_fooled(table)
    compared = {column: Spread.of(rows, "attack", column, seed) for column in _COMPARED}
    sentences += [*_say_mixes(compared), *_say_what_adds_up(compared), *_say_differences(compared)]
    tables = [tabulate_means(caption, rows, columns, seed) for caption, columns in _TABLES.items()]
    if len(compared["held_down"].entries) > 1:
        tables += [_tabulate_differences(compared), _tabulate_pairs(compared)]
    return Summary(tuple(sentences), tuple(tables))


def draw(table: Table, seed: int) -> Figure:
    """Draw how the kinds share each attack's effect, how few regions carry it, and what it does to both classes."""
    rows = read_fooled(table)
    sums = rows[["index", "attack"]].join(rows[list(SHOWN)].cumsum(axis=1))
    bars = swap_keys({kind: Spread.of(sums, "attack", kind, seed).means for kind in SHOWN})
    panels = {
        heading: swap_keys({mark: Spread.of(rows, "attack", column, seed).means for mark, column in marks.items()})
        for heading, marks in _MARKS.items()
    }
    title = "effect in regions of each kind (intervals: of the sums)"
    return bars_figure(bars, panels, title=title, colours=KIND_COLOURS)


def _say_mixes(compared: Compared) -> Iterator[str]:
    means = {column: spread.means for column, spread in compared.items()}
    for attack, held_down in means["held_down"].items():
        shares = ", ".join(f"{100 * means[kind][attack].mean:.0f} % in {kind}" for kind in SHOWN if kind in means)
        yield (
            f"{attack}: {held_down} of the effect holds the true class down, the rest lifts the target; it lies "
            f"{shares} regions, and 80 % of it in {100 * means['most_share'][attack].mean:.1f} % of all regions."
        )


def _say_what_adds_up(compared: Compared) -> Iterator[str]:
    known = [sums.mean for sums in compared["explained"].means.values() if sums.count]
    if known:
        low, high = f"{min(known):.2f}", f"{max(known):.2f}"
        yield (
            f"The effects of single regions add up to {low if low == high else f'{low} to {high} (by attack)'} of what "
            "the whole perturbation changes between target and true class; the difference to 1 is interaction between "
            "regions, which no single region's score shows."
        )


def _say_differences(compared: Compared) -> Iterator[str]:
    count = compared["held_down"].complete
    if len(compared["held_down"].entries) < 2:
        return
    if count < FEWEST:
        yield f"Only {count} images fool the classifier under every attack: too few to say what the attacks differ in."
        return
    listed = "; ".join(f"{_COMPARED[column]} {share:.2f}" for column, share in _rank(compared) if share == share)
    yield (
        f"What attacks differ in, by the share of the variance within images that the attack explains ({1 / count:.2f} "
        f"by chance): {listed}."
    )


def _rank(compared: Compared) -> list[tuple[str, float]]:
    """Order measures by how much of the variance within images the attack explains."""
    explained = {column: variance_explained(spread.values) for column, spread in compared.items()}
    return sorted(explained.items(), key=lambda pair: -pair[1] if pair[1] == pair[1] else 1.0)


def _tabulate_differences(compared: Compared) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for column, explained in _rank(compared):
        means = compared[column].means
        lowest, *_, highest = sorted(means, key=lambda attack: means[attack].mean)
        difference = compared[column].gaps({"": (highest, lowest)}).means[""]
        lines.append((_COMPARED[column], explained, highest, lowest, difference))
    caption = (
        "What attacks differ in: the share of the variance within images that the attack explains (partial eta "
        "squared, on the images that all attacks fool the classifier on; "
        f"{1 / max(1, compared['held_down'].complete):.3f} by chance), the attacks with the highest and the lowest "
        "mean, picked here, and their paired difference."
    )
    headings = ("measure", "variance explained", "highest", "lowest", "difference")
    return SummaryTable(caption, headings, lines, signed=frozenset({"difference"}))


def _tabulate_pairs(compared: Compared) -> SummaryTable:
    attacks = compared["held_down"].entries
    pairs = {f"{first} minus {second}": (first, second) for first, second in combinations(attacks, 2)}
    gaps = swap_keys({_COMPARED[column]: compared[column].gaps(pairs).means for column in _PAIRED})
    lines: list[tuple[Cell, ...]] = [(pair, *of_pair.values()) for pair, of_pair in gaps.items()]
    headings = [_COMPARED[column] for column in _PAIRED]
    caption = "Differences of attacks, on the images that both fool the classifier on."
    return SummaryTable(caption, ("attacks", *headings), lines, signed=frozenset(headings))
