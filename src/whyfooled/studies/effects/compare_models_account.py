"""In what models differ, image by image: the account of `compare_models`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import ImageError
from whyfooled.studies.parts.attacked import CLEAN
from whyfooled.studies.parts.over_images import Spread, group_rows, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, Side

NOISE = "noise"
PERTURBATION = {
    "l2": "ℓ2 norm",
    "linf": "ℓ∞ norm",
    "held_down": "share of the effect that holds the true class down",
    "most_share": "share of the regions with 80 % of the effect",
}
"""What is measured of each perturbation that fools a model, by its column."""
MASKS = {
    "masked_clean": "before it, the most sensitive units masked",
    "masked_right": "the most sensitive units masked",
    "masked_random": "random units masked",
    "masked_more": "back more than with random units masked",
}
"""What is measured of each image that fools a model, with units masked, by its column."""
MAPS = {
    "true_cosine": "cosine similarity of the true class's maps",
    "wrong_cosine": "cosine similarity of the wrong class's maps",
    "recovered": "recovered",
    "recovered_random": "recovered, random order",
    "recovered_more": "recovered more than by a random order",
}
"""What is measured of each method's maps, by its column."""
_SHOWN = ("true_cosine", "wrong_cosine", "recovered_random", "recovered_more")
_TOPICS = {
    "right": "What the models get right: the share of all images.",
    "perturbation": "Perturbations that fool the models: how large they are and, to first order, what regions do.",
    "masking": "Masked units: the share of the images that fool the models which are given their true class.",
    "stability": "Stability of maps: cosine similarity of a map before and after, of images with noise that the model "
    "gets right, and of attacked images that fool it.",
    "recovery": "Recovery: at which share of the fractions of black pixels, taken in the order of the wrong class's "
    "map, the true class is seen again, less that of random orders.",
}


@final
@dataclass(frozen=True, eq=False)
class _Compared:
    """One number of each image under every model, and its differences from the run's own.

    Parameters
    ----------
    topic
        The table that it is in.
    name
        What it is.
    spread
        The numbers.
    """

    topic: str
    name: str
    spread: Spread

    @property
    def first(self) -> str:
        return self.spread.entries[0]

    @property
    def gaps(self) -> Spread:
        return self.spread.gaps({other: (other, self.first) for other in self.spread.entries[1:]})


def summarise(table: Table, seed: int) -> Summary:
    """Every number of each model, and the differences from the run's own, paired by image."""
    rows = table.read()
    compared = list(_compare(rows, seed))
    names = [str(name) for name in rows["model"].unique()]
    if len(names) < 2:
        raise ImageError("One model alone was measured, so there is nothing to compare it with.")
    sides = judge({(each.topic, each.name): each.gaps for each in compared})
    sentences = [
        f"{rows['index'].nunique()} images, each with {', '.join(names)}. Differences are from {names[0]}, image by "
        "image, on the images that have the number with both models: for all that is about perturbations and maps, "
        f"those that an attack fools both on. They are judged by {say_family(sides)}.",
        "A model that takes larger perturbations to fool is compared at larger ones, under attacks that search for the "
        "smallest; under noise, and attacks within a ball, at the same.",
        *_say_clear(compared, sides),
    ]
    return Summary(tuple(sentences), tuple(_tabulate(compared, names)))


def draw(table: Table, seed: int) -> Figure:
    """Draw how alike each method's maps of the true class stay with each model, a panel for noise and each attack."""
    rows = table.read(["index", "model", "attack", "method", _DRAWN])
    rows = rows[rows["method"].notna()]
    models, methods = ([str(name) for name in rows[column].unique()] for column in ("model", "method"))
    nothing = Interval(float("nan"), float("nan"), float("nan"), 0)
    panels: dict[str, dict[str, dict[str, Interval]]] = {}
    for (attack,), group in group_rows(rows, "attack"):
        panels[f"under {attack}"] = {method: dict.fromkeys(models, nothing) for method in methods}
        for (method,), part in group_rows(group, "method"):
            panels[f"under {attack}"][method] |= Spread.of(part, "model", _DRAWN, seed).means
    return intervals_figure(panels, x="cosine similarity of the true class's maps before and after")


