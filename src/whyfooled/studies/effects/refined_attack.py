"""Whether an attack needs less when it acts only where its first perturbation mattered (Xu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import AttackResult, Refined, run_attack
from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, WhyfooledError
from whyfooled.perturbation.attack_region import WHERE, Region, Where, cam_region, random_region, sensitive_region
from whyfooled.perturbation.regions import Grid
from whyfooled.perturbation.sensitivity import sensitivity
from whyfooled.registry import Card
from whyfooled.saliency import GradCAM
from whyfooled.studies.effects import refined_attack_account
from whyfooled.studies.effects.refined_attack_account import NORMS, ORIGINAL, PASSES, RANDOM
from whyfooled.studies.parts.attacked import (
    ALREADY_WRONG,
    choose_promoted,
    find_attack,
    outcomes_of,
    run_or_load_attacks,
)
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.maps import check_none_works
from whyfooled.studies.study import Batch, Measured, check_entries
from whyfooled.studies.table import Columns
from whyfooled.types import Classes


@final
@dataclass(frozen=True)
class RefinedAttack(AttackedStudy):
    """Run each attack again, inside the region that its first perturbation gives, and compare what both need.

    The second run starts at the clean image. Where the first one changed nothing, or gives no region, there is no
    second perturbation, and the goal is not reached. Passes are those of one run; those that choose the region are not
    in them.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images, whose own attack is run again.
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
        **dict.fromkeys(PASSES, "whole"),
    }
    headline: ClassVar[str] = "goal reached again"
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_entries("where", self.where)
        for attack in self.attacks:
            for where in self.where:
                Refined(attack, where, self.keep, self.cam, self.cell)  # which checks its values

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, choose the regions, and attack it again inside each."""
        true = batch.true_classes(classifier.predict(batch.images))
        rows: list[dict[str, Any]] = []
        for name, plain in run_or_load_attacks(classifier, batch, self.attacks, self.target):
            kinds = outcomes_of(batch, plain)
            rows += _make_rows(name, ORIGINAL, kinds, plain, torch.ones_like(plain.l2))
            left = torch.tensor([kind != ALREADY_WRONG for kind in kinds], device=true.device)
            try:
                attack = Refined(find_attack(name, self.attacks)).attack
            except WhyfooledError as error:
                for where in self.where:
                    rows += _make_error_rows(name, where, left, error)
                continue
            changed = left & (plain.attempted != plain.clean).flatten(1).any(1)
            for where, region in self._choose_regions(classifier, plain, true, changed, batch.seed):
                if isinstance(region, MethodError):
                    rows += _make_error_rows(name, where, left, region)
                    continue
                again = _run_inside(attack, classifier, plain, region)
                rows += _make_rows(name, where, outcomes_of(batch, again), again, region.double().mean((1, 2, 3)))
        return Measured(rows)

    def _choose_regions(
        self, classifier: Classifier, plain: AttackResult, true: Classes, changed: Tensor, seed: int
    ) -> Iterator[tuple[Where, Region | MethodError]]:
        """Choose (n,1,h,w) the region of each image that was changed; empty for the others."""
        nowhere = torch.zeros_like(plain.clean[:, :1], dtype=torch.bool)
        if not changed.any():
            yield from ((where, nowhere) for where in self.where)
            return
        part, true = plain.select(changed), true[changed]
        pair = (classifier, part.clean, part.attempted, true, choose_promoted(part, true))
        effects = sensitivity(*pair, Grid(self.cell)) if set(self.where) != {"cam"} else None
        for where in self.where:
            region: Region | MethodError
            if effects is None or where == "cam":
                region = self._choose_cam_region(pair)
            elif where == RANDOM:
                region = random_region(effects, part.clean, self.keep, seed)
            else:
                region = sensitive_region(effects, self.keep)
            yield where, region if isinstance(region, MethodError) else nowhere.index_put((changed,), region)

    def _choose_cam_region(self, pair: tuple[Classifier, Tensor, Tensor, Classes, Classes]) -> Region | MethodError:
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

    summarise = staticmethod(refined_attack_account.summarise)
    draw = staticmethod(refined_attack_account.draw)


def _make_rows(
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
            **{passes: int(getattr(result, passes)[place]) or None for passes in PASSES},
        }


def _make_error_rows(attack: str, where: str, left: Tensor, error: WhyfooledError) -> Iterator[dict[str, Any]]:
    for place in left.nonzero()[:, 0].tolist():
        yield {"place": place, "attack": attack, "where": where, "error": f"{attack}, {where}: {error}"}


def _run_inside(attack: Any, classifier: Classifier, plain: AttackResult, region: Region) -> AttackResult:
    """Run an attack inside a region; an image without one stays as it is, and fails."""
    places = region.flatten(1).any(1).nonzero()[:, 0]
    changed: dict[str, Any] = {
        "adversarial": plain.clean,
        "attempted": plain.clean,
        "success": torch.zeros_like(plain.success),
        "logits": plain.clean_logits,
        **{passes: torch.zeros_like(plain.forwards) for passes in PASSES},
    }
    if len(places):
        again = run_attack(attack, classifier, plain.clean[places], plain.goal.select(places), mask=region[places])
        changed = {name: values.index_copy(0, places, getattr(again, name)) for name, values in changed.items()}
    return replace(plain, **changed)
