"""What a dissection came to, in sentences and tables, beside what chance gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.units.dissection.results import DissectedLayer, DissectionRecord

TITLE = "Network dissection"
MUCH = 0.5
"""From which share of a layer's detectors on chance alone is said to give many of them. [ours]"""

FEW = 0.25
"""From which share of all detectors on, if they rest on one image each, that is said. [ours]"""

_LAYERS = 6
_STRONGEST = 10
_NAMED = 5


@final
@dataclass(frozen=True, eq=False)
class Chance:
    """How many detectors a layer has, and how many when the annotations are permuted among the images.

    Parameters
    ----------
    observed
        Its detectors.
    counts
        (r,) The detectors of each permutation.
    """

    observed: int
    counts: Int[Tensor, " r"]

    @property
    def mean(self) -> float:
        """Mean over the permutations; NaN without any."""
        return float(self.counts.double().mean())

    @property
    def p_value(self) -> float:
        """How likely chance gives as many: ``(1 + #{counts ≥ observed}) / (1 + r)``; NaN without permutations."""
        if not len(self.counts):
            return float("nan")
        return (1 + int((self.counts >= self.observed).sum())) / (1 + len(self.counts))

    def text(self) -> str:
        """Write the mean and the range."""
        if not len(self.counts):
            return "–"
        return f"{self.mean:.1f} ({int(self.counts.min())} to {int(self.counts.max())})"


def count_detectors_by_chance(layer: DissectedLayer, cutoff: float) -> Chance:
    """Count a layer's detectors at a cutoff, and those of each permutation at the same one."""
    return Chance(int(layer.detectors(cutoff).sum()), (layer.null_iou > cutoff).sum(1))


def count_above_all(layer: DissectedLayer, cutoff: float) -> Chance:
    """Count a layer's detectors with a larger IoU than under every permutation, and what chance gives of them.

    By chance, any permutation might as well be the annotations as they are: of each, the units count that detect a
    concept and have a larger IoU than under all others, the annotations as they are among them. [ours]
    """
    iou = torch.cat([layer.best_iou[None], layer.null_iou])
    first, second = iou.topk(2, dim=0).values
    counts = ((iou == first) & (first > second) & (iou > cutoff)).sum(1)
    return Chance(int(counts[0]), counts[1:])


def find_concepts_in_reach(layer: DissectedLayer, area: Int[Tensor, " c"], cutoff: float) -> Bool[Tensor, " c"]:
    """Tell which concepts some unit of a layer is active on enough pixels, and not on too many, to detect.

    Of A active pixels and L that show the concept, IoU is at most ``min(A, L) / max(A, L)``. A unit that is active on
    half a per cent of the pixels cannot detect what fills a third of them, whatever it does. [ours]
    """
    # Active pixels in the images in which the concept's category is annotated.
    active = (layer.union + layer.both - area).double()
    ceiling = torch.minimum(active, area.double()) / torch.maximum(active, area.double()).clamp(min=1)
    return (ceiling > cutoff).any(0)


def dissection_summary(dissection: DissectionRecord) -> Summary:
    """Write up a dissection: what was found, what must be known to believe it, and tables."""
    tables = (_tabulate_layers(dissection), _tabulate_categories(dissection), _tabulate_strongest(dissection))
    return Summary(tuple(_write_sentences(dissection)), tuple(table for table in tables if table.rows))


