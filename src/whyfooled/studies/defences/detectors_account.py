"""What detectors are worth, and what is left of it under attack: the account of `detectors`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.defences.calibration import find_fewest
from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import ImageError
from whyfooled.studies.parts.attacked import ALREADY_WRONG, CLEAN, FOOLED, check_some_fooled, take_best_outcomes
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import Interval, auroc, bootstrap_means

EVADING = "evading"
"""The attack that knows the detector, in the column ``attack``."""
LEVELS = (0.05, 0.01)
"""Shares of false positives at which true ones are counted."""
STANDS = 0.55
"""The area under the curve above which something is left of a detector that is attacked. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class Told:
    """How well one detector tells the images of one attack from others.

    Parameters
    ----------
    from_clean, from_noisy
        The area under the curve against clean images, and against noisy ones.
    flagged, noisy_flagged
        The shares of attacked and of noisy images that are flagged, for each of the `LEVELS` that p-values can reach.
    """

    from_clean: Interval
    from_noisy: Interval
    flagged: Mapping[float, Interval]
    noisy_flagged: Mapping[float, Interval]


Results = Mapping[str, Mapping[str, Told]]
"""For each detector, for each attack, how well it tells its images."""


def summarise(table: Table, seed: int) -> Summary:
    """Areas under the curves and shares of true positives, for each detector and attack; clean and noisy negatives."""
    rows = _read(table)
    results, false = _tell_each(rows, seed), _find_false_positives(rows, seed)
    printed = {detector: of for detector, of in results.items() if EVADING in of}
    sentences = [
        _say_images(rows),
        *(_say_false_positives(detector, false[detector]) for detector in printed),
        *_say_what_is_left(rows, printed),
        *(
            f"{detector} is left out: it was not attacked by who knows it, so nothing can be said of it."
            for detector in results
            if detector not in printed
        ),
        *(f"{error}" for error in table.errors()["error"].unique()),
    ]
    if not printed:
        why = " ".join(sentences[1:])
        raise ImageError(f"No detector was attacked, with success, by who knows it, so none is reported. {why}")
    tables = (_tabulate_areas(printed), _tabulate_flagged(printed, false), _tabulate_attacks(rows, seed))
    return Summary(tuple(sentences), tables)


def draw(table: Table, seed: int) -> Figure:
    """Draw the areas under the curves, a panel for each attack and a line for each detector."""
    results = {detector: of for detector, of in _tell_each(_read(table), seed).items() if EVADING in of}
    attacks = dict.fromkeys(attack for of in results.values() for attack in of)
    panels = {
        (f"{EVADING} (knows the detector)" if attack == EVADING else attack): {
            detector: {"against clean": of[attack].from_clean, "against noisy": of[attack].from_noisy}
            for detector, of in results.items()
            if attack in of
        }
        for attack in attacks
    }
    whole = {name: lines for name, lines in panels.items() if len(lines) == len(results)}
    return intervals_figure(whole, x="area under the curve", line=0.5)


def _read(table: Table) -> pd.DataFrame:
    rows = table.read()
    rows = rows[rows["detector"].notna()]
    if not len(rows):
        raise ImageError(f"No detector works on this model. {table.errors()['error'].iloc[0]}")
    attacked = rows[rows["attack"] != CLEAN]
    check_some_fooled(take_best_outcomes(attacked))
    return rows


def _tell_each(rows: pd.DataFrame, seed: int) -> dict[str, dict[str, Told]]:
    """Compare the images that fool the classifier with clean and noisy ones, for each detector and attack."""
    results: dict[str, dict[str, Told]] = {}
    for detector in rows["detector"].unique():
        of_detector = rows[rows["detector"] == detector]
        clean = of_detector[of_detector["attack"] == CLEAN]
        results[str(detector)] = {
            str(attack): _tell(group[group["outcome"] == FOOLED], clean, seed)
            for attack, group in _groups(of_detector[of_detector["attack"] != CLEAN], "attack")
            if (group["outcome"] == FOOLED).any()
        }
    return results


