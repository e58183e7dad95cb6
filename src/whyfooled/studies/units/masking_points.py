"""What masked units came to: from rows to intervals over images, and to sentences, tables and curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pandas as pd
import torch

from whyfooled.drawing.figures.curves import Curves
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import ALREADY_WRONG, check_some_attacked
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, bootstrap_means

NONE, MOST, RANDOM, LEAST = "none", "most sensitive", "random", "least sensitive"
CHOICES = (MOST, RANDOM, LEAST)
LENGTH = "new perturbation, times as long"
MEASURES = {"clean": "clean images", "old": "old adversaries", "again": "attacked again"}


@final
@dataclass(frozen=True, eq=False)
class Point:
    """What came out with one number of units masked that were chosen in one way, or with none.

    Parameters
    ----------
    attack, layer, choice
        What the units were held against, where they are, and how they were chosen.
    units, of
        How many were masked, of how many.
    right
        For each of `MEASURES`, the share of the images that are given their true class.
    change, over
        The same minus that without a mask, and minus that with as many random units; paired by image.
    longer, longer_than_random
        How many times as long the new perturbation is as the old one, and as the new one with random units masked,
        where both fool: geometric means.
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
    longer: Interval
    longer_than_random: Interval
    forwards: float
    backwards: float


def points(table: Table, seed: int) -> list[Point]:
    """Take the means over images, and over the draws of random units."""
    rows = _tested(table)
    return [
        point
        for attack in rows["attack"].unique()
        for layer in rows["layer"].dropna().unique()
        for point in _points(rows[rows["attack"] == attack], str(attack), str(layer), seed)
    ]


def _tested(table: Table) -> pd.DataFrame:
    rows = table.read()
    check_some_attacked(rows.drop_duplicates("index")["outcome"])
    rows = rows[rows["outcome"] != ALREADY_WRONG]
    return rows.assign(**{name: rows[name].astype("float64") for name in MEASURES}, log=rows["length"].map(math.log))


def _points(rows: pd.DataFrame, attack: str, layer: str, seed: int) -> Iterator[Point]:
    none = rows[rows["choice"] == NONE].set_index("index")
    own = rows[rows["layer"] == layer]
    wide = {
        name: own.pivot_table(
            index="index", columns=["units", "choice"], values=name, aggfunc="mean", observed=True, dropna=False
        ).reindex(none.index)
        for name in (*MEASURES, "log")
    }
    keys: list[Any] = list(wide["clean"].columns)
    right, change, over = {}, {}, {}
    for name, values in wide.items():
        random = {key: values[key[0], RANDOM] for key in keys}
        right[name] = _means(values, seed)
        change[name] = _means(values.sub(none[name], axis=0), seed)
        over[name] = _means(values - pd.DataFrame(random, index=values.index), seed)
    spent = own.groupby(["units", "choice"], observed=True)[["forwards", "backwards"]].mean()
    of = int(own["layer_units"].iloc[0])
    base = _means(none[list(MEASURES)], seed)
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    empty = dict.fromkeys(MEASURES, nothing)
    yield Point(attack, layer, NONE, 0, of, base, empty, empty, nothing, nothing, math.nan, math.nan)
    for units in sorted({units for units, _ in keys}):
        for choice in CHOICES:
            key = (units, choice)
            yield Point(
                attack,
                layer,
                choice,
                int(units),
                of,
                {name: right[name][key] for name in MEASURES},
                {name: change[name][key] for name in MEASURES},
                {name: over[name][key] for name in MEASURES},
                _exponential(change["log"][key]),
                _exponential(over["log"][key]),
                *map(float, spent.loc[key]),
            )


def _means(wide: pd.DataFrame, seed: int) -> dict[Any, Interval]:
    values = torch.tensor(wide.to_numpy(dtype="float64", copy=True))
    return dict(zip(wide.columns, bootstrap_means(values, seed=seed), strict=True))


def _exponential(logs: Interval) -> Interval:
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.count)


