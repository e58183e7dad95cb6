"""Whether perturbations lie where class activation maps are high (Xu et al. 2019, fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.boxes import Box, boxes_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import MethodError, bad_parameter
from whyfooled.perturbation import interpretability_curve
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import check_attacks, check_target
from whyfooled.studies.parts.defaults import CAMS, NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, fooled_by, who_was_fooled
from whyfooled.studies.parts.maps import compute_maps, scatter_maps
from whyfooled.studies.parts.over_images import check_some_method
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.tensors.randomness import image_generators, normal
from whyfooled.tensors.statistics import FEWEST, Interval, bootstrap_means

BEFORE, AFTER = "true class on the clean image", "promoted class on the adversarial image"
_NUMBERS = ("score", "chance", "random", "mirrored")


@final
@dataclass(frozen=True)
class InterpretabilityScores(Study):
    """Measure how much of each attack's perturbation lies in the discriminative regions of class activation maps.

    Two maps are looked at: that of the true class on the clean image, and that of the class that the perturbation
    promotes (the target; without one, the class reached) on the adversarial image. Only images that the attack fools
    the classifier on count. Each score is held against its chance level, against a random perturbation's, and against
    the same perturbation's on the mirrored map.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    methods
        Saliency methods; class activation maps in the paper.
    quantile
        Which share of a map's pixels is its discriminative region. [ours]
    quantiles
        The shares at which the score is tabulated beside that one. [ours]
    """

    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    methods: tuple[Any, ...] = CAMS
    quantile: float = 0.3
    quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)

    card: ClassVar[Card] = Card(
        name="interpretability-score",
        title="Perturbations and class activation maps",
        summary="How much of a perturbation lies where a class activation map is high.",
        source="Xu et al. 2019, arXiv 1904.02057, fig. 5",
        cost="the attacks, and the methods' maps of the clean and of every attacked image",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "reached": "flag",
        "true_class": "whole",
        "promoted_class": "whole",
        "l2": "real",
        "method": "text",
        "map": "text",
        "quantile": "real",
        "main": "flag",
        **dict.fromkeys(_NUMBERS, "real"),
    }
    headline: ClassVar[str] = "score"

    def __post_init__(self) -> None:
        check_methods(self.methods)
        check_target(self.target)
        check_attacks(self.attacks)
        for name, values in (("quantile", (self.quantile,)), ("quantiles", self.quantiles)):
            if not all(0 < value <= 1 for value in values):
                raise bad_parameter(name, "must be a share of the pixels, above 0 and at most 1", list(values))

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and score the perturbations of the images that were fooled."""
        rows: list[dict[str, Any]] = []
        kept: dict[str, Tensor] = {}
        for fooled in fooled_by(classifier, batch, self.attacks, self.target):
            rows += fooled.others()
            if not fooled.places:
                continue
            facts = {
                "reached": fooled.result.success,
                "true_class": fooled.true,
                "promoted_class": fooled.target,
                "l2": (fooled.result.attempted - fooled.result.clean).flatten(1).norm(dim=1),
            }
            for name, kind, maps in self._maps(classifier, fooled):
                if isinstance(maps, MethodError):
                    rows += fooled.rows(facts, method=name, error=f"{name}: {maps}")
                    continue
                kept[f"{fooled.attack}/{name}/{kind}"] = scatter_maps(maps, fooled.places, len(batch.images))
                for size, numbers in self._scores(fooled.result, maps, batch.seed):
                    main = size == self.quantile
                    rows += fooled.rows(facts | numbers, method=name, map=kind, quantile=size, main=main)
        return Measured(rows, kept)

    def _maps(self, classifier: Classifier, fooled: Fooled) -> Iterator[tuple[str, str, Tensor | MethodError]]:
        """Compute (m,d,h,w) the two maps of every method; enhanced ones hold one of the classes against the other."""
        refused = set()
        for name, maps in compute_maps(self.methods, classifier, fooled.result.clean, fooled.true, fooled.target):
            yield name, BEFORE, maps
            if isinstance(maps, MethodError):
                refused.add(name)
        for name, maps in compute_maps(self.methods, classifier, fooled.result.attempted, fooled.target, fooled.true):
            # A reason is given once.
            if name not in refused:
                yield name, AFTER, maps

    def _scores(self, result: AttackResult, maps: Tensor, seed: int) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """Score the perturbations by maps (m,d,h,w): for each size of the region, (m,) each of `_NUMBERS`."""
        sizes = tuple(sorted({*self.quantiles, self.quantile}))
        delta = result.attempted - result.clean
        # The score does not depend on a perturbation's norm, so a direction is enough.
        direction = normal(result.clean, image_generators(result.clean, seed))
        own, random, mirrored = (
            interpretability_curve(one, cam, sizes)
            for one, cam in ((delta, maps), (direction, maps), (delta, maps.flip(-1)))
        )
        columns = (own.score, own.chance, random.score, mirrored.score)
        for number, size in enumerate(sizes):
            yield size, {name: values[:, number] for name, values in zip(_NUMBERS, columns, strict=True)}

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take the scores under the first method."""
        main = [row for row in rows if row.get("main")]
        return [row["score"] for row in main if row["method"] == main[0]["method"]]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means of scores and of what they are held against, for every attack, method and map; curves over the size."""
        who = who_was_fooled(table)
        check_some_method(table)
        rows = _measured(table)
        size = float(rows.loc[rows["main"], "quantile"].iloc[0])
        found = [_compared(labels, own, seed) for labels, own in _groups(rows[rows["main"]])]
        sentences = [
            f"{who} {_goals_reached(rows)}",
            f"A map's discriminative region is the top {100 * size:g} % of its pixels, less where many tie. "
            "Chance is the share of the pixels that are in it; a random perturbation is as large as the attack's; and "
            "the mirrored map keeps what maps and perturbations have in common because objects stand in the middle.",
            *(_verdict(kind, [one for one in found if one.kind == kind]) for kind in (BEFORE, AFTER)),
        ]
        return Summary(tuple(sentences), (_table(found), _curves(rows, seed)))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw the scores as boxes, by attack and method, a panel for each of the two maps."""
        rows = _measured(table)
        panels: dict[str, dict[str, dict[str, Box]]] = {}
        for (attack, method, kind), own in _groups(rows[rows["main"]]):
            controls = {
                "random perturbation": own["random"].to_numpy(),
                "the perturbation on the mirrored map": own["mirrored"].to_numpy(),
            }
            box = Box(own["score"].to_numpy(), controls, float(own["chance"].mean()))
            panels.setdefault(f"map of the {kind}", {}).setdefault(attack, {})[method] = box
        return boxes_figure(panels, y="interpretability score", chance="chance")


def _measured(table: Table) -> pd.DataFrame:
    rows = table.read(["index", "attack", "reached", "method", "map", "quantile", "main", *_NUMBERS])
    rows = rows[rows["method"].notna()]
    return rows.assign(main=rows["main"].astype(bool))


def _groups(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Go through the rows of each attack, method and map, in the order in which the table has them first."""
    for (attack, method, kind), own in rows.groupby(["attack", "method", "map"], observed=True):
        yield (str(attack), str(method), str(kind)), own


