"""How suppression and promotion share the effect of a perturbation, and what attacks differ in (Xu et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import one_of
from whyfooled.perturbation import KINDS, Grid, Sensitivity, sensitivity
from whyfooled.perturbation.sensitivity import Method, check_shares
from whyfooled.registry import Card
from whyfooled.studies.effects import effect_mix_account
from whyfooled.studies.effects.effect_mix_account import LOGITS, SHOWN
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, FooledStudy
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.types import PerImage


@final
@dataclass(frozen=True)
class EffectMix(FooledStudy):
    """Divide the effect of a perturbation on the logits by regions, and by what it mostly does in each.

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
        ``"exact"``: by removing the perturbation from each region in turn; ``"gradient"``: to first order, at a few
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
        **dict.fromkeys(SHOWN, "real"),
        "held_down": "real",
        "half": "whole",
        "most": "whole",
        **dict.fromkeys(("half_share", "most_share", "untouched", "idle"), "real"),
        **{f"{part}_{kind}": "real" for part in ("pixels", "energy") for kind in SHOWN},
        **dict.fromkeys(LOGITS, "real"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        Grid(self.cell)
        one_of("method", self.method, ("exact", "gradient"))
        check_shares(self.inert, self.floor)

    def measure_fooled(self, classifier: Classifier, batch: Batch, fooled: Fooled) -> Measured:
        """Measure what each perturbation does in each region."""
        effects = sensitivity(
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
        numbers = {
            "l2": effects.l2.double().norm(dim=1),
            "regions": (effects.sizes > 0).sum(1),
            **_name_kinds("", effects.effect_by_kind),
            "held_down": effects.suppression_share,
            **_count_regions(effects),
            **_name_kinds("pixels_", effects.by_kind(effects.sizes.to(effects.l2))),
            **_name_kinds("energy_", effects.by_kind(effects.l2.square())),
            **_sum_changes(effects, fooled),
        }
        return Measured(list(fooled.rows(numbers)))

    summarise = staticmethod(effect_mix_account.summarise)
    draw = staticmethod(effect_mix_account.draw)


def _name_kinds(prefix: str, shares: Tensor) -> dict[str, PerImage]:
    return {f"{prefix}{kind}": shares[:, KINDS.index(kind)] for kind in SHOWN}


def _count_regions(effects: Sensitivity) -> dict[str, Tensor]:
    """Count the regions with half and with most of the effect, and those without any."""
    count, touched = (effects.sizes > 0).sum(1), effects.touched.sum(1)
    half, most = effects.carriers(0.5), effects.carriers(0.8)
    inert = (effects.touched & (effects.kind == KINDS.index("inert"))).sum(1)
    return {
        "half": half,
        "most": most,
        "half_share": half / count,
        "most_share": most / count,
        "untouched": 1 - touched / count,
        "idle": inert / touched,
    }


def _sum_changes(effects: Sensitivity, fooled: Fooled) -> dict[str, PerImage]:
    """Return what the whole perturbation changes, and how the regions' changes add up to it."""
    changes = (fooled.result.logits - fooled.result.clean_logits).double()
    true, target = (changes.gather(1, classes.long().unsqueeze(1))[:, 0] for classes in (fooled.true, fooled.target))
    parts = torch.cat([effects.target_change, -effects.true_change], dim=1).double()
    values = (-true, target, parts.sum(1) / (target - true), (-parts).clamp_min(0).sum(1) / parts.abs().sum(1))
    return dict(zip(LOGITS, values, strict=True))