def panels(found: Sequence[Point]) -> dict[str, dict[str, Curves]]:
    """Return the curves to draw: a row for each attack and layer, a panel for each measure that there is."""
    rows: dict[str, dict[str, Curves]] = {}
    measured = [name for name in MEASURES if any(one.right[name].count for one in found)]
    for none, own in _groups(found):
        numbers = sorted({one.units for one in own})
        title = f"{none.attack}, {none.layer} ({none.of} units)"
        # Without a mask first, so that it lies under the others.
        rows[title] = {
            MEASURES[name]: {
                NONE: [(units, none.right[name]) for units in numbers],
                **{choice: [(one.units, one.right[name]) for one in own if one.choice == choice] for choice in CHOICES},
            }
            for name in measured
        }
        if any(one.longer.count for one in found):
            alike = Interval(1.0, 1.0, 1.0, 0)
            rows[title][LENGTH] = {
                NONE: [(units, alike) for units in numbers],
                **{choice: [(one.units, one.longer) for one in own if one.choice == choice] for choice in CHOICES},
            }
    return rows


def _groups(found: Sequence[Point]) -> Iterator[tuple[Point, list[Point]]]:
    """Yield for each attack and layer what there is without a mask, and with masks."""
    for none in found:
        if none.choice == NONE:
            yield (
                none,
                [one for one in found if (one.attack, one.layer) == (none.attack, none.layer) and one is not none],
            )


def summary(table: Table, seed: int) -> Summary:
    """Write the finished table up."""
    rows = _tested(table)
    found = points(table, seed)
    pairs = rows.groupby("attack", observed=True, sort=False)["pairs"].max()
    many = ", ".join(f"{count:.0f} of {attack}" for attack, count in pairs.items())
    tested, ranked = rows["index"].nunique(), int(rows["ranked_on"].max())
    left_out = table.read(["index"])["index"].nunique() - tested
    draws = rows["draw"].nunique()
    who = (
        f"{ranked + tested + left_out} images: {ranked} to rank the units, {tested} tested; {left_out} that the "
        f"classifier gets wrong without a mask were left out. Units were ranked by successful adversaries: {many}. By "
        "content, none of the images they were ranked on is among those tested."
    )
    how = (
        "Accuracy is the share of tested images that are given their true class. Old adversaries, failed ones "
        "included, were made for the classifier without a mask; attacked again, the same attack was run on the masked "
        f"one. Random units were drawn {draws} times, and attacked again the first time. Each comparison is made at "
        "95 %, and there is one for each number of units."
    )
    verdicts = [_verdict(none, own) for none, own in _groups(found)]
    tables = [_right_table(found), _change_table(found, "change"), _change_table(found, "over")]
    return Summary((who, how, *verdicts), tuple(tables))


def _verdict(none: Point, own: Sequence[Point]) -> str:
    """Say whether masking the most sensitive units helps, against what, and at what price."""
    most = [one for one in own if one.choice == MOST]
    title = f"{none.attack}, {none.layer}"
    if none.right["clean"].count < FEWEST:
        return f"{title}: of fewer than {FEWEST} images nothing can be said."
    helps = [one for one in most if one.change["old"].low > 0]
    shown = max(helps or most, key=lambda one: one.units)
    (random,) = (one for one in own if one.choice == RANDOM and one.units == shown.units)
    return (
        f"{title}: {_old(none, most, shown, random)}. {_clean(none, most, shown, random)}. {_after(none, most, shown)}"
    )


def _old(none: Point, most: Sequence[Point], shown: Point, random: Point) -> str:
    """Say what becomes of old adversaries, and of them with random units masked, whatever the difference is."""
    over = shown.over["old"]
    said = (
        "random units do as well"
        if over.low <= 0 <= over.high
        else f"random units do {'less' if over.low > 0 else 'more'}"
    )
    text = (
        f"masking the {shown.units} most sensitive of {none.of} units brings the accuracy on old adversaries from "
        f"{none.right['old'].mean:.3f} to {shown.right['old'].mean:.3f} ({shown.change['old'].format(sign=True)}), "
        f"masking as many random ones to {random.right['old'].mean:.3f}: {said} (difference {over.format(sign=True)}). "
    )
    helps, beats = ([one for one in most if getattr(one, kind)["old"].low > 0] for kind in ("change", "over"))
    if not helps:
        return f"{text}With no number of units is it surely higher than without a mask"
    than_random = f", and than with random ones with {_numbers(beats)}" if beats else ", but not than with random ones"
    return f"{text}It is surely higher than without a mask with {_numbers(helps)} masked{than_random}"


