"""How suppression and promotion share the effect of a perturbation, and what attacks differ in (Xu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.bars import bars_figure
from whyfooled.drawing.style import KIND_COLOURS
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import one_of
from whyfooled.perturbation import KINDS, Grid, Sensitivity, sensitivity
from whyfooled.perturbation.sensitivity import Method, check_shares
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import FOOLED, check_attacks, check_target
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, fooled_by, fooled_headline, who_was_fooled
from whyfooled.studies.parts.over_images import by_image, means
from whyfooled.studies.study import Batch, Measured, Study
from whyfooled.studies.table import Columns, Table
from whyfooled.tensors.statistics import FEWEST, Interval, variance_explained
from whyfooled.types import PerImage

_SHOWN = ("suppression", "balanced", "promotion", "inert")
"""The kinds in the order of their ratio, and what has none."""
_CONCENTRATION = {
    "half": "regions with half of the effect",
    "most": "regions with 80 % of the effect",
    "half_share": "share of the regions with half",
    "most_share": "with 80 %",
    "untouched": "untouched",
    "idle": "share of the touched that are inert",
}
_LOGITS = {
    "true_fall": "true class falls by",
    "target_rise": "target rises by",
    "explained": "sum of the regions over the whole",
    "against": "share against the attack",
}
_COMPARED = {
    "held_down": "share of the effect that holds the true class down",
    "suppression": "share of the effect in suppression regions",
    "promotion": "share in promotion regions",
    "balanced": "share in balanced regions",
    "most_share": "share of the regions with 80 % of the effect",
    "untouched": "share of untouched regions",
    "idle": "share of touched regions that are inert",
    "explained": "sum of the regions' effects over the whole",
    "against": "share of the effect against the attack",
}
"""What attacks are compared in: shares and ratios, which do not grow with the size of the perturbation alone."""


@final
@dataclass(frozen=True)
class EffectMix(Study):
    """Part the effect of a perturbation on the logits by regions, and by what it mostly does in each.

    For each image that fools the classifier, the sensitivity score of a region is how far the perturbation in it holds
    the true class down and lifts the target, in logits; the effect is the sum of all scores. Measured are the shares of
    the effect in regions of suppression, promotion and balance, how few regions carry it, and how much of the change of
    the logits the regions account for one by one: what is missing (or too much) is their interaction.

    Parameters
    ----------
    attacks
        What fools the classifier; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None. Without a target, the class that
        is given now stands for it.
    cell
        Side of the square regions, in pixels; as in `whyfooled.perturbation.Grid` if None.
    method
        ``"exact"``: by taking the perturbation out of each region in turn; ``"gradient"``: to first order, at a few
        passes in all.
    inert
        Share of an image's largest score under which a region counts as inert. [ours]
    floor
        Share of an image's largest score that both effects are raised to before their ratio is taken. [ours]
    """

    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    cell: int | None = None
    method: Method = "exact"
    inert: float = 0.01
    floor: float = 1e-3

    card: ClassVar[Card] = Card(
        name="effect-mix",
        title="Suppression and promotion by attack",
        summary="How holding the true class down and lifting the target share the effect of each attack.",
        source="Xu et al. 2019, arXiv 1904.02057, sec. 4",
        cost="the attacks, and a forward pass for each region that a perturbation touches",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "l2": "real",
        "regions": "whole",
        **dict.fromkeys(_SHOWN, "real"),
        "held_down": "real",
        "half": "whole",
        "most": "whole",
        **dict.fromkeys(("half_share", "most_share", "untouched", "idle"), "real"),
        **{f"{part}_{kind}": "real" for part in ("pixels", "energy") for kind in _SHOWN},
        **dict.fromkeys(_LOGITS, "real"),
    }
    headline: ClassVar[str] = "fooled"

    def __post_init__(self) -> None:
        check_attacks(self.attacks)
        check_target(self.target)
        Grid(self.cell)
        one_of("method", self.method, ("exact", "gradient"))
        check_shares(self.inert, self.floor)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and measure what each perturbation does in each region."""
        rows: list[dict[str, Any]] = []
        for fooled in fooled_by(classifier, batch, self.attacks, self.target):
            rows += fooled.others()
            if fooled.places:
                rows += fooled.rows(self._numbers(classifier, fooled))
        return Measured(rows)

    def _numbers(self, classifier: Classifier, fooled: Fooled) -> dict[str, Tensor]:
        found = sensitivity(
            classifier,
            fooled.result.clean,
            fooled.result.attempted,
            fooled.true,
            fooled.target,
            Grid(self.cell),
            method=self.method,
            inert=self.inert,
            floor=self.floor,
        )
        return {
            "l2": found.l2.double().norm(dim=1),
            "regions": (found.sizes > 0).sum(1),
            **_kinds("", found.effect_by_kind),
            "held_down": found.suppression_share,
            **_concentration(found),
            **_kinds("pixels_", found.by_kind(found.sizes.to(found.l2))),
            **_kinds("energy_", found.by_kind(found.l2.square())),
            **_logits(found, fooled),
        }

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier."""
        return fooled_headline(rows)

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means of every attack, and what attacks differ in, image by image."""
        rows = _measured(table)
        compared = {column: by_image(rows, "attack", column) for column in _COMPARED}
        found = {column: means(*one, seed) for column, one in compared.items()}
        sentences = [who_was_fooled(table), *_mixes(found), *_additivity(found), *_separation(compared)]
        tables = [
            _table(
                "Share of the effect in regions of each kind, and share of it that holds the true class down (the rest "
                "lifts the target).",
                rows,
                {**{kind: kind for kind in _SHOWN}, "held_down": "holds the true class down"},
                seed,
            ),
            _table("How few regions carry the effect, and how many none.", rows, _CONCENTRATION, seed),
            _table(
                "Where each kind of region lies: its share of the pixels, and of the squared norm of the perturbation.",
                rows,
                {
                    f"{part}_{kind}": f"{name}, {kind}"
                    for part, name in (("pixels", "pixels"), ("energy", "norm²"))
                    for kind in _SHOWN
                },
                seed,
            ),
            _table(
                "What the whole perturbation does, in logits; how much of it (on target minus true class) the effects "
                "of the regions add up to, 1 if they do not interact; and the share of all changes that works against "
                "the attack.",
                rows,
                {"l2": "ℓ2 norm", **_LOGITS},
                seed,
            ),
        ]
        if len(found["held_down"]) > 1:
            tables += [_separation_table(compared, found, seed), _pairs_table(compared, seed)]
        return Summary(tuple(sentences), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw how the kinds share each attack's effect, how few regions carry it, and what it does to both classes."""
        rows = _measured(table)
        spread = [by_image(rows, "attack", kind) for kind in _SHOWN]
        attacks = spread[0][0]
        cumulated = torch.stack([values for _, values in spread]).cumsum(0)
        ends = {kind: means(attacks, values, seed) for kind, values in zip(_SHOWN, cumulated, strict=True)}
        bars = {attack: {kind: ends[kind][attack] for kind in _SHOWN} for attack in attacks}
        marks = {
            "share of the regions": {
                "half of the effect": "half_share",
                "80 % of the effect": "most_share",
                "untouched": "untouched",
            },
            "share of the effect": {"holds the true class down": "held_down", "works against the attack": "against"},
        }
        panels = {}
        for title, columns in marks.items():
            own = {mark: means(*by_image(rows, "attack", column), seed) for mark, column in columns.items()}
            panels[title] = {attack: {mark: own[mark][attack] for mark in own} for attack in bars}
        return bars_figure(
            bars, panels, title="effect in regions of each kind (intervals: of the sums)", colours=KIND_COLOURS
        )


def _kinds(prefix: str, shares: Tensor) -> dict[str, PerImage]:
    return {f"{prefix}{kind}": shares[:, KINDS.index(kind)] for kind in _SHOWN}


def _concentration(found: Sensitivity) -> dict[str, Tensor]:
    exists = found.sizes > 0
    count, touched = exists.sum(1), found.touched.sum(1)
    half, most = found.carriers(0.5), found.carriers(0.8)
    inert = (found.touched & (found.kind == KINDS.index("inert"))).sum(1)
    return {
        "half": half,
        "most": most,
        "half_share": half / count,
        "most_share": most / count,
        "untouched": 1 - touched / count,
        "idle": inert / touched,
    }


def _logits(found: Sensitivity, fooled: Fooled) -> dict[str, PerImage]:
    """Return what the whole perturbation changes, and how the regions' changes add up to it."""
    changes = (fooled.result.logits - fooled.result.clean_logits).double()
    true, target = (changes.gather(1, classes.long().unsqueeze(1))[:, 0] for classes in (fooled.true, fooled.target))
    parts = torch.cat([found.target_change, -found.true_change], dim=1).double()
    return {
        "true_fall": -true,
        "target_rise": target,
        "explained": parts.sum(1) / (target - true),
        "against": (-parts).clamp_min(0).sum(1) / parts.abs().sum(1),
    }


def _measured(table: Table) -> pd.DataFrame:
    return table.read(where=[("outcome", "==", FOOLED)])


def _table(caption: str, rows: pd.DataFrame, columns: Mapping[str, str], seed: int) -> SummaryTable:
    found = [means(*by_image(rows, "attack", column), seed) for column in columns]
    lines: list[tuple[Cell, ...]] = [(attack, *(one[attack] for one in found)) for attack in found[0]]
    return SummaryTable(caption, ("attack", *columns.values()), lines)


Compared = Mapping[str, tuple[list[str], Tensor]]
"""For each measure, the attacks and (n,k) its values on the images that each of them fools."""


def _separation_table(compared: Compared, found: Mapping[str, Mapping[str, Interval]], seed: int) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for column, explained in _ranked(compared):
        attacks, values = compared[column]
        ordered = sorted(attacks, key=lambda attack: found[column][attack].mean)
        low, high = (values[:, attacks.index(attack)] for attack in (ordered[0], ordered[-1]))
        (difference,) = means(["difference"], (high - low).unsqueeze(1), seed).values()
        lines.append((_COMPARED[column], explained, ordered[-1], ordered[0], difference))
    caption = (
        "What attacks differ in: the share of the variance within images that the attack explains (partial eta "
        f"squared, on the images that all attacks fool the classifier on; {1 / max(1, _complete(compared)):.3f} by "
        "chance), the attacks with the highest and the lowest mean, picked here, and their paired difference."
    )
    return SummaryTable(
        caption,
        ("measure", "variance explained", "highest", "lowest", "difference"),
        lines,
        signed=frozenset({"difference"}),
    )


def _pairs_table(compared: Compared, seed: int) -> SummaryTable:
    columns = ("held_down", "suppression", "balanced", "promotion", "most_share")
    attacks = compared["held_down"][0]
    pairs = [f"{one} minus {other}" for one, other in combinations(attacks, 2)]
    cells = []
    for column in columns:
        values = dict(zip(compared[column][0], compared[column][1].unbind(1), strict=True))
        gaps = torch.stack([values[one] - values[other] for one, other in combinations(attacks, 2)], dim=1)
        cells.append(means(pairs, gaps, seed))
    headings = tuple(_COMPARED[column] for column in columns)
    lines: list[tuple[Cell, ...]] = [(pair, *(one[pair] for one in cells)) for pair in pairs]
    caption = "Differences of attacks, on the images that both fool the classifier on."
    return SummaryTable(caption, ("attacks", *headings), lines, signed=frozenset(headings))


def _ranked(compared: Compared) -> list[tuple[str, float]]:
    """Order measures by how much of the variance within images the attack explains."""
    found = {column: variance_explained(values) for column, (_, values) in compared.items()}
    return sorted(found.items(), key=lambda pair: -pair[1] if pair[1] == pair[1] else 1.0)


def _complete(compared: Compared) -> int:
    """Count the images that all attacks fool the classifier on."""
    return int((~compared["held_down"][1].isnan().any(1)).sum())


def _mixes(found: Mapping[str, Mapping[str, Interval]]) -> Iterator[str]:
    for attack, held in found["held_down"].items():
        shares = ", ".join(f"{100 * found[kind][attack].mean:.0f} % in {kind}" for kind in _SHOWN if kind in found)
        yield (
            f"{attack}: {held} of the effect holds the true class down, the rest lifts the target; it lies {shares} "
            f"regions, and 80 % of it in {100 * found['most_share'][attack].mean:.1f} % of all regions."
        )


def _additivity(found: Mapping[str, Mapping[str, Interval]]) -> Iterator[str]:
    known = [value.mean for value in found["explained"].values() if value.count]
    if known:
        low, high = f"{min(known):.2f}", f"{max(known):.2f}"
        span = low if low == high else f"{low} to {high} (by attack)"
        yield (
            f"The effects of single regions add up to {span} of what the whole perturbation changes between target and "
            "true class; the difference to 1 is interaction between regions, which no single region's score shows."
        )


def _separation(compared: Compared) -> Iterator[str]:
    if len(compared["held_down"][0]) < 2:
        return
    count = _complete(compared)
    if count < FEWEST:
        yield f"Only {count} images fool the classifier under every attack: too few to say what the attacks differ in."
        return
    ranked = [(name, value) for name, value in _ranked(compared) if value == value]
    listed = "; ".join(f"{_COMPARED[name]} {value:.2f}" for name, value in ranked)
    yield (
        f"What attacks differ in, by the share of the variance within images that the attack explains ({1 / count:.2f} "
        f"by chance): {listed}."
    )
