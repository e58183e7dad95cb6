"""Whether an attack needs less when it acts only where its first perturbation mattered (Xu et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.attacks import AttackResult, Refined, run_attack
from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.curves import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import ImageError, MethodError, ParameterError, WhyfooledError
from whyfooled.perturbation.attack_region import WHERE, Region, Where, cam_region, random_region, sensitive_region
from whyfooled.perturbation.regions import Grid
from whyfooled.perturbation.sensitivity import sensitivity
from whyfooled.registry import Card
from whyfooled.saliency import GradCAM
from whyfooled.studies.parts.attacked import (
    ALREADY_WRONG,
    attack_named,
    attacked,
    check_attacks,
    check_some_attacked,
    check_target,
    outcomes,
    promoted,
)
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.maps import check_none_works
from whyfooled.studies.study import Batch, Measured, Study
from whyfooled.studies.table import Columns, Table
from whyfooled.tensors.statistics import FEWEST, Interval, bootstrap_means
from whyfooled.types import Classes

ORIGINAL, RANDOM = "original", "random"
_NOTHING = Interval(math.nan, math.nan, math.nan, 0)
NORMS = {"l0": "ℓ0", "l1": "ℓ1", "l2": "ℓ2", "linf": "ℓ∞"}


@final
@dataclass(frozen=True)
class RefinedAttack(Study):
    """Run each attack again, inside the region that its first perturbation gives, and compare what both need.

    The second run starts at the clean image. Where the first one changed nothing, or gives no region, there is no
    second perturbation, and the goal is not reached. Passes are those of one run; those that choose the region are not
    in them.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images, whose own attack is run again.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    where
        What regions are chosen by: ``"cam"``, ``"sensitivity"``, ``"random"``; see
        `whyfooled.perturbation.attack_region`.
    keep
        The share of each map's pixels, or of the cells, that is kept; above 0 and at most 1. [ours]
    cam
        The saliency method of the maps.
    cell
        Side of a cell, in pixels; the paper's part of the image if None.
    """

    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    where: tuple[Where, ...] = WHERE
    keep: float = 0.3
    cam: Any = field(default_factory=GradCAM)
    cell: int | None = None

    card: ClassVar[Card] = Card(
        name="refined-attack",
        title="Refined attacks",
        summary="What attacks need when they act only where maps or sensitive cells tell them to.",
        source="Xu et al. 2019, arXiv 1904.02057",
        cost="each attack once, and once more for each entry of `where`; 2 maps, and a forward for each changed cell",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "where": "text",
        "outcome": "text",
        "success": "flag",
        "allowed": "real",
        **dict.fromkeys(NORMS, "real"),
        "forwards": "whole",
        "backwards": "whole",
    }
    headline: ClassVar[str] = "goal reached again"
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_attacks(self.attacks)
        check_target(self.target)
        if not self.where:
            raise ParameterError("`where` must have at least one entry.")
        for attack in self.attacks:
            for where in self.where:
                Refined(attack, where, self.keep, self.cam, self.cell)  # which checks its values

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, choose the regions, and attack it again inside each."""
        true = batch.true_classes(classifier.predict(batch.images))
        rows: list[dict[str, Any]] = []
        for name, plain in attacked(classifier, batch, self.attacks, self.target):
            kinds = outcomes(batch, plain)
            rows += _rows(name, ORIGINAL, kinds, plain, torch.ones_like(plain.l2))
            left = torch.tensor([kind != ALREADY_WRONG for kind in kinds], device=true.device)
            attack = self._attack(name)
            if isinstance(attack, WhyfooledError):
                rows += _errors(name, self.where, left, attack)
                continue
            changed = left & (plain.attempted != plain.clean).flatten(1).any(1)
            for where, found in self._regions(classifier, plain, true, changed, batch.seed):
                if isinstance(found, MethodError):
                    rows += _errors(name, [where], left, found)
                    continue
                again = _inside(attack, classifier, plain, found)
                rows += _rows(name, where, outcomes(batch, again), again, found.double().mean((1, 2, 3)))
        return Measured(rows)

    def _attack(self, name: str) -> Any:
        """Return the attack of a name as on the command line, or the error that says why it cannot be run again."""
        try:
            return Refined(attack_named(name, self.attacks)).attack
        except WhyfooledError as error:
            return error

    def _regions(
        self, classifier: Classifier, plain: AttackResult, true: Classes, changed: Tensor, seed: int
    ) -> Iterator[tuple[str, Region | MethodError]]:
        """Choose (n,1,h,w) the region of each image that was changed; empty for the others."""
        part, true = plain.select(changed), true[changed]
        pair = (classifier, part.clean, part.attempted, true, promoted(part, true))
        some = bool(changed.any())
        found = sensitivity(*pair, Grid(self.cell)) if some and set(self.where) != {"cam"} else None
        for where in self.where:
            region: Region | MethodError = part.clean.new_zeros(part.clean[:, :1].shape, dtype=torch.bool)
            if where == "cam" and some:
                region = self._cam_region(pair)
            elif found is not None:
                region = sensitive_region(found, self.keep)
                if where == RANDOM:
                    region = random_region(found, part.clean, self.keep, seed)
            if isinstance(region, Tensor):
                whole = torch.zeros_like(plain.clean[:, :1], dtype=torch.bool)
                whole[changed] = region
                region = whole
            yield where, region

    def _cam_region(self, pair: tuple[Classifier, Tensor, Tensor, Classes, Classes]) -> Region | MethodError:
        classifier, clean, _, true, _ = pair
        try:
            return cam_region(*pair, keep=self.keep, cam=self.cam)
        except MethodError as error:
            check_none_works(error, self.cam, classifier, clean, true)
            return error

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each second run whether it reached its goal."""
        return [float(row["success"]) for row in rows if row["where"] != ORIGINAL]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Shares of goals reached, norms, and norms relative to the original's and to the control's, image by image."""
        rows = _measured(table)
        given = table.read(["index"])["index"].nunique()
        attacks = {str(name): group for name, group in rows.groupby("attack", observed=True, sort=False)}
        already = given - rows["index"].nunique()
        sentences = [
            f"{given} images, {already} of them taken for a wrong class before any attack and left out. Each attack is "
            "held against itself, run again from the clean image inside the regions that its first perturbation gives."
        ]
        for attack, own in attacks.items():
            sentences += _verdicts(attack, own, seed)
        tables = [_reached_table(attacks, seed), _ratio_table(attacks, ORIGINAL, seed)]
        if RANDOM in set(rows["where"]) and len(set(rows["where"]) - {ORIGINAL, RANDOM}):
            tables.append(_ratio_table(attacks, RANDOM, seed))
        return Summary(tuple(sentences), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw each norm relative to the original's, a panel for each norm and a line for each attack."""
        rows = _measured(table)
        wheres = _wheres(rows)
        panels = {
            title: {
                str(attack): {where: _ratios(own, norm, ORIGINAL, seed).get(where, _NOTHING) for where in wheres}
                for attack, own in rows.groupby("attack", observed=True, sort=False)
                if _wheres(own)
            }
            for norm, title in NORMS.items()
        }
        figure = intervals_figure(panels, x="norm relative to the original's, where both reach the goal")
        for panel in figure.axes[: len(panels)]:
            panel.axvline(1, color="black", linestyle=":", linewidth=1)
        return figure


def _rows(
    attack: str, where: str, kinds: Sequence[str], result: AttackResult, allowed: Tensor
) -> Iterator[dict[str, Any]]:
    norms = {norm: getattr(result, norm).tolist() for norm in NORMS}
    for place, kind in enumerate(kinds):
        row = {"place": place, "attack": attack, "where": where, "outcome": kind}
        if kind == ALREADY_WRONG:
            if where == ORIGINAL:
                yield row
            continue
        success = bool(result.success[place])
        yield {
            **row,
            "success": success,
            "allowed": float(allowed[place]),
            # A failed attack has no norm, and a saved result no passes.
            **({norm: float(values[place]) for norm, values in norms.items()} if success else {}),
            "forwards": int(result.forwards[place]) or None,
            "backwards": int(result.backwards[place]) or None,
        }


def _errors(attack: str, wheres: Sequence[str], left: Tensor, error: WhyfooledError) -> Iterator[dict[str, Any]]:
    for where in wheres:
        for place in left.nonzero()[:, 0].tolist():
            yield {"place": place, "attack": attack, "where": where, "error": f"{attack}, {where}: {error}"}


def _inside(attack: Any, classifier: Classifier, plain: AttackResult, region: Region) -> AttackResult:
    """Run an attack inside a region; an image without one stays as it is, and fails."""
    places = region.flatten(1).any(1).nonzero()[:, 0]
    nothing = torch.zeros_like(plain.forwards)
    attempted, logits, success = plain.clean.clone(), plain.clean_logits.clone(), torch.zeros_like(plain.success)
    forwards, backwards = nothing.clone(), nothing.clone()
    if len(places):
        again = run_attack(attack, classifier, plain.clean[places], plain.goal.select(places), mask=region[places])
        attempted[places], logits[places], success[places] = again.attempted, again.logits, again.success
        forwards[places], backwards[places] = again.forwards, again.backwards
    return AttackResult(
        clean=plain.clean,
        adversarial=torch.where(success.view(-1, 1, 1, 1), attempted, plain.clean),
        attempted=attempted,
        success=success,
        clean_logits=plain.clean_logits,
        logits=logits,
        forwards=forwards,
        backwards=backwards,
        goal=plain.goal,
    )


def _measured(table: Table) -> pd.DataFrame:
    columns = ["index", "attack", "where", "outcome", "success", "allowed", *NORMS, "forwards", "backwards"]
    rows = table.read(columns)
    check_some_attacked(rows.drop_duplicates("index")["outcome"])
    if set(rows["where"]) == {ORIGINAL}:
        raise ImageError(f"No attack could be run again. {table.errors()['error'].iloc[0]}")
    rows = rows[rows["outcome"] != ALREADY_WRONG]
    if not rows["success"].fillna(False).any():
        raise ImageError(
            f"No attack reached its goal on any of the {rows['index'].nunique()} images, as it is or in a region, so "
            "there is nothing to compare. Take a stronger one."
        )
    return rows


def _wheres(rows: pd.DataFrame) -> list[str]:
    return [str(where) for where in rows["where"].unique() if where != ORIGINAL]


def _wide(own: pd.DataFrame, column: str) -> pd.DataFrame:
    """Spread an attack's rows out: a line for each image, a column for each region; NaN where there is no number."""
    numbers = own.assign(**{column: own[column].astype("float64")})
    return numbers.pivot_table(
        index="index", columns="where", values=column, aggfunc="mean", observed=True, dropna=False, sort=False
    )


def _over_images(wide: pd.DataFrame, seed: int) -> dict[str, Interval]:
    values = torch.tensor(wide.to_numpy(dtype="float64", copy=True))
    return dict(zip(map(str, wide.columns), bootstrap_means(values, seed=seed), strict=True))


def _minus(own: pd.DataFrame, column: str, against: str, seed: int) -> dict[str, Interval]:
    wide = _wide(own, column)
    return _over_images(wide.sub(wide[against], axis=0), seed)


def _ratios(own: pd.DataFrame, norm: str, against: str, seed: int) -> dict[str, Interval]:
    """Return the geometric means of a norm over that of another run, of the images where both reach the goal."""
    logs = _wide(own, norm).map(math.log)
    found = _over_images(logs.sub(logs[against], axis=0), seed)
    return {
        where: Interval(math.exp(one.mean), math.exp(one.low), math.exp(one.high), one.count)
        for where, one in found.items()
    }


def _reached_table(attacks: Mapping[str, pd.DataFrame], seed: int) -> SummaryTable:
    minus = "minus original"
    passes = ("forwards", "backwards")
    lines: list[tuple[Cell, ...]] = []
    for attack, own in attacks.items():
        found = {column: _over_images(_wide(own, column), seed) for column in ("success", "allowed", *NORMS, *passes)}
        difference = _minus(own, "success", ORIGINAL, seed)
        for where in (ORIGINAL, *_wheres(own)):
            lines.append(
                (
                    attack,
                    where,
                    found["success"][where],
                    None if where == ORIGINAL else difference[where],
                    found["allowed"][where],
                    *(found[norm][where] for norm in NORMS),
                    *(f"{one.mean:.0f}" if (one := found[column][where]).count else "–" for column in passes),
                )
            )
    caption = (
        "How often the goal is reached inside each region, the paired difference to the attack without one, the share "
        "of the pixels that the region holds, the norms where the goal is reached, and the mean passes of that run "
        "alone. Where it is not reached equally often the norms are of different images: see the ratios."
    )
    headings = ("attack", "region", "goal reached", minus, "pixels", *NORMS.values(), *passes)
    return SummaryTable(caption, headings, lines, signed=frozenset({minus}))


def _ratio_table(attacks: Mapping[str, pd.DataFrame], against: str, seed: int) -> SummaryTable:
    whose = "the original's" if against == ORIGINAL else "those inside as many random cells as sensitive ones"
    minus = f"goal reached, minus {against}"
    lines: list[tuple[Cell, ...]] = []
    for attack, own in attacks.items():
        wheres = [where for where in _wheres(own) if where != against]
        if against not in set(own["where"]):
            continue
        difference = _minus(own, "success", against, seed)
        ratios = [_ratios(own, norm, against, seed) for norm in NORMS]
        for where in wheres:
            count = ratios[0][where].count
            lines.append((attack, where, difference[where], count, *(ratio[where] for ratio in ratios)))
    caption = (
        f"Norms relative to {whose}: geometric means of the ratio, of the images where both reach the goal. 1 is as "
        "much, less than 1 is less."
    )
    return SummaryTable(
        caption, ("attack", "region", minus, "both reach it", *NORMS.values()), lines, signed=frozenset({minus})
    )


def _verdicts(attack: str, own: pd.DataFrame, seed: int) -> Iterator[str]:
    success, allowed = (_over_images(_wide(own, column), seed) for column in ("success", "allowed"))
    for where in _wheres(own):
        yield (
            f"{attack}, {where}: on {allowed[where].mean:.0%} of the pixels it reaches its goal on "
            f"{success[where].mean:.1%} of the images (original {success[ORIGINAL].mean:.1%}); "
            f"{_needs(own, where, ORIGINAL, seed)}."
        )
    if RANDOM in _wheres(own):
        for where in _wheres(own):
            if where != RANDOM:
                yield (
                    f"{attack}, {where} ({allowed[where].mean:.0%} of the pixels) against random cells "
                    f"({allowed[RANDOM].mean:.0%}): {_needs(own, where, RANDOM, seed)}."
                )


def _needs(own: pd.DataFrame, where: str, against: str, seed: int) -> str:
    """Say whether a run needs less than another on the images where both reach the goal."""
    found = {NORMS[norm]: _ratios(own, norm, against, seed)[where] for norm in ("l0", "l2")}
    count = found["ℓ0"].count
    if count < FEWEST:
        return f"both reach it on {count} images, of which nothing can be said about what they need"
    parts = [f"{ratio} times the {norm} ({_compared(ratio)})" for norm, ratio in found.items()]
    return f"on the {count} images where both reach it, it needs {' and '.join(parts)}"


def _compared(ratio: Interval) -> str:
    if ratio.high < 1:
        return "less"
    return "more" if ratio.low > 1 else "no difference to be seen"
