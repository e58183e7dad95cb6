"""How much of perturbations lies where class activation maps are high: the account of `interpretability`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure

from whyfooled.drawing.figures.boxes import Box, boxes_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.fooled import describe_fooled
from whyfooled.studies.parts.over_images import Spread, check_some_method, group_rows, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, Side

BEFORE, AFTER = "true class on the clean image", "promoted class on the adversarial image"
NUMBERS = ("score", "chance", "random", "mirrored")
_OVER = {
    "minus chance": "chance",
    "minus random": "what a random perturbation has",
    "minus mirrored": "what lies on the mirrored map",
}
"""What the score is compared with, by the heading of the difference."""
_HALF = "minus a half"
_LABELS = ("map", "attack", "method")
_HEADINGS = ("map of the", "attack", "method")

Compared = Mapping[tuple[str, ...], Mapping[str, Interval]]
"""For each of `_LABELS`, the mean score, its chance level, and what it is above its references."""


def summarise(table: Table, seed: int) -> Summary:
    """Means of scores and of what they are compared with, for every attack, method and map; curves over the size."""
    who = describe_fooled(table)
    check_some_method(table)
    rows = _read_measured(table)
    main = rows[rows["main"]]
    spreads = {labels: _spread_scores(group, seed) for labels, group in group_rows(main, *_LABELS)}
    compared = {labels: {**scores.means, **over.means} for labels, (scores, over) in spreads.items()}
    sides = judge({labels: over for labels, (_, over) in spreads.items()})
    sentences = (
        f"{who} {_count_goals_reached(rows)}",
        f"A map's discriminative region is the top {100 * main['quantile'].iloc[0]:g} % of its pixels, less where many "
        "tie. Chance is the share of the pixels that are in it; a random perturbation is as large as the attack's; and "
        "the mirrored map keeps what maps and perturbations have in common because objects stand in the middle.",
        *(_answer(kind, compared, sides) for kind in (BEFORE, AFTER)),
    )
    return Summary(sentences, (_tabulate(compared), _tabulate_sizes(rows, seed)))


def draw(table: Table, seed: int) -> Figure:
    """Draw the scores as boxes, by attack and method, a panel for each of the two maps."""
    rows = _read_measured(table)
    panels: dict[str, dict[str, dict[str, Box]]] = {}
    for (attack, method, kind), group in group_rows(rows[rows["main"]], "attack", "method", "map"):
        controls = {
            "random perturbation": group["random"].to_numpy(),
            "the perturbation on the mirrored map": group["mirrored"].to_numpy(),
        }
        box = Box(group["score"].to_numpy(), controls, float(group["chance"].mean()))
        panels.setdefault(f"map of the {kind}", {}).setdefault(attack, {})[method] = box
    return boxes_figure(panels, y="interpretability score", chance="chance")


def _read_measured(table: Table) -> pd.DataFrame:
    rows = table.read(["index", "attack", "reached", "method", "map", "quantile", "main", *NUMBERS])
    return rows[rows["method"].notna()].astype({"main": bool, "reached": bool})


def _spread_scores(rows: pd.DataFrame, seed: int) -> tuple[Spread, Spread]:
    """Spread out the scores and their chance levels, and what the scores are over a half and over each reference."""
    score, *references = (torch.tensor(rows[name].to_numpy(dtype="float64")) for name in NUMBERS)
    over = [score - 0.5, *(score - reference for reference in references)]
    return (
        Spread(("score", "chance"), torch.stack([score, references[0]], dim=1), seed),
        Spread((_HALF, *_OVER), torch.stack(over, dim=1), seed),
    )


def _count_goals_reached(rows: pd.DataFrame) -> str:
    reached = rows.drop_duplicates(["index", "attack"]).groupby("attack", observed=True)["reached"].sum()
    return f"Their goal was reached on {', '.join(f'{count} ({attack})' for attack, count in reached.items())}."


def _answer(kind: str, compared: Compared, sides: Mapping[tuple[str, ...], Mapping[str, Side]]) -> str:
    """Say of one of the two maps whether most of the perturbations' energy lies where it is high."""
    known = {
        labels: means for labels, means in compared.items() if labels[0] == kind and means["score"].count >= FEWEST
    }
    question = f"Does most of a perturbation's energy lie where the map of the {kind} is high?"
    if not known:
        return f"{question} Of fewer than {FEWEST} images nothing can be said."
    halves = [sides[labels][_HALF] for labels in known]
    more, less = halves.count("above"), halves.count("below")
    answer = "Yes" if more == len(known) else "No" if less == len(known) else "Not in general"
    ranked = sorted(known, key=lambda labels: known[labels]["score"].mean)
    lowest, highest = (_describe(labels, known[labels]) for labels in (ranked[0], ranked[-1]))
    over = (_count_sides(said, [sides[labels][column] for labels in known]) for column, said in _OVER.items())
    return (
        f"{question} {answer}: it is more than half in {more} of {len(known)} pairs of attack and method, less than "
        f"half in {less}. It is {'; '.join(over)} (by {say_family(sides)}). The "
        f"highest mean is {highest}, the lowest {lowest}."
    )


def _describe(labels: Sequence[str], means: Mapping[str, Interval]) -> str:
    _, attack, method = labels
    return f"{means['score']} ({attack}, {method}; chance {means['chance'].mean:.3f})"


def _count_sides(reference: str, sides: Sequence[Side]) -> str:
    return f"above {reference} in {sides.count('above')} and below it in {sides.count('below')}"


def _tabulate(compared: Compared) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = [
        (*labels, means["score"], means["chance"].mean, *(means[over] for over in _OVER))
        for labels, means in compared.items()
    ]
    caption = (
        "Interpretability score: the share of the perturbation's energy in the map's discriminative region; chance: "
        "the share of the pixels there; and the paired differences to chance, to a random perturbation, and to the "
        "mirrored map. Means over the images that the attack fools the classifier on."
    )
    return SummaryTable(caption, (*_HEADINGS, "score", "chance", *_OVER), lines, frozenset(_OVER))


def _tabulate_sizes(rows: pd.DataFrame, seed: int) -> SummaryTable:
    sizes = sorted(rows["quantile"].unique())
    columns = [(number, size) for size in sizes for number in ("score", "over")]
    headings = [f"top {100 * size:g} %{', minus chance' if number == 'over' else ''}" for number, size in columns]
    lines: list[tuple[Cell, ...]] = []
    for labels, group in group_rows(rows.assign(over=rows["score"] - rows["chance"]), *_LABELS):
        by_image = group.pivot_table(index="index", columns="quantile", values=["score", "over"], observed=True)
        by_image = by_image.reindex(columns=columns).set_axis(headings, axis=1)
        lines.append((*labels, *Spread.of_columns(by_image, headings, seed).means.values()))
    caption = "The score over the size of the discriminative region: the top pixels of the map that it has."
    return SummaryTable(caption, (*_HEADINGS, *headings), lines, frozenset(headings[1::2]))