_DRAWN = "true_cosine"


def _compare(rows: pd.DataFrame, seed: int) -> Iterator[_Compared]:
    """Go through everything that is compared, topic by topic."""
    images = rows[rows["method"].isna() & (rows["attack"] != NOISE)]
    attacks = [str(attack) for attack in rows["attack"].unique() if attack not in (CLEAN, NOISE)]
    models = [str(model) for model in rows["model"].unique()]

    def spread(part: pd.DataFrame, column: str) -> Spread:
        whole = Spread.of(part, "model", column, seed)
        return Spread(tuple(models), _reorder(whole, models), seed)

    for attack in [CLEAN, *attacks]:
        name = CLEAN if attack == CLEAN else f"under {attack}"
        yield _Compared("right", name, spread(images[images["attack"] == attack], "right"))
    for attack in attacks:
        part = images[(images["attack"] == attack)]
        for topic, columns in (("perturbation", PERTURBATION), ("masking", MASKS)):
            for column, title in columns.items():
                if part[column].notna().any():
                    yield _Compared(topic, f"{attack}: {title}", spread(part, column))
    measured = rows[rows["method"].notna()]
    for topic, shown in (("stability", _SHOWN[:2]), ("recovery", _SHOWN[2:])):
        for method in measured["method"].unique():
            for attack in [NOISE, *attacks]:
                part = measured[(measured["method"] == method) & (measured["attack"] == attack)]
                for column in shown:
                    # The random order is the same whatever the method.
                    is_first = method == measured["method"].iloc[0]
                    if part[column].notna().any() and (column != "recovered_random" or is_first):
                        named = "" if column == "recovered_random" else f"{method}, "
                        yield _Compared(topic, f"{named}{attack}: {MAPS[column]}", spread(part, column))


def _reorder(spread: Spread, models: list[str]) -> Tensor:
    """Return (n,m) numbers in the order of the models; NaN under those that have none."""
    missing = torch.full((len(spread.values),), torch.nan, dtype=torch.float64)
    return torch.stack([spread.column(model) if model in spread.entries else missing for model in models], dim=1)


def _say_clear(compared: list[_Compared], sides: Mapping[tuple[str, str], Mapping[str, Side]]) -> Iterator[str]:
    """Say for each topic in what models differ, where enough images say it."""
    for topic in dict.fromkeys(each.topic for each in compared):
        known = [
            (each, other, side)
            for each in compared
            if each.topic == topic
            for other, side in sides[topic, each.name].items()
        ]
        if not known:
            yield f"{_HEADS[topic]}: of fewer than {FEWEST} images with both models nothing can be said."
            continue
        clear = [_describe(each, other) for each, other, side in known if side != "open"]
        said = f"{len(clear)} of {len(known)} differences are clear"
        yield f"{_HEADS[topic]}: {said}{': ' if clear else ''}{'; '.join(clear)}."


_HEADS = {
    "right": "What the models get right",
    "perturbation": "Perturbations",
    "masking": "Masked units",
    "stability": "Stability of maps",
    "recovery": "Recovery",
}


def _describe(each: _Compared, other: str) -> str:
    gap = each.gaps.means[other]
    return f"{each.name}, {other} {gap.format(sign=True)}"


def _tabulate(compared: list[_Compared], names: list[str]) -> Iterator[SummaryTable]:
    differences = [f"{name} minus {names[0]}" for name in names[1:]]
    for topic, caption in _TOPICS.items():
        lines: list[tuple[Cell, ...]] = [
            (each.name, *each.spread.means.values(), *each.gaps.means.values())
            for each in compared
            if each.topic == topic
        ]
        if lines:
            yield SummaryTable(caption, ("", *names, *differences), lines, frozenset(differences))