def _groups(rows: pd.DataFrame, column: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Go through the rows of each entry of a column, in the order in which the table has them first."""
    for entry in rows[column].unique():
        yield entry, rows[rows[column] == entry]


def _tell(fooled: pd.DataFrame, clean: pd.DataFrame, seed: int) -> Told:
    return Told(
        _compare(fooled["score"], clean["score"]),
        _compare(fooled["score"], fooled["noise_score"]),
        _share_flagged(fooled, "p_value", seed),
        _share_flagged(fooled, "noise_p_value", seed),
    )


def _compare(positive: pd.Series, negative: pd.Series) -> Interval:
    """Return the area under the curve of positive against negative scores."""
    above, below = (_as_tensor(scores) for scores in (positive, negative))
    return auroc(torch.cat([above, below]), torch.arange(len(above) + len(below)) < len(above))


def _share_flagged(rows: pd.DataFrame, column: str, seed: int) -> dict[float, Interval]:
    """Return the share of images with a p-value of at most each of the levels that p-values can reach."""
    levels = [level for level in LEVELS if find_fewest(level) <= rows["known"].min()]
    flags = [(_as_tensor(rows[column]) <= level).double() for level in levels]
    return dict(zip(levels, bootstrap_means(torch.stack(flags, dim=1), seed=seed), strict=True)) if flags else {}


def _as_tensor(values: pd.Series) -> Tensor:
    return torch.tensor(values.to_numpy(dtype="float64"))


def _find_false_positives(rows: pd.DataFrame, seed: int) -> dict[str, dict[float, Interval]]:
    clean = rows[rows["attack"] == CLEAN]
    return {str(detector): _share_flagged(group, "p_value", seed) for detector, group in _groups(clean, "detector")}


def _say_images(rows: pd.DataFrame) -> str:
    attacked = rows[rows["attack"] != CLEAN]
    wrong = attacked[attacked["outcome"] == ALREADY_WRONG]["index"].nunique()
    return (
        f"{rows['index'].nunique()} images that no detector learned from; {wrong} of them are misclassified as they "
        "are: they count as clean and are not attacked. Attacked images are those that fool the classifier; the area "
        "under the curve is 0.5 by chance."
    )


def _say_false_positives(detector: str, false: Mapping[float, Interval]) -> str:
    said = [f"{share} where {level:.0%} was asked for" for level, share in false.items()]
    said += [f"none at {level:.0%}, for which it knows too few clean images" for level in LEVELS if level not in false]
    return f"{detector} flags clean images that it has not seen at a rate of {', '.join(said)}."


def _say_what_is_left(rows: pd.DataFrame, results: Results) -> Iterator[str]:
    """Say of each detector what the attack that knows it leaves."""
    evading = rows[(rows["attack"] == EVADING) & (rows["outcome"] != ALREADY_WRONG)]
    for detector, of in results.items():
        attacked, area = evading[evading["detector"] == detector], of[EVADING].from_clean
        left = "nothing of it is left" if area.mean <= STANDS else "this attack leaves something of it, another may not"
        others = [told.from_clean.mean for attack, told in of.items() if attack != EVADING]
        known = f"{min(others):.3f} to {max(others):.3f} for attacks that do not know it, " if others else ""
        yield (
            f"{detector}: area {known}{area} for the one that does, which fools the classifier on "
            f"{(attacked['outcome'] == FOOLED).mean():.1%} of {len(attacked)} images: {left}."
        )


def _tabulate_areas(results: Results) -> SummaryTable:
    attacks = list(dict.fromkeys(attack for of in results.values() for attack in of if attack != EVADING))
    lines: list[tuple[Cell, ...]] = [
        (detector, *(of[attack].from_clean if attack in of else None for attack in (*attacks, EVADING)))
        for detector, of in results.items()
    ]
    caption = (
        "Area under the curve of each detector's score, attacked images against clean ones (0.5 is chance; the "
        "intervals are DeLong's). The last column is the attack that has the score in its loss."
    )
    return SummaryTable(caption, ("detector", *attacks, EVADING), lines)


def _tabulate_flagged(results: Results, false: Mapping[str, Mapping[float, Interval]]) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for detector, of in results.items():
        lines.append((detector, CLEAN, None, *map(false[detector].get, LEVELS), *(None for _ in LEVELS)))
        lines += [
            (detector, attack, told.from_noisy, *map(told.flagged.get, LEVELS), *map(told.noisy_flagged.get, LEVELS))
            for attack, told in of.items()
        ]
    caption = (
        "Shares of images that are flagged where so many false positives are asked for, among those that fool the "
        "classifier and among clean images with as much noise, and the area under the curve of the ones against the "
        "others. In the lines of clean images: the false positives there were."
    )
    levels = [f"{level:.0%}" for level in LEVELS]
    headings = ("detector", "attack", "against noisy", *(f"flagged at {level}" for level in levels))
    return SummaryTable(caption, (*headings, *(f"noisy flagged at {level}" for level in levels)), lines)


def _tabulate_attacks(rows: pd.DataFrame, seed: int) -> SummaryTable:
    """List how often each attack fools the classifier, and how large its perturbations are."""
    lines: list[tuple[Cell, ...]] = []
    attacked = rows[(rows["attack"] != CLEAN) & (rows["outcome"] != ALREADY_WRONG)]
    for attack, of_attack in _groups(attacked, "attack"):
        for detector, group in _groups(of_attack, "detector"):
            fooled = (group["outcome"] == FOOLED).to_numpy(dtype="float64")
            (share,) = bootstrap_means(torch.tensor(fooled).unsqueeze(1), seed=seed)
            norms = [float(group[norm].median()) for norm in ("l2", "linf")]
            lines.append((str(attack), str(detector) if attack == EVADING else "", share, *norms))
            if attack != EVADING:
                break
    caption = "How often each attack fools the classifier, and the median norms of its perturbations where it does."
    return SummaryTable(caption, ("attack", "knows", "fooled", "median ℓ2", "median ℓ∞"), lines)