def _write_sentences(dissection: DissectionRecord) -> Iterator[str]:
    shown, units = int((dissection.area > 0).sum()), sum(one.layer.units for one in dissection.layers)
    yield (
        f"{dissection.parameters.get('model', '')}: {_count(units, 'unit')} of "
        f"{_count(len(dissection.layers), 'layer')}, compared with {_count(shown, 'concept')} of "
        f"{_count(len(dissection.categories), 'category', 'categories')} in "
        f"{_count(len(dissection.images), 'image')}."
    )
    ranked = sorted(dissection.layers, key=lambda one: -int(one.detectors(dissection.cutoff).sum()))
    told = dissection.layers if len(ranked) <= _LAYERS else ranked[:_LAYERS]
    yield from (_write_layer_sentence(dissection, one) for one in told)
    if len(told) < len(ranked):
        yield f"These {len(told)} layers have the most detectors; the table has all {len(ranked)}."
    yield from _write_on_chance(dissection)
    yield from _write_on_few_images(dissection)
    yield from _write_on_reach(dissection)
    yield from _write_on_silent(dissection)
    yield from dissection.notes


def _write_layer_sentence(dissection: DissectionRecord, dissected: DissectedLayer) -> str:
    chance = count_detectors_by_chance(dissected, dissection.cutoff)
    detected = dissected.best[dissected.detectors(dissection.cutoff)]
    text = f"{dissected.layer.name}: {chance.observed} of {_count(dissected.layer.units, 'unit')} detect a concept"
    text += f" (IoU above {dissection.cutoff:g})"
    if len(detected):
        concepts, counts = torch.unique(detected, return_counts=True)
        order = counts.argsort(descending=True, stable=True)[:3].tolist()
        most = ", ".join(f"{dissection.concepts[int(concepts[i])]} ({int(counts[i])})" for i in order)
        alone = dissection.concepts[int(concepts[0])]
        text += f", {len(concepts)} different ones, most often {most}" if len(concepts) > 1 else f", always {alone}"
    if not len(chance.counts):
        return f"{text}."
    text += f"; by chance {chance.text()} would, p {chance.p_value:.3f}"
    if not len(detected):
        return f"{text}."
    above = count_above_all(dissected, dissection.cutoff)
    have = "has" if above.observed == 1 else "have"
    return f"{text}. {above.observed} of them {have} a larger IoU than in any permutation; by chance {above.text()}."


def _write_on_chance(dissection: DissectionRecord) -> Iterator[str]:
    permutations = len(dissection.layers[0].null_iou)
    if not permutations:
        yield "There were no permutations, so nothing here says how many detectors chance gives."
        return
    yield (
        f"By chance: the annotations are permuted among the images, {_count(permutations, 'time')}, and the detectors "
        f"counted again: mean, and range. p cannot be below {1 / (1 + permutations):.3f} then."
    )
    chances = {one.layer.name: count_detectors_by_chance(one, dissection.cutoff) for one in dissection.layers}
    many = [name for name, one in chances.items() if one.observed and one.mean >= MUCH * one.observed]
    if many:
        yield (
            f"Chance alone gives at least half as many detectors in {list_names(many)}: to be active where in a "
            "picture such things mostly are is enough there. Which of them do is not known: look at each unit's own p."
        )


def _write_on_few_images(dissection: DissectionRecord) -> Iterator[str]:
    alone = torch.cat([one.in_one_image[one.detectors(dissection.cutoff)] > 0.5 for one in dissection.layers])
    if len(alone) and float(alone.double().mean()) >= FEW:
        yield (
            f"{int(alone.sum())} of {_count(len(alone), 'detector')} share more than half of their pixels with the "
            "concept in one image alone, so what they detect may be that image. More images would tell."
        )


def _write_on_reach(dissection: DissectionRecord) -> Iterator[str]:
    reached = torch.stack(
        [find_concepts_in_reach(one, dissection.area, dissection.cutoff) for one in dissection.layers]
    ).any(0)
    missed = ((dissection.area > 0) & ~reached).nonzero()[:, 0]
    if len(missed):
        largest = missed[dissection.area[missed].argsort(descending=True, stable=True)].tolist()
        yield (
            f"No unit here can detect {list_names([dissection.concepts[index] for index in largest])}, whatever it "
            "does: units are active on far fewer, or far more, pixels than show it, so the IoU stays under the cutoff."
        )