@dataclass(frozen=True)
class _Compared:
    """The mean score of one attack, method and map, its chance level, and what it is above three references."""

    attack: str
    method: str
    kind: str
    score: Interval
    chance: Interval
    over_chance: Interval
    over_random: Interval
    over_mirrored: Interval


def _compared(labels: tuple[str, str, str], rows: pd.DataFrame, seed: int) -> _Compared:
    score, chance, random, mirrored = torch.tensor(rows[list(_NUMBERS)].to_numpy(dtype="float64")).T
    values = torch.stack([score, chance, score - chance, score - random, score - mirrored], dim=1)
    return _Compared(*labels, *bootstrap_means(values, seed=seed))


def _goals_reached(rows: pd.DataFrame) -> str:
    images = rows.drop_duplicates(["index", "attack"]).assign(reached=lambda own: own["reached"].astype(bool))
    reached = images.groupby("attack", observed=True)["reached"].sum()
    return f"Their goal was reached on {', '.join(f'{count} ({attack})' for attack, count in reached.items())}."


def _verdict(kind: str, found: Sequence[_Compared]) -> str:
    known = [one for one in found if one.score.count >= FEWEST]
    question = f"Does most of a perturbation's energy lie where the map of the {kind} is high?"
    if not known:
        return f"{question} Of fewer than {FEWEST} images nothing can be said."
    more, less = sum(one.score.low > 0.5 for one in known), sum(one.score.high < 0.5 for one in known)
    answer = "Yes" if more == len(known) else "No" if less == len(known) else "Not in general"
    best, worst = max(known, key=lambda one: one.score.mean), min(known, key=lambda one: one.score.mean)
    return (
        f"{question} {answer}: it is more than half in {more} of {len(known)} pairs of attack and method, less than "
        f"half in {less}. It is {_against('chance', [one.over_chance for one in known])}; "
        f"{_against('what a random perturbation has', [one.over_random for one in known])}; "
        f"{_against('what lies on the mirrored map', [one.over_mirrored for one in known])} (by intervals of the "
        f"paired differences that leave out 0). The highest mean is {best.score} ({best.attack}, {best.method}; chance "
        f"{best.chance.mean:.3f}), the lowest {worst.score} ({worst.attack}, {worst.method}; chance "
        f"{worst.chance.mean:.3f})."
    )


