"""How the transfer of universal perturbations is written up: every pair of models, beside chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.matrices import Matrix, matrices_figure
from whyfooled.drawing.summary import Summary, SummaryTable
from whyfooled.errors import ImageError
from whyfooled.studies.parts.right_images import TESTED
from whyfooled.studies.table import Table
from whyfooled.studies.universal.account import (
    CHANCE,
    D_AND_FOOLED,
    Comparison,
    D,
    ball_text,
    compare_with_chance,
    first_measured,
    from_to,
    what_was_fitted_to,
)
from whyfooled.tensors.statistics import FEWEST, Interval


def summarise(table: Table, seed: int) -> Summary:
    """Means of D and the fooling rate for every pair of models, and whether perturbations transfer."""
    rows = table.read()
    compared = _compare(rows, seed)
    many = from_to(rate.count for comparison in compared.values() for rate in comparison.means["fooled"].values())
    who = f"On every model {many} of {table.images} images were tested. {what_was_fitted_to(rows)}"
    first = first_measured(rows)
    what = (
        f"Fitted with {first['method']}, epsilon {first['epsilon']:g} ({ball_text(first)}). An image counts for a "
        "model that gets it right. Chance is a random direction of each image's own, as long, on the model that is "
        "tested."
    )
    return Summary((who, what, *_verdicts(compared)), (_table(compared, str(first["method"])),))


def draw(table: Table, seed: int) -> Figure:
    """Draw matrices of D, of D over chance and of the fooling rate; rows are the models fitted on."""
    compared = _compare(table.read(), seed)
    itself = Interval(math.nan, math.nan, math.nan, 0)
    panels = [
        ("dissimilarity D of the maps", _matrix({model: own.means[D] for model, own in compared.items()}), ".2f"),
        (
            "D over chance",
            _matrix({model: {**own.over_chance, CHANCE: itself} for model, own in compared.items()}),
            ".2f",
        ),
        ("fooling rate", _matrix({model: own.means["fooled"] for model, own in compared.items()}), ".2f"),
    ]
    return matrices_figure(panels, rows="fitted on", columns="tested on")


def _compare(rows: pd.DataFrame, seed: int) -> dict[str, Comparison]:
    """Compare, on each model, the perturbations that were fitted on any."""
    tested = rows[rows["outcome"] == TESTED]
    if tested.empty:
        raise ImageError("No model gets any of the images right.")
    return {
        str(model): compare_with_chance(tested[tested["tested_on"] == model], "fitted_on", D_AND_FOOLED, seed)
        for model in rows["tested_on"].dropna().unique()
        if (tested["tested_on"] == model).any()
    }


def _matrix(columns: Mapping[str, Mapping[str, Interval]]) -> Matrix:
    """Turn what there is for each model tested on into rows of models fitted on."""
    fitted_on = next(iter(columns.values()))
    return {row: {column: cells[row] for column, cells in columns.items()} for row in fitted_on}


def _verdicts(compared: Mapping[str, Comparison]) -> list[str]:
    """Say whether perturbations move maps more than chance, on the model that they were fitted on and on others."""
    beside_chance = {
        (tested_on, fitted_on): (comparison.minus_chance[fitted_on], comparison.over_chance[fitted_on])
        for tested_on, comparison in compared.items()
        for fitted_on in comparison.d.entries
        if fitted_on != CHANCE
    }
    kinds = {
        "On the model that they were fitted on": [
            pair for models, pair in beside_chance.items() if len({*models}) == 1
        ],
        "On other models": [pair for models, pair in beside_chance.items() if len({*models}) == 2],
    }
    return [f"{where}{_verdict(pairs)}" for where, pairs in kinds.items() if pairs]


def _verdict(beside_chance: Sequence[tuple[Interval, Interval]]) -> str:
    known = [(minus, over) for minus, over in beside_chance if minus.count >= FEWEST]
    if not known:
        return f": of fewer than {FEWEST} images nothing can be said."
    sides = [minus.side() for minus, _ in known]
    ratios = [over.mean for _, over in known]
    few = len(beside_chance) - len(known)
    not_counted = f" Not counted: {few} of {len(beside_chance)}, of fewer than {FEWEST} images." if few else ""
    return (
        f", perturbations move the maps more than chance in {sides.count('above')} of {len(known)} cases and less in "
        f"{sides.count('below')} (by paired intervals that leave out 0); D is {min(ratios):.2f} to {max(ratios):.2f} "
        f"times chance's.{not_counted}"
    )


def _table(compared: Mapping[str, Comparison], method: str) -> SummaryTable:
    lines = [
        (tested_on, fitted_on, *comparison.cells(fitted_on))
        for tested_on, comparison in compared.items()
        for fitted_on in comparison.d.entries
    ]
    caption = (
        f"What perturbations of {method} that were fitted on one model do to the maps and predictions of another. "
        "Minus chance: the paired difference of D on the tested model."
    )
    columns = ("tested on", "fitted on", "D", "minus chance", "over chance", "fooling rate")
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