def _write_on_silent(dissection: DissectionRecord) -> Iterator[str]:
    dead = sum(int(one.dead.sum()) for one in dissection.layers)
    never = sum(int(_find_never_active(one).sum()) for one in dissection.layers)
    if dead:
        yield f"{_count(dead, 'unit')} gave the same everywhere, in all images (dead)."
    if never:
        yield f"{_count(never, 'unit')} gave the largest activation too often to exceed a threshold (never active)."


def _find_never_active(dissected: DissectedLayer) -> Bool[Tensor, " u"]:
    return (dissected.above == 0) & ~dissected.dead


def _tabulate_layers(dissection: DissectionRecord) -> SummaryTable:
    rows = []
    for dissected in dissection.layers:
        chance = count_detectors_by_chance(dissected, dissection.cutoff)
        detectors = dissected.detectors(dissection.cutoff)
        rows.append(
            (
                dissected.layer.name,
                dissected.layer.units,
                int(dissected.dead.sum()),
                int(_find_never_active(dissected).sum()),
                chance.observed,
                chance.text(),
                chance.p_value,
                len(torch.unique(dissected.best[detectors])),
                int(find_concepts_in_reach(dissected, dissection.area, dissection.cutoff).sum()),
                float(dissected.best_iou[detectors].mean()),
                float(dissected.best_iou.mean()),
                float(dissected.null_iou.double().mean()),
            )
        )
    caption = (
        f"Units whose best IoU is above {dissection.cutoff:g} (detectors), how many chance gives (mean, range), and "
        "how many concepts they detect, of those that some unit could. IoU of all units: the mean of their best."
    )
    headings = ("layer", "units", "dead", "never active", "detectors", "by chance", "p", "concepts", "in reach")
    return SummaryTable(caption, (*headings, "IoU of detectors", "IoU of all units", "by chance, of all"), rows)


def _tabulate_categories(dissection: DissectionRecord) -> SummaryTable:
    category_of = torch.tensor(dissection.category_of)
    rows: list[tuple[Cell, ...]] = []
    for dissected in dissection.layers:
        detectors = dissected.detectors(dissection.cutoff)
        best, iou = dissected.best[detectors], dissected.best_iou[detectors]
        reach = find_concepts_in_reach(dissected, dissection.area, dissection.cutoff)
        for number, name in enumerate(dissection.categories):
            of = category_of == number
            mine = of[best]
            if not (dissection.area[of] > 0).any():
                continue
            counts = (len(torch.unique(best[mine])), int(reach[of].sum()), int((dissection.area[of] > 0).sum()))
            rows.append((dissected.layer.name, name, *counts, int(mine.sum()), float(iou[mine].mean())))
    columns = ("layer", "category", "concepts detected", "in reach", "shown", "detectors", "IoU of detectors")
    return SummaryTable("Concepts that some unit detects, by category, and the units that do.", columns, rows)


def _tabulate_strongest(dissection: DissectionRecord) -> SummaryTable:
    frame = dissection.to_frame()
    frame = frame[frame["detector"]].sort_values("iou", ascending=False, kind="stable").head(_STRONGEST)
    columns = ["layer", "unit", "concept", "category", "iou", "chance_iou", "p", "active_images", "in_one_image"]
    headings = ("layer", "unit", "concept", "category", "IoU", "chance IoU", "p", "images", "share of one image")
    rows: list[tuple[Cell, ...]] = [tuple(row) for row in frame[columns].itertuples(index=False, name=None)]
    caption = (
        f"The {len(rows)} detectors with the largest IoU, beside what chance gives their best one (mean; p: how often "
        "as much, not corrected for the number of units); in how many images they are active, and how much of the "
        "overlap lies in one."
    )
    return SummaryTable(caption, headings, rows)


def list_names(names: Sequence[str]) -> str:
    """Write names one after another, at most five, and how many more there are."""
    rest = len(names) - _NAMED
    if rest > 0:
        return f"{', '.join(names[:_NAMED])} and {rest} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
