"""How masked units are written up: accuracies beside those without a mask and with random units, tables and words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.bands import bands_grid
from whyfooled.drawing.figures.curves import Curves
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import ALREADY_WRONG, check_some_attacked
from whyfooled.studies.parts.over_images import Spread, judge, swap_keys
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, Side

NONE, MOST, RANDOM, LEAST = "none", "most sensitive", "random", "least sensitive"
ACCURACIES = {"clean": "clean images", "old": "old adversaries", "again": "attacked again"}
LENGTH = "length"


@final
@dataclass(frozen=True, eq=False)
class Point:
    """What came out with one number of units masked that were chosen in one way, or with none.

    Parameters
    ----------
    attack, layer, choice
        The attack, where the units are, and how they were chosen.
    units, of
        How many were masked, of how many.
    right
        For each of `ACCURACIES`, the share of the images that are given their true class.
    change, over
        The same minus that without a mask, and minus that with as many random units, paired by image. Of `LENGTH`, how
        many times as long the new perturbation is as that one, where both fool: a geometric mean.
    sides
        On which side of no difference ``change`` and ``over`` surely are, for each measure that images enough have.
    forwards, backwards
        What running the attack again took, in the mean; NaN if it was not.
    """

    attack: str
    layer: str
    choice: str
    units: int
    of: int
    right: Mapping[str, Interval]
    change: Mapping[str, Interval]
    over: Mapping[str, Interval]
    sides: Mapping[tuple[str, str], Side]
    forwards: float = math.nan
    backwards: float = math.nan

    def where(self) -> tuple[Cell, ...]:
        """Return the cells that tell it from the others in a table."""
        return self.attack, self.layer, self.choice, self.units, f"{self.units / self.of:.1%}"


_WHERE = ("attack", "layer", "units masked", "how many", "of the layer's")
Masked = Sequence[Point]
"""All masks of a layer against one attack; the first is none."""


def summarise(table: Table, seed: int) -> Summary:
    """Accuracies with every mask, paired differences to none and to random units, and what they say."""
    rows = _read_tested(table)
    pairs = rows.groupby("attack", observed=True, sort=False)["pairs"].max()
    many = ", ".join(f"{count:.0f} of {attack}" for attack, count in pairs.items())
    tested, ranked = rows["index"].nunique(), int(rows["ranked_on"].max())
    left_out = table.read(["index"])["index"].nunique() - tested
    who = (
        f"{ranked + tested + left_out} images: {ranked} to rank the units, {tested} tested; {left_out} that the "
        f"classifier gets wrong without a mask were left out. Units were ranked by successful adversaries: {many}. By "
        "content, none of the images they were ranked on is among those tested."
    )
    how = (
        "Accuracy is the share of tested images that are given their true class. Old adversaries, failed ones "
        "included, were made for the classifier without a mask; attacked again, the same attack was run on the masked "
        f"one. Random units were drawn {rows['draw'].nunique()} times, and attacked again the first time. What is "
        "sure is so by tests of the paired differences, corrected (Holm) for all comparisons of a layer's most "
        "sensitive units under an attack."
    )
    layers = list(_compare(rows, seed))
    verdicts = [_verdict(none, masked) for none, *masked in layers]
    points = [point for layer in layers for point in layer]
    change = [(point, point.change) for point in points if point.choice != NONE]
    over = [(point, point.over) for point, _ in change if point.choice != RANDOM]
    tables = (
        _table_of_accuracies(points),
        _table_of_changes("without a mask", change),
        _table_of_changes("with as many random units masked", over),
    )
    return Summary((who, how, *verdicts), tables)


def draw(table: Table, seed: int) -> Figure:
    """Draw the accuracies over the number of masked units, a panel for each and a row for each attack and layer."""
    layers = list(_compare(_read_tested(table), seed))
    free = "new perturbation, times as long"
    measured = [name for name in ACCURACIES if any(point.right[name].count for layer in layers for point in layer)]
    longer = any(point.change[LENGTH].count for _, *masked in layers for point in masked)
    rows: dict[str, dict[str, Curves]] = {}
    for none, *masked in layers:
        panels = {
            ACCURACIES[name]: _curves(none.right[name], masked, [point.right[name] for point in masked])
            for name in measured
        }
        if longer:
            panels[free] = _curves(Interval(1.0, 1.0, 1.0, 0), masked, [point.change[LENGTH] for point in masked])
        rows[f"{none.attack}, {none.layer} ({none.of} units)"] = panels
    return bands_grid(rows, x="units masked", y="accuracy", references=[NONE], free=free)


def _curves(none: Interval, masked: Masked, values: Sequence[Interval]) -> Curves:
    # Without a mask first, so that it lies under the others.
    curves = {NONE: [(units, none) for units in dict.fromkeys(point.units for point in masked)]}
    for point, value in zip(masked, values, strict=True):
        curves.setdefault(point.choice, []).append((point.units, value))
    return curves


def _read_tested(table: Table) -> pd.DataFrame:
    rows = table.read()
    check_some_attacked(rows.drop_duplicates("index")["outcome"])
    rows = rows[rows["outcome"] != ALREADY_WRONG]
    # Of logarithms the mean is a geometric one.
    return rows.assign(**{name: rows[name].astype("float64") for name in ACCURACIES}, length=rows[LENGTH].map(math.log))


def _compare(rows: pd.DataFrame, seed: int) -> Iterator[list[Point]]:
    """Compare the masks of each layer, under each attack: first none, then fewer units before more."""
    rows = rows.assign(mask=[_name(*mask) for mask in zip(rows["choice"], rows["units"], strict=True)])
    for attack in rows["attack"].unique():
        of_attack = rows[rows["attack"] == attack]
        for layer in rows["layer"].dropna().unique():
            of_layer = of_attack[(of_attack["layer"] == layer) | (of_attack["choice"] == NONE)]
            yield list(_points(of_layer, str(attack), str(layer), seed))


def _name(choice: str, units: float) -> str:
    return f"{choice}, {units:.0f}"


def _points(rows: pd.DataFrame, attack: str, layer: str, seed: int) -> Iterator[Point]:
    """Take the means over images, and over the draws of random units."""
    spreads = {measure: Spread.of(rows, "mask", measure, seed) for measure in (*ACCURACIES, LENGTH)}
    numbers = sorted({int(units) for units in rows["units"]})
    masks = [(choice, units) for units in numbers for choice in ((MOST, RANDOM, LEAST) if units else (NONE,))]
    beside_none = {_name(*mask): _name(NONE, 0) for mask in masks}
    beside_random = {_name(*mask): _name(RANDOM if mask[1] else NONE, mask[1]) for mask in masks}
    change, over = _gaps(spreads, beside_none), _gaps(spreads, beside_random)
    most = [_name(*mask) for mask in masks if mask[0] == MOST]
    references = {"change": beside_none, "over": beside_random}
    sides = judge(
        {
            (kind, measure): spread.gaps({name: (name, pairs[name]) for name in most})
            for kind, pairs in references.items()
            for measure, spread in spreads.items()
        }
    )
    passes = rows.groupby("mask")[["forwards", "backwards"]].mean()
    right = swap_keys({measure: spreads[measure].means for measure in ACCURACIES})
    of = int(rows["layer_units"].max())
    for mask in masks:
        name = _name(*mask)
        told = {place: of_masks[name] for place, of_masks in sides.items() if name in of_masks}
        cost = map(float, passes.loc[name])
        yield Point(attack, layer, *mask, of, right[name], change[name], over[name], told, *cost)


def _gaps(spreads: Mapping[str, Spread], references: Mapping[str, str]) -> dict[str, dict[str, Interval]]:
    """Compare each mask with another one, in every measure."""
    pairs = {name: (name, reference) for name, reference in references.items()}
    gaps = {measure: spread.gaps(pairs).means for measure, spread in spreads.items()}
    return swap_keys({**gaps, LENGTH: {name: log.exp() for name, log in gaps[LENGTH].items()}})


def _verdict(none: Point, masked: Masked) -> str:
    """Say whether masking the most sensitive units helps, against what, and at what price."""
    most = [point for point in masked if point.choice == MOST]
    title = f"{none.attack}, {none.layer}"
    if none.right["clean"].count < FEWEST:
        return f"{title}: of fewer than {FEWEST} images nothing can be said."
    shown = max(_on_side(most, "change", "old", "above") or most, key=lambda point: point.units)
    (random,) = (point for point in masked if point.choice == RANDOM and point.units == shown.units)
    parts = (_old(none, most, shown, random), _clean(none, most, shown, random), _after(most, shown))
    return f"{title}: {'. '.join(parts)}."


def _on_side(points: Masked, kind: str, measure: str, side: Side) -> list[Point]:
    """Return the masks with which a number is surely higher (or lower) than without one, or with random units."""
    return [point for point in points if point.sides.get((kind, measure)) == side]


def _old(none: Point, most: Masked, shown: Point, random: Point) -> str:
    """Say what becomes of old adversaries, and of them with random units masked, whatever the difference is."""
    over = shown.over["old"]
    said = {"open": "as well", "above": "less", "below": "more"}[shown.sides.get(("over", "old"), "open")]
    higher = _surely_higher(_on_side(most, "change", "old", "above"), _on_side(most, "over", "old", "above"))
    return (
        f"masking the {shown.units} most sensitive of {none.of} units brings the accuracy on old adversaries from "
        f"{none.right['old'].mean:.3f} to {shown.right['old'].mean:.3f} ({shown.change['old'].format(sign=True)}), "
        f"masking as many random ones to {random.right['old'].mean:.3f}: random units do {said} (difference "
        f"{over.format(sign=True)}). {higher[0].upper()}{higher[1:]}"
    )


def _surely_higher(than_none: Masked, than_random: Masked) -> str:
    if not than_none:
        return "with no number of units is it surely higher than without a mask"
    higher = f"it is surely higher than without a mask with {_numbers(than_none)} masked"
    if not than_random:
        return f"{higher}, but not than with random ones"
    return f"{higher}, and than with random ones with {_numbers(than_random)}"


def _clean(none: Point, most: Masked, shown: Point, random: Point) -> str:
    """Say what it costs on clean images, in numbers even where they are not sure."""
    change, worst = shown.change["clean"], min(most, key=lambda point: point.change["clean"].mean)
    text = (
        f"Clean accuracy is {shown.right['clean'].mean:.3f}, against {random.right['clean'].mean:.3f} with random ones "
        f"and {none.right['clean'].mean:.3f} without a mask (change {change.format(sign=True)})"
    )
    if worst.change["clean"].mean < change.mean:
        text += f", and at worst {worst.right['clean'].mean:.3f} with {_numbers([worst])} masked"
        text += f" ({worst.change['clean'].format(sign=True)})"
    costs = _on_side(most, "change", "clean", "below")
    if not costs:
        return f"{text}; with no number of units is it surely lower"
    return f"{text}; it is surely lower with {_numbers(costs)} masked"


def _after(most: Masked, shown: Point) -> str:
    """Say whether it survives a new attack."""
    if not shown.right["again"].count:
        return "The attack was not run again, so nothing is known of an attacker who knows of the mask"
    survives = _on_side(most, "change", "again", "above")
    text = (
        f"Attacked again, the accuracy is {shown.right['again'].mean:.3f} with {shown.units} masked "
        f"({shown.change['again'].format(sign=True)}); "
        f"{_surely_higher(survives, _on_side(survives, 'over', 'again', 'above'))}"
    )
    longer = shown.change[LENGTH]
    if ("change", LENGTH) not in shown.sides:
        return text
    sure = {"above": "surely longer", "below": "surely shorter", "open": "not surely of another length"}
    said = sure[shown.sides["change", LENGTH]]
    return (
        f"{text}. Where both fool, the new perturbation is {said} ({longer.format(2)} times as long; "
        f"{shown.over[LENGTH].format(2)} times as with random ones masked)"
    )


def _numbers(points: Masked) -> str:
    numbers = [str(point.units) for point in points]
    listed = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    return f"{listed} unit{'' if listed == '1' else 's'}"


def _table_of_accuracies(points: Masked) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for point in points:
        passes = ("–" if math.isnan(mean) else f"{mean:.0f}" for mean in (point.forwards, point.backwards))
        lines.append((*point.where(), *point.right.values(), *passes))
    caption = (
        "Accuracy on clean images, on the adversaries of the classifier without a mask, and under the attack run "
        "again; the mean passes of the new attack."
    )
    return SummaryTable(caption, (*_WHERE, *ACCURACIES.values(), "forwards", "backwards"), lines)


def _table_of_changes(whose: str, changes: Sequence[tuple[Point, Mapping[str, Interval]]]) -> SummaryTable:
    caption = (
        f"Accuracy minus that {whose}, image by image; how many times as long the new perturbation is as the one "
        f"{whose}, where both fool (geometric mean)."
    )
    columns = (*_WHERE, *ACCURACIES.values(), "times as long")
    lines = [(*point.where(), *change.values()) for point, change in changes]
    return SummaryTable(caption, columns, lines, frozenset(ACCURACIES.values()))