def _clean(none: Point, most: Sequence[Point], shown: Point, random: Point) -> str:
    """Say what it costs on clean images, in numbers even where they are not sure."""
    change, worst = shown.change["clean"], min(most, key=lambda one: one.change["clean"].mean)
    text = (
        f"Clean accuracy is {shown.right['clean'].mean:.3f}, against {random.right['clean'].mean:.3f} with random ones "
        f"and {none.right['clean'].mean:.3f} without a mask (change {change.format(sign=True)})"
    )
    if worst.change["clean"].mean < change.mean:
        text += f", and at worst {worst.right['clean'].mean:.3f} with {_numbers([worst])} masked"
        text += f" ({worst.change['clean'].format(sign=True)})"
    costs = [one for one in most if one.change["clean"].high < 0]
    sure = (
        f"it is surely lower with {_numbers(costs)} masked" if costs else "with no number of units is it surely lower"
    )
    return f"{text}; {sure}"


def _after(none: Point, most: Sequence[Point], shown: Point) -> str:
    """Say whether it survives a new attack."""
    if not shown.right["again"].count:
        return "The attack was not run again, so nothing is known of an attacker who knows of the mask."
    survives = [one for one in most if one.change["again"].low > 0]
    beats = [one for one in survives if one.over["again"].low > 0]
    after = (
        f"Attacked again, the accuracy is {shown.right['again'].mean:.3f} with {shown.units} masked "
        f"({shown.change['again'].format(sign=True)}); "
    )
    if survives:
        after += f"it is surely higher than without a mask with {_numbers(survives)} masked, "
        after += f"and than with random ones with {_numbers(beats)}" if beats else "but not than with random ones"
    else:
        after += "with no number of units is it surely higher than without a mask"
    if shown.longer.count < FEWEST:
        return f"{after}."
    changed = "longer" if shown.longer.low > 1 else "shorter" if shown.longer.high < 1 else "of another length"
    sure = "surely" if changed != "of another length" else "not surely"
    found = f"{shown.longer.format(2)} times as long; {shown.longer_than_random.format(2)} times as with random ones"
    return f"{after}. Where both fool, the new perturbation is {sure} {changed} ({found} masked)."


def _numbers(found: Sequence[Point]) -> str:
    numbers = [str(one.units) for one in found]
    listed = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    return f"{listed} unit{'' if listed == '1' else 's'}"


def _where(one: Point) -> tuple[Cell, ...]:
    return one.attack, one.layer, one.choice, one.units, f"{one.units / one.of:.1%}"


_WHERE = ("attack", "layer", "units masked", "how many", "of the layer's")


def _right_table(found: Sequence[Point]) -> SummaryTable:
    lines = [
        (
            *_where(one),
            *(one.right[name] for name in MEASURES),
            *("–" if math.isnan(passes) else f"{passes:.0f}" for passes in (one.forwards, one.backwards)),
        )
        for one in found
    ]
    caption = (
        "Accuracy on clean images, on the adversaries of the classifier without a mask, and under the attack run "
        "again; the mean passes of the new attack."
    )
    return SummaryTable(caption, (*_WHERE, *MEASURES.values(), "forwards", "backwards"), lines)


def _change_table(found: Sequence[Point], kind: str) -> SummaryTable:
    whose = "without a mask" if kind == "change" else "with as many random units masked"
    lines = [
        (
            *_where(one),
            *(getattr(one, kind)[name] for name in MEASURES),
            one.longer if kind == "change" else one.longer_than_random,
        )
        for one in found
        if one.choice != NONE and (kind == "change" or one.choice != RANDOM)
    ]
    caption = (
        f"Accuracy minus that {whose}, image by image; how many times as long the new perturbation is as the one "
        f"{whose}, where both fool (geometric mean)."
    )
    columns = (*_WHERE, *MEASURES.values(), "times as long")
    return SummaryTable(caption, columns, lines, frozenset(MEASURES.values()))
