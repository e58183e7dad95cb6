"""Whether a perturbation is large where it has an effect (Xu et al. 2019, fig. 3).

A correlation alone does not say that an attack puts its perturbation where the classifier is sensitive: any larger
change moves the logits further. So noise of the same size in every region is measured beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.curves import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.perturbation import Grid, Sensitivity, region_labels, sensitivity
from whyfooled.perturbation.regions import Labels, region_norms
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import FOOLED, check_attacks, check_target
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, fooled_by, fooled_headline, who_was_fooled
from whyfooled.studies.parts.over_images import by_image, differences, highest, means
from whyfooled.studies.study import Batch, Measured, Study
from whyfooled.studies.table import Columns, Table
from whyfooled.tensors.measures import kendall_correlation, pearson_correlation
from whyfooled.tensors.randomness import image_generators, normal
from whyfooled.tensors.statistics import FEWEST, Interval
from whyfooled.types import Images

ATTACK, NOISE = "attack", "noise"
_STATISTICS = {"pearson": ("Pearson", pearson_correlation), "kendall": ("Kendall", kendall_correlation)}
_NORMS = {"l2": "ℓ2", "linf": "ℓ∞"}
_OVER = {"touched": "touched regions", "all": "all regions"}
_MEASURES = {
    f"{statistic}_{norm}": f"{name}, {sign}"
    for norm, sign in _NORMS.items()
    for statistic, (name, _) in _STATISTICS.items()
}
_MAIN, _MAIN_NAME, _MAIN_OVER = "pearson_l2_touched", "Pearson, ℓ2", "touched"


_RESOLUTION = 1e-6
"""Norms that differ by less, of values in [0, 1] in single precision, are ties. [ours]"""


@final
@dataclass(frozen=True)
class SensitivityCorrelation(Study):
    """Correlate, over the regions of an image, the size of the perturbation with its effect on the logits.

    For each image that fools the classifier: Pearson's and Kendall's correlation of the sensitivity score (how far the
    perturbation in a region holds the true class down and lifts the target) with the ℓ2 and with the ℓ∞ norm of the
    perturbation in the region. Over all regions, as in the paper, and over the regions that the perturbation touches
    alone: where it is 0 its effect is 0 too, so that every untouched region of a sparse attack raises the former. There
    is no correlation with a norm that is the same in all regions, as ℓ∞ is where a perturbation fills its ball.

    Parameters
    ----------
    attacks
        What fools the classifier; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    cell
        Side of the square regions, in pixels; as in `whyfooled.perturbation.Grid` if None.
    check_gradient
        Whether to compare the sensitivity with that to first order, which takes two backward passes and no evaluation
        of any region. [ours]
    control
        Whether to measure noise too, which has the ℓ2 norm of the perturbation in every region (up to the bounds of the
        image) and nothing else in common with it; on the same classes. [ours]
    """

    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    cell: int | None = None
    check_gradient: bool = True
    control: bool = True

    card: ClassVar[Card] = Card(
        name="sensitivity-correlation",
        title="Sensitivity and size of perturbations",
        summary="Whether a perturbation is large in the regions in which it has an effect.",
        source="Xu et al. 2019, arXiv 1904.02057, fig. 3",
        cost="the attacks, and a forward pass for each region that a perturbation touches; twice that with the control",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "perturbation": "text",
        "l2": "real",
        "regions": "whole",
        "touched": "whole",
        **dict.fromkeys((f"{measure}_{over}" for measure in _MEASURES for over in _OVER), "real"),
        "gradient_rank": "real",
        "gradient_signed": "real",
    }
    headline: ClassVar[str] = "fooled"

    def __post_init__(self) -> None:
        check_attacks(self.attacks)
        check_target(self.target)
        Grid(self.cell)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and take each perturbation, and noise of its size, out of each region in turn."""
        rows: list[dict[str, Any]] = []
        for fooled in fooled_by(classifier, batch, self.attacks, self.target):
            rows += fooled.others()
            if fooled.places:
                rows += self._correlated(classifier, fooled, batch.seed)
        return Measured(rows)

    def _correlated(self, classifier: Classifier, fooled: Fooled, seed: int) -> Iterator[dict[str, Any]]:
        clean, changed = fooled.result.clean, fooled.result.attempted
        labels = region_labels(Grid(self.cell), clean)
        found = sensitivity(classifier, clean, changed, fooled.true, fooled.target, labels)
        numbers = _numbers(found)
        if self.check_gradient:
            first = sensitivity(classifier, clean, changed, fooled.true, fooled.target, labels, method="gradient")
            numbers |= {"gradient_rank": found.rank_correlation(first), "gradient_signed": _signed(found, first)}
        yield from fooled.rows(numbers, perturbation=ATTACK)
        if self.control:
            noisy = _noisy(clean, changed, labels, seed)
            found = sensitivity(classifier, clean, noisy, fooled.true, fooled.target, labels)
            yield from fooled.rows(_numbers(found), perturbation=NOISE)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier."""
        return fooled_headline(rows)

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Mean correlations of each attack, paired differences to noise and to the highest, and the gradient's."""
        sentences = [
            who_was_fooled(table),
            "Where the effect has nothing to do with the size of the perturbation, the expected correlation is 0. It "
            "is above 0 for plain noise too, because a larger change moves the logits further whatever it is.",
        ]
        rows = _measured(table)
        tables = [
            _table(
                rows,
                "touched",
                "Correlation of the sensitivity score with the norm of the perturbation, over the regions of an image "
                "that the perturbation touches; and paired differences.",
                seed,
            ),
            _table(rows, "all", "The same over all regions, of which untouched ones have neither.", seed),
            _sizes_table(rows, seed),
        ]
        sentences += _verdicts(rows, seed)
        if rows["gradient_rank"].notna().any():
            tables.append(_gradient_table(rows, seed))
        return Summary(tuple(sentences), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw each attack's mean correlations, over the touched and over all regions; a panel for each measure."""
        rows = _measured(table)
        panels: dict[str, dict[str, dict[str, Interval]]] = {}
        for measure, name in _MEASURES.items():
            marks = {
                f"{kind}, {over_name}": means(*by_image(own, "attack", f"{measure}_{over}"), seed)
                for kind, own in _by_perturbation(rows)
                for over, over_name in _OVER.items()
            }
            attacks = next(iter(marks.values()))
            panels[name] = {attack: {mark: found[attack] for mark, found in marks.items()} for attack in attacks}
        x = "correlation of a region's effect with the size of the perturbation in it"
        return intervals_figure(panels, x=x, shared=True)


def _numbers(found: Sensitivity) -> dict[str, Tensor]:
    """Return what is measured of each image."""
    score, exists, touched = found.score, found.sizes > 0, found.touched
    numbers = {
        "l2": found.l2.double().norm(dim=1),
        "regions": exists.sum(1),
        "touched": touched.sum(1),
    }
    for norm, size in (("l2", found.l2), ("linf", found.linf)):
        # A perturbation that fills its ball is equally large everywhere, but for the rounding of the image's values.
        size = (size.double() / _RESOLUTION).round()
        for statistic, (_, correlation) in _STATISTICS.items():
            numbers[f"{statistic}_{norm}_touched"] = correlation(score, size, touched)
            numbers[f"{statistic}_{norm}_all"] = correlation(score, size, exists)
    return numbers


def _signed(found: Sensitivity, other: Sensitivity) -> Tensor:
    """Return (n,) Pearson's correlation of the effects on both logits, signs included, over touched regions."""
    changes = [torch.cat([one.true_change, one.target_change], dim=1) for one in (found, other)]
    return pearson_correlation(changes[0], changes[1], found.touched.repeat(1, 2))


def _noisy(clean: Images, changed: Images, labels: Labels, seed: int) -> Images:
    """Add noise to the clean images that is as large (ℓ2) in each region as the perturbation."""
    noise = normal(clean, image_generators(clean, seed))
    wanted, drawn = (region_norms(one, labels)[0] for one in (changed - clean, noise))
    scale = (wanted / drawn).gather(1, labels.flatten(1)).view(labels.shape).unsqueeze(1)
    return (clean + scale * noise).clamp(0, 1)


def _measured(table: Table) -> pd.DataFrame:
    return table.read(where=[("outcome", "==", FOOLED)])


def _by_perturbation(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    return ((kind, own) for kind in (ATTACK, NOISE) if len(own := rows[rows["perturbation"] == kind]))


def _attacks_alone(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["perturbation"] == ATTACK]


def _minus_noise(rows: pd.DataFrame, seed: int) -> dict[str, Interval]:
    """Return how much higher the main correlation is than that of noise, image by image; empty without the control."""
    kinds = dict(_by_perturbation(rows))
    if NOISE not in kinds:
        return {}
    attacks, values = by_image(kinds[ATTACK], "attack", _MAIN)
    order, noise = by_image(kinds[NOISE], "attack", _MAIN)
    return means(attacks, values - noise[:, [order.index(attack) for attack in attacks]], seed)


def _table(rows: pd.DataFrame, over: str, caption: str, seed: int) -> SummaryTable:
    """List every perturbation's correlations over some of the regions, with differences of the main one."""
    attacks, values = by_image(_attacks_alone(rows), "attack", _MAIN)
    best = highest(means(attacks, values, seed))
    against = {attack: one for attack, one in differences(attacks, values, best, seed).items() if attack != best}
    noise = _minus_noise(rows, seed)
    lines: list[tuple[Cell, ...]] = []
    for kind, own in _by_perturbation(rows):
        found = [means(*by_image(own, "attack", f"{measure}_{over}"), seed) for measure in _MEASURES]
        for attack in found[0]:
            cells: list[Cell] = [attack if kind == ATTACK else f"noise as large as {attack}"]
            cells += [one[attack] for one in found]
            if over == _MAIN_OVER:
                cells += [one.get(attack) if kind == ATTACK else None for one in (against, noise)]
            lines.append(tuple(cells))
    differing = (f"{_MAIN_NAME}: minus {best}", f"{_MAIN_NAME}: minus noise") if over == _MAIN_OVER else ()
    return SummaryTable(caption, ("perturbation", *_MEASURES.values(), *differing), lines, signed=frozenset(differing))


def _sizes_table(rows: pd.DataFrame, seed: int) -> SummaryTable:
    own = _attacks_alone(rows)
    regions, touched, l2 = (means(*by_image(own, "attack", column), seed) for column in ("regions", "touched", "l2"))
    lines = [(attack, regions[attack], touched[attack], l2[attack]) for attack in regions]
    return SummaryTable("The perturbations.", ("attack", "regions", "touched regions", "ℓ2 norm"), lines)


def _gradient_table(rows: pd.DataFrame, seed: int) -> SummaryTable:
    own = _attacks_alone(rows)
    rank, signed = (means(*by_image(own, "attack", column), seed) for column in ("gradient_rank", "gradient_signed"))
    caption = (
        "How the sensitivity to first order (gradient times perturbation) agrees with the exact one, over touched "
        "regions: Spearman's correlation of the scores, and Pearson's of the changes of both logits with their signs."
    )
    lines = [(attack, rank[attack], signed[attack]) for attack in rank]
    return SummaryTable(caption, ("attack", "scores (Spearman)", "signed changes (Pearson)"), lines)


def _verdicts(rows: pd.DataFrame, seed: int) -> Iterator[str]:
    found = means(*by_image(_attacks_alone(rows), "attack", _MAIN), seed)
    ranked = sorted(found.items(), key=lambda pair: -pair[1].mean if pair[1].count else 1.0)
    listed = ", ".join(f"{attack} {value}" for attack, value in ranked)
    yield f"Pearson's correlation with the ℓ2 norm, over touched regions: {listed}."
    for attack, own in _attacks_alone(rows).groupby("attack", observed=True, sort=False):
        flat = int(own[f"pearson_linf_{_MAIN_OVER}"].isna().sum())
        if flat:
            yield (
                f"{attack}: on {flat} of {len(own)} images the ℓ∞ norm is the same in every region, and nothing can "
                "correlate with it."
            )
    noise = _minus_noise(rows, seed)
    sides: dict[str, list[str]] = {}
    for attack, value in noise.items():
        if value.count >= FEWEST:
            sides.setdefault(_side(value), []).append(attack)
    if noise and not sides:
        yield f"Of fewer than {FEWEST} images nothing can be said about which attacks differ from noise of their size."
    for side, attacks in sides.items():
        names = ", ".join(attacks)
        yield f"Under {names} {side} noise of the same size in every region."


def _side(value: Interval) -> str:
    if value.low <= 0 <= value.high:
        return "no difference is seen between how the effect goes with size and how it does under"
    return f"the effect goes with size {'more' if value.low > 0 else 'less'} than under"
