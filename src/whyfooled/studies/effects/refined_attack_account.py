"""What attacks need inside the regions that their first perturbations give: the account of `refined_attack`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import ImageError
from whyfooled.studies.parts.attacked import ALREADY_WRONG, check_some_attacked
from whyfooled.studies.parts.over_images import Spread, group_rows
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval

ORIGINAL, RANDOM = "original", "random"
NORMS = {"l0": "ℓ0", "l1": "ℓ1", "l2": "ℓ2", "linf": "ℓ∞"}
PASSES = ("forwards", "backwards")
_NUMBERS = ("success", "allowed", *NORMS, *PASSES)
_NOTHING = Interval(math.nan, math.nan, math.nan, 0)

Runs = Mapping[str, Spread]
"""For each column of numbers of one attack, its values by where the attack was run."""


def summarise(table: Table, seed: int) -> Summary:
    """Shares of goals reached, norms, and norms relative to the original's and to the control's, image by image."""
    rows = _read_measured(table)
    attacks = _spread_out(rows, seed)
    given, wheres = table.read(["index"])["index"].nunique(), set(rows["where"])
    sentences = [
        f"{given} images, {given - rows['index'].nunique()} of them misclassified before any attack and left out. Each "
        "attack is compared with itself, run again from the clean image inside the regions that its first perturbation "
        "gives.",
        *(sentence for attack, runs in attacks.items() for sentence in _say_what_is_needed(attack, runs)),
    ]
    tables = [_tabulate_runs(attacks), _tabulate_ratios(attacks, ORIGINAL)]
    if RANDOM in wheres and wheres - {ORIGINAL, RANDOM}:
        tables.append(_tabulate_ratios(attacks, RANDOM))
    return Summary(tuple(sentences), tuple(tables))


def draw(table: Table, seed: int) -> Figure:
    """Draw each norm relative to the original's, a panel for each norm and a line for each attack."""
    rows = _read_measured(table)
    wheres = [str(where) for where in rows["where"].unique() if where != ORIGINAL]
    attacks = {attack: runs for attack, runs in _spread_out(rows, seed).items() if _regions(runs)}
    panels: dict[str, dict[str, dict[str, Interval]]] = {title: {} for title in NORMS.values()}
    for norm, title in NORMS.items():
        for attack, runs in attacks.items():
            ratios = runs[norm].ratio(ORIGINAL)
            panels[title][attack] = {where: ratios.get(where, _NOTHING) for where in wheres}
    return intervals_figure(panels, x="norm relative to the original's, where both reach the goal", line=1)


def _read_measured(table: Table) -> pd.DataFrame:
    rows = table.read(["index", "attack", "where", "outcome", *_NUMBERS])
    check_some_attacked(rows.drop_duplicates("index")["outcome"])
    if set(rows["where"]) == {ORIGINAL}:
        raise ImageError(f"No attack could be run again. {table.errors()['error'].iloc[0]}")
    rows = rows[rows["outcome"] != ALREADY_WRONG].astype(dict.fromkeys(_NUMBERS, "float64"))
    if not rows["success"].any():
        raise ImageError(
            f"No attack reached its goal on any of the {rows['index'].nunique()} images, as it is or in a region, so "
            "there is nothing to compare. Take a stronger one."
        )
    return rows


def _spread_out(rows: pd.DataFrame, seed: int) -> dict[str, Runs]:
    return {
        attack: {column: Spread.of(group, "where", column, seed) for column in _NUMBERS}
        for (attack,), group in group_rows(rows, "attack")
    }


def _regions(runs: Runs, but: str = ORIGINAL) -> list[str]:
    """Name the regions in which an attack was run again, but for one of them."""
    return [where for where in runs["success"].entries if where not in (ORIGINAL, but)]


def _tabulate_runs(attacks: Mapping[str, Runs]) -> SummaryTable:
    minus = "minus original"
    lines: list[tuple[Cell, ...]] = []
    for attack, runs in attacks.items():
        means = {column: runs[column].means for column in _NUMBERS}
        difference = runs["success"].minus(ORIGINAL)
        for where in (ORIGINAL, *_regions(runs)):
            success, allowed, *norms = (means[column][where] for column in ("success", "allowed", *NORMS))
            passes = (means[column][where] for column in PASSES)
            written = (f"{mean.mean:.0f}" if mean.count else "–" for mean in passes)
            lines.append((attack, where, success, difference.get(where), allowed, *norms, *written))
    caption = (
        "How often the goal is reached inside each region, the paired difference to the attack without one, the share "
        "of the pixels that the region holds, the norms where the goal is reached, and the mean passes of that run "
        "alone. Where it is not reached equally often the norms are of different images: see the ratios."
    )
    headings = ("attack", "region", "goal reached", minus, "pixels", *NORMS.values(), *PASSES)
    return SummaryTable(caption, headings, lines, signed=frozenset({minus}))


def _tabulate_ratios(attacks: Mapping[str, Runs], against: str) -> SummaryTable:
    minus = f"goal reached, minus {against}"
    lines: list[tuple[Cell, ...]] = []
    for attack, runs in attacks.items():
        if against not in runs["success"].entries:
            continue
        difference, ratios = runs["success"].minus(against), [runs[norm].ratio(against) for norm in NORMS]
        for where in _regions(runs, but=against):
            of_region = [ratio[where] for ratio in ratios]
            lines.append((attack, where, difference[where], of_region[0].count, *of_region))
    whose = "the original's" if against == ORIGINAL else "those inside as many random cells as sensitive ones"
    caption = (
        f"Norms relative to {whose}: geometric means of the ratio, of the images where both reach the goal. 1 is as "
        "much, less than 1 is less."
    )
    headings = ("attack", "region", minus, "both reach it", *NORMS.values())
    return SummaryTable(caption, headings, lines, signed=frozenset({minus}))


def _say_what_is_needed(attack: str, runs: Runs) -> Iterator[str]:
    success, allowed = runs["success"].means, runs["allowed"].means
    for where in _regions(runs):
        yield (
            f"{attack}, {where}: on {allowed[where].mean:.0%} of the pixels it reaches its goal on "
            f"{success[where].mean:.1%} of the images (original {success[ORIGINAL].mean:.1%}); "
            f"{_compare_needs(runs, where, ORIGINAL)}."
        )
    for where in _regions(runs, but=RANDOM) if RANDOM in success else ():
        yield (
            f"{attack}, {where} ({allowed[where].mean:.0%} of the pixels) against random cells "
            f"({allowed[RANDOM].mean:.0%}): {_compare_needs(runs, where, RANDOM)}."
        )


def _compare_needs(runs: Runs, where: str, against: str) -> str:
    """Say whether a run needs less than another on the images where both reach the goal."""
    ratios = {NORMS[norm]: runs[norm].ratio(against)[where] for norm in ("l0", "l2")}
    count = ratios["ℓ0"].count
    if count < FEWEST:
        return f"both reach it on {count} images, of which nothing can be said about what they need"
    said = {"below": "less", "above": "more", "open": "no difference to be seen"}
    parts = [f"{ratio} times the {norm} ({said[ratio.side(1)]})" for norm, ratio in ratios.items()]
    return f"on the {count} images where both reach it, it needs {' and '.join(parts)}"
