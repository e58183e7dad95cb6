"""How the transfer of universal perturbations is written up: every pair of models, beside chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.matrices import matrices_figure
from whyfooled.drawing.summary import Summary
from whyfooled.errors import ImageError
from whyfooled.studies.parts.over_images import judge, say_family, swap_keys
from whyfooled.studies.parts.right_images import TESTED
from whyfooled.studies.table import Table
from whyfooled.studies.universal.comparison import (
    CHANCE,
    D_AND_FOOLED,
    Compared,
    compare,
    tabulate,
)
from whyfooled.studies.universal.sentences import ball_text, first_measured, from_to, what_was_fitted_to
from whyfooled.tensors.statistics import FEWEST, Interval, Side


def summarise(table: Table, seed: int) -> Summary:
    """Means of D and the fooling rate for every pair of models, and whether perturbations transfer."""
    rows = table.read()
    on_models = _spread(rows, seed)
    many = from_to(rate.count for compared in on_models.values() for rate in compared.measures["fooled"].means.values())
    who = f"On every model {many} of {table.images} images were tested. {what_was_fitted_to(rows)}"
    first = first_measured(rows)
    what = (
        f"Fitted with {first['method']}, epsilon {first['epsilon']:g} ({ball_text(first)}). An image counts for a "
        f"model that gets it right. Chance is the mean of {rows['direction'].nunique()} random directions, as long, on "
        "the model that is tested; differences to it are as uncertain as one more random direction makes them."
    )
    caption = (
        f"What perturbations of {first['method']} that were fitted on one model do to the maps and predictions of "
        "another. Minus chance: the paired difference of D on the tested model."
    )
    pairs = tabulate(caption, ("tested on", "fitted on"), on_models, ["fooling rate"])
    return Summary((who, what, *_verdicts(on_models)), (pairs,))


def draw(table: Table, seed: int) -> Figure:
    """Draw matrices of D, of D over chance and of the fooling rate; rows are the models fitted on."""
    on_models = _spread(table.read(), seed)
    itself = {CHANCE: Interval(math.nan, math.nan, math.nan, 0)}
    numbers = {
        "dissimilarity D of the maps": {model: compared.d.means for model, compared in on_models.items()},
        "D over chance": {model: compared.over_chance | itself for model, compared in on_models.items()},
        "fooling rate": {model: compared.measures["fooled"].means for model, compared in on_models.items()},
    }
    panels = [(title, swap_keys(by_model), ".2f") for title, by_model in numbers.items()]
    return matrices_figure(panels, rows="fitted on", columns="tested on")


def _spread(rows: pd.DataFrame, seed: int) -> dict[str, Compared]:
    """Spread out, for each model, what the perturbations do to it that were fitted on any."""
    tested = rows[rows["outcome"] == TESTED]
    if tested.empty:
        raise ImageError("No model gets any of the images right.")
    on_models = {str(model): tested[tested["tested_on"] == model] for model in rows["tested_on"].dropna().unique()}
    return {model: compare(part, "fitted_on", D_AND_FOOLED, seed) for model, part in on_models.items() if len(part)}


def _verdicts(on_models: Mapping[str, Compared]) -> list[str]:
    """Say whether perturbations move maps more than chance, on the model that they were fitted on and on others."""
    sides = judge({tested_on: compared.less_chance for tested_on, compared in on_models.items()})
    itself: list[tuple[Side | None, Interval]] = []
    others: list[tuple[Side | None, Interval]] = []
    for tested_on, compared in on_models.items():
        for fitted_on in compared.less_chance.entries:
            pair = sides[tested_on].get(fitted_on), compared.over_chance[fitted_on]
            (itself if fitted_on == tested_on else others).append(pair)
    kinds = {"On the model that they were fitted on": itself, "On other models": others}
    return [f"{where}{_verdict(pairs, say_family(sides))}" for where, pairs in kinds.items() if pairs]


def _verdict(beside_chance: Sequence[tuple[Side | None, Interval]], judged: str) -> str:
    known = [(side, over) for side, over in beside_chance if side is not None]
    if not known:
        return f": of fewer than {FEWEST} images nothing can be said."
    sides = [side for side, _ in known]
    ratios = [over.mean for _, over in known]
    few = len(beside_chance) - len(known)
    not_counted = f" Not counted: {few} of {len(beside_chance)}, of fewer than {FEWEST} images." if few else ""
    return (
        f", perturbations move the maps more than chance in {sides.count('above')} of {len(known)} cases and less in "
        f"{sides.count('below')} (by {judged}); D is {min(ratios):.2f} to {max(ratios):.2f} times "
        f"chance's.{not_counted}"
    )