def _against(reference: str, differences: Sequence[Interval]) -> str:
    above, below = sum(one.low > 0 for one in differences), sum(one.high < 0 for one in differences)
    return f"above {reference} in {above} and below it in {below}"


def _table(found: Sequence[_Compared]) -> SummaryTable:
    against = ("minus chance", "minus random", "minus mirrored")
    lines: list[tuple[Cell, ...]] = [
        (
            one.kind,
            one.attack,
            one.method,
            one.score,
            one.chance.mean,
            one.over_chance,
            one.over_random,
            one.over_mirrored,
        )
        for one in sorted(found, key=lambda one: one.kind != BEFORE)
    ]
    caption = (
        "Interpretability score: the share of the perturbation's energy in the map's discriminative region; chance: "
        "the share of the pixels there; and the paired differences to chance, to a random perturbation, and to the "
        "mirrored map. Means over the images that the attack fools the classifier on."
    )
    return SummaryTable(
        caption, ("map of the", "attack", "method", "score", "chance", *against), lines, frozenset(against)
    )


def _curves(rows: pd.DataFrame, seed: int) -> SummaryTable:
    sizes = sorted(rows["quantile"].unique())
    rows = rows.assign(over=rows["score"] - rows["chance"])
    lines: list[tuple[Cell, ...]] = []
    for (attack, method, kind), own in _groups(rows):
        spread_out = own.pivot_table(index="index", columns="quantile", values=["score", "over"], observed=True)
        columns = [(value, size) for size in sizes for value in ("score", "over")]
        values = torch.tensor(spread_out.reindex(columns=columns).to_numpy(dtype="float64"))
        lines.append((kind, attack, method, *bootstrap_means(values, seed=seed)))
    headings = [(f"top {100 * size:g} %", f"top {100 * size:g} %, minus chance") for size in sizes]
    return SummaryTable(
        "The score over the size of the discriminative region: the top pixels of the map that it has.",
        ("map of the", "attack", "method", *(one for pair in headings for one in pair)),
        sorted(lines, key=lambda line: line[0] != BEFORE),
        frozenset(minus for _, minus in headings),
    )
