"""On which named regions perturbations act, beside chance: the account of `object_or_background`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.attacked import FOOLED
from whyfooled.studies.parts.fooled import describe_fooled
from whyfooled.studies.parts.over_images import Spread, group_rows, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, Side

_PAIRS = {
    "energy": "share of ‖δ‖²",
    "effect": "effect on the margin",
    "cleaned": "right when cleaned there alone",
    "inside": "fooled inside it alone",
    "inside_l2": "ℓ2 inside it alone",
}
"""What is measured of a region, and of the same region shifted, by its column."""
NUMBERS = ("area", *(f"{name}{ending}" for name in _PAIRS for ending in ("", "_by_chance")))
_CHANCE = "by chance"


@final
@dataclass(frozen=True, eq=False)
class _Compared:
    """One number of a region under an attack, and by chance.

    Parameters
    ----------
    attack, region
        Which.
    what
        The number's column.
    spread
        Of each image, the number, and that of the region shifted.
    """

    attack: str
    region: str
    what: str
    spread: Spread

    @property
    def key(self) -> tuple[str, str, str]:
        return self.attack, self.region, self.what

    @property
    def gap(self) -> Spread:
        return self.spread.gaps({self.what: (self.what, f"{self.what}_by_chance")})


def summarise(table: Table, seed: int) -> Summary:
    """List what each region has of a perturbation, what cleaning it does, and what attacks need in it, and chance."""
    first = describe_fooled(table)
    rows = _read(table)
    compared = list(_compare(rows, seed))
    sides = judge({each.key: each.gap for each in compared})
    sentences = [
        first,
        "Chance is the same region shifted to other places of the image, as large and of the same shape. A region's "
        "effect is how much the perturbation there raises the wrong class's score (logit) over the true one's.",
        *_say_clear(compared, sides),
    ]
    return Summary(tuple(sentences), tuple(_tabulate(rows, compared, seed)))


def draw(table: Table, seed: int) -> Figure:
    """Draw each region's numbers beside chance, a panel for each kind."""
    panels: dict[str, dict[str, dict[str, Interval]]] = {}
    for each in _compare(_read(table), seed):
        mean, chance = each.spread.means.values()
        line = {"the region": mean, "the region shifted": chance}
        panels.setdefault(_PAIRS[each.what], {})[f"{each.region}, {each.attack}"] = line
    lines = next(iter(panels.values()))
    nothing = Interval(float("nan"), float("nan"), float("nan"), 0)
    empty = {"the region": nothing, "the region shifted": nothing}
    return intervals_figure(
        {title: {name: panel.get(name, empty) for name in lines} for title, panel in panels.items()},
        x="mean over images",
    )


def _read(table: Table) -> pd.DataFrame:
    rows = table.read(["index", "attack", "outcome", "l2", "region", *NUMBERS])
    return rows[rows["region"].notna()]


def _compare(rows: pd.DataFrame, seed: int) -> Iterator[_Compared]:
    for (attack, region), group in group_rows(rows, "attack", "region"):
        for what in _PAIRS:
            columns = [what, f"{what}_by_chance"]
            part = group[group[columns].notna().all(axis=1)]
            if len(part):
                yield _Compared(attack, region, what, Spread.of_columns(part, columns, seed))


def _say_clear(compared: list[_Compared], sides: Mapping[tuple[str, str, str], Mapping[str, Side]]) -> Iterator[str]:
    """Say which regions differ from chance, and in what."""
    known = [(each, side) for each in compared for side in sides[each.key].values()]
    if not known:
        yield f"Of fewer than {FEWEST} images with a region nothing can be said about which differ from chance."
        return
    clear = [_describe(each, side) for each, side in known if side != "open"]
    said = f"{len(clear)} of {len(known)} differences from chance are clear, by {say_family(sides)}"
    yield f"{said}{': ' if clear else ''}{'; '.join(clear)}."


def _describe(each: _Compared, side: Side) -> str:
    mean, chance = each.spread.means.values()
    more = "more" if side == "above" else "less"
    return f"{each.region} under {each.attack}, {_PAIRS[each.what]} {mean.mean:.3f}, {more} than {chance.mean:.3f}"


def _tabulate(rows: pd.DataFrame, compared: list[_Compared], seed: int) -> Iterator[SummaryTable]:
    fooled = rows[rows["outcome"] == FOOLED]
    areas = {
        key: Spread.of_columns(group, ["area", "l2"], seed).means
        for key, group in group_rows(fooled, "attack", "region")
    }
    for what, name in _PAIRS.items():
        lines: list[tuple[Cell, ...]] = []
        for each in compared:
            if each.what != what:
                continue
            mean, chance = each.spread.means.values()
            of_all = areas.get((each.attack, each.region), {})
            beside = of_all.get("l2" if what == "inside_l2" else "area")
            lines.append((each.attack, each.region, beside, mean, chance, each.gap.means[what]))
        if lines:
            beside_name = "ℓ2 anywhere" if what == "inside_l2" else "share of the pixels"
            headings = ("attack", "region", beside_name, name, _CHANCE, "difference")
            yield SummaryTable(_CAPTIONS[what], headings, lines, frozenset({"difference"}))


_CAPTIONS = {
    "energy": "How much of a perturbation lies on a region: its share of the squared ℓ2 norm.",
    "effect": "What the perturbation on a region does to the margin, in logits.",
    "cleaned": "How often the true class is seen again when the perturbation is removed from a region alone.",
    "inside": "How often an attack that may act in a region alone fools the model, of all images that it gets right.",
    "inside_l2": "How large a perturbation inside a region alone is, where inside it and inside it shifted the attack "
    "fools.",
}
