"""What an attack that knows the explanation comes to, beside attacks that do not, the clean image and chance."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, final

import pandas as pd
import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Box, Mask, Problem
from whyfooled.attacks._result import AttackResult, run_attack
from whyfooled.attacks._shown import PerMap, Shown, likeness, mass_within, name_views, show, top_pixels_shared
from whyfooled.attacks.aware import ExplanationAware, ascend_aware, explained_class, make_decoys
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.goals import Goal
from whyfooled.registry import Card, describe
from whyfooled.types import Flags, Images, PerImage, Progress, silent

AWARE, PLAIN, MATCHED, CLEAN, CHANCE = "aware", "plain", "matched margin", "clean", "chance"
SHOWN = (AWARE, PLAIN, MATCHED, CLEAN, CHANCE)
"""Whose maps are held against the decoy, in the order of `AwareResult`'s numbers."""

Failed = Literal["", "class", "map"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AwareResult(AttackResult):
    """Adversarial images made with a view to the explanation, verified, with what their maps are compared with.

    Each of `cosines`, `top_shares` and `masses` is (n,5,v,k), for v views and k methods, and says how like the decoy
    the maps of five images are, in the order of `SHOWN`: of what the attack made (`attempted`), of what the plain
    attacks `plain` and `matched` made, of the clean image, and, for chance, of the clean images of the others in the
    batch, on average. NaN for chance where there are no others, and for an image that was misclassified before.

    Parameters
    ----------
    plain
        The same attack without the maps, after as large a margin as it finds.
    matched
        The same attack without the maps, shortened to the margin that the aware one has.
    methods, views
        Names of the k methods and the v views, as on the command line.
    cosines
        The cosine of the normalised maps with the decoy.
    top_shares
        How much of the most salient pixels they have in common.
    masses
        How much of a map lies where the decoy has half of its largest value or more.
    enough
        From which part of the way to 1 from the cosine of the plain attack of the same margin the map counts as
        fooled: what that one has of itself is no forgery. [ours]
    """

    plain: AttackResult
    matched: AttackResult
    methods: tuple[str, ...]
    views: tuple[str, ...]
    cosines: Tensor
    top_shares: Tensor
    masses: Tensor
    enough: float

    COLUMNS: ClassVar[tuple[str, ...]] = ("cosine", "top_share", "mass")

    @property
    def gains(self) -> PerMap:
        """(n,v,k) Which part of the way from the cosine of the plain attack of the same margin to 1 it has gone."""
        aware, matched = (self.cosines[:, SHOWN.index(shown)] for shown in (AWARE, MATCHED))
        return (aware - matched) / (1 - matched).clamp_min(torch.finfo(matched.dtype).eps)

    @property
    def map_success(self) -> Flags:
        """(n,) Whether the map was fooled: the mean gain over views and methods is `enough`."""
        return self.gains.mean((1, 2)) >= self.enough

    @property
    def failed(self) -> list[Failed]:
        """Which part failed, for each image: the ``"class"``, the ``"map"`` of one that is fooled, or none, ``""``."""
        flags = zip(self.success.tolist(), self.map_success.tolist(), strict=True)
        return ["class" if not reached else "" if fooled else "map" for reached, fooled in flags]

    def maps_frame(self) -> pd.DataFrame:
        """Return one row for each image, view, method and what is shown: ``cosine``, ``top_share`` and ``mass``."""
        numbers = (self.cosines, self.top_shares, self.masses)
        rows = []
        for image in range(len(self)):
            for v, view in enumerate(self.views):
                for m, method in enumerate(self.methods):
                    for s, shown in enumerate(SHOWN):
                        values = [float(tensor[image, s, v, m]) for tensor in numbers]
                        row = {"image": image, "view": view, "method": method, "shown": shown}
                        rows.append(row | dict(zip(self.COLUMNS, values, strict=True)))
        return pd.DataFrame(rows, columns=["image", "view", "method", "shown", *self.COLUMNS])

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each image, as of any attack, with the part that ``failed`` and the mean ``cosine``."""
        frame = super().to_frame()
        frame.insert(3, "failed", self.failed)
        frame["cosine"] = self.cosines[:, 0].mean((1, 2)).cpu().numpy()
        return frame


@one_thread()
def run_aware(
    attack: ExplanationAware,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    *,
    mask: Mask | None = None,
    box: Box = (0.0, 1.0),
    share: float = 0.05,
    enough: float = 0.5,
    progress: Progress = silent,
) -> AwareResult:
    """Run an attack that knows the explanation, verify it, and compare its maps with those of attacks that do not.

    Parameters
    ----------
    attack
        The attack; what is shown is what its `methods` and `views` say.
    classifier, images, goal, mask, box, progress
        As for `run_attack`.
    share
        Which share of the pixels counts as most salient.
    enough
        From which part of the way to 1 from the cosine of the plain attack of the same margin the map counts as
        fooled. [ours]

    Returns
    -------
    AwareResult
        Its passes are those of the aware attack alone. An image's numbers do not depend on the others, chance apart.

    Raises
    ------
    WhyfooledError
        As `run_attack`; `MethodError` if a method does not work on this model.
    """
    aware = run_attack(attack, classifier, images, goal, mask=mask, box=box, progress=progress)
    alone = replace(attack, weight=0.0, margin=float("inf"))
    plain = run_attack(alone, classifier, images, goal, mask=mask, box=box)
    matched = run_matched(attack, aware, classifier, mask=mask, box=box)
    problem = Problem.of(classifier, images, goal, mask, box)
    numbers = _compare(attack, problem, (aware, plain, matched), share)
    verified: dict[str, Any] = {field.name: getattr(aware, field.name) for field in fields(aware)}
    verified |= {name: values.to(images.device) for name, values in numbers.items()}
    return AwareResult(
        plain=plain,
        matched=matched,
        methods=tuple(describe(method) for method in attack.methods),
        views=name_views(attack.views),
        enough=enough,
        **verified,
    )


def run_matched(
    attack: ExplanationAware,
    result: AttackResult,
    classifier: Classifier,
    *,
    mask: Mask | None = None,
    box: Box = (0.0, 1.0),
) -> AttackResult:
    """Run the plain attack of an aware one again, up to the margin that its result has on each image.

    Parameters
    ----------
    attack
        The aware attack; its maps do not count here.
    result
        What it came to.
    classifier, mask, box
        As for `run_attack`.
    """
    reached = -result.goal.to(result.logits.device).margin(result.logits)
    margins = reached.clamp_min(torch.finfo(reached.dtype).tiny)
    return run_attack(_Matched(attack, margins), classifier, result.clean, result.goal, mask=mask, box=box)


@final
@dataclass(frozen=True, eq=False)
class _Matched(Attack):
    """The plain attack of an aware one, up to a margin of its own for each image of the batch."""

    attack: ExplanationAware
    margins: PerImage

    switches_labels = False

    card: ClassVar[Card] = ExplanationAware.card

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        margins = self.margins.to(problem.images)[problem.numbers]
        made = ascend_aware(replace(self.attack, weight=0.0), problem, margins, progress)
        return replace(made, images=_shorten(problem, made.images, margins), forwards=made.forwards + _BISECTIONS)


_BISECTIONS = 8
"""How many halvings find the point of a perturbation's way where it has a margin: to 1/256 of it."""


@torch.no_grad()
def _shorten(problem: Problem, images: Images, margins: PerImage) -> Images:
    """Go back on the way to each clean image as long as the margin (n,) is left."""
    ray = images - problem.images
    far = torch.ones_like(images[:, :1, :1, :1])
    near = torch.zeros_like(far)
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        passed = -problem.goal.margin(problem.logits(problem.clamp(problem.images + middle * ray)))
        enough = (passed >= margins).view(-1, 1, 1, 1)
        near, far = torch.where(enough, near, middle), torch.where(enough, middle, far)
    # What reached nothing stays what it is, to the bit.
    return torch.where(far == 1, images, problem.clamp(problem.images + far * ray))


def _compare(
    attack: ExplanationAware, problem: Problem, results: tuple[AttackResult, ...], share: float
) -> dict[str, Tensor]:
    """Compare the maps of attacked and of clean images with the decoys, (n,5,v,k) numbers of each kind."""
    device = problem.images.device
    clean_logits = results[0].clean_logits.to(device)
    true = clean_logits.argmax(1)
    decoys = make_decoys(attack, problem, clean_logits).to(problem.images)

    def show_for(images: Images, classes: Tensor, contrast: Tensor) -> Shown:
        return show(attack.methods, attack.views, problem.classifier, images.to(device), classes, contrast)

    maps = [show_for(r.attempted, explained_class(problem, r.logits.to(device), true), true) for r in results]
    clean = show_for(problem.images, true, strongest_other(clean_logits, true))
    maps.append(clean)
    measures: dict[str, Any] = {
        "cosines": likeness,
        "top_shares": lambda shown, others: top_pixels_shared(shown, others, share),
        "masses": mass_within,
    }
    wrong = problem.goal.reached(clean_logits)
    numbers = {}
    for name, measure in measures.items():
        rows = [measure(shown, decoys) for shown in maps]
        by_chance = _mean_over_others(clean, decoys, measure)
        stacked = torch.stack([*rows, by_chance], dim=1)
        numbers[name] = stacked.masked_fill(wrong.view(-1, 1, 1, 1), torch.nan)
    return numbers


def _mean_over_others(clean: Shown, decoys: Shown, measure: Any) -> PerMap:
    """Return (n,v,k) how like each image's decoy the clean maps of the other images are, on average; NaN for one."""
    n = len(clean)
    turned = [measure(clean.roll(by, 0), decoys) for by in range(1, n)]
    return torch.stack(turned).mean(0) if turned else torch.full_like(clean[..., 0, 0], torch.nan)
