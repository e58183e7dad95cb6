"""How hard each explanation is to forge: how near attacks of each size bring it to the clean one, and the smallest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch

from whyfooled.attacks import AwareResult, ExplanationAware, run_aware
from whyfooled.attacks.aware_result import AWARE, MATCHED, SHOWN
from whyfooled.classifier import Classifier
from whyfooled.classifier.goals import Untargeted
from whyfooled.errors import MethodError, at_least, bad_parameter
from whyfooled.registry import Card, describe_value, title
from whyfooled.saliency import Enhanced, GradCAM, Gradient, GuidedBackprop
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.studies.maps import explanation_robustness_account
from whyfooled.studies.parts.attacked import FAILED, FOOLED
from whyfooled.studies.parts.maps import make_error_rows
from whyfooled.studies.parts.right_images import RightImages, right_images
from whyfooled.studies.study import Batch, Measured, Study, check_entries, check_methods
from whyfooled.studies.table import Columns
from whyfooled.tensors.balls import check_epsilon
from whyfooled.types import PerImage

ENOUGH = 0.5
"""Part of what the plain attack of the same margin leaves open, from which on a map counts as forged. [ours]"""


@final
@dataclass(frozen=True)
class ExplanationRobustness(Study):
    """Attack each method's map in balls of several sizes, and bisect for the smallest in which it is forged.

    Images that the classifier gets right are attacked by the explanation-aware attack. A map is forged where the
    classifier is fooled and at least half of what a plain attack of the same margin leaves open is gained, between its
    cosine with the clean map and 1: so that a method is not called weak because all its maps are alike.

    Parameters
    ----------
    attack
        The explanation-aware attack; its methods and its radius are replaced, and its decoy is the clean map.
    attacked
        The methods whose maps are forged, one at a time; each must be differentiable.
    epsilons
        The radii, ascending.
    bisections
        How often the way between two of them, or from a quarter of the first, is halved, on a logarithmic scale. [ours]
    """

    attack: Any = field(default_factory=ExplanationAware)
    attacked: tuple[Any, ...] = (Enhanced(), GuidedBackprop(), Gradient(), GradCAM())
    epsilons: tuple[float, ...] = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)
    bisections: int = 3

    card: ClassVar[Card] = Card(
        name="explanation-robustness",
        title="How hard explanations are to forge",
        summary="How near the clean map attacks of several sizes bring each method's map, and the smallest that does.",
        source="Gu & Tresp 2019, arXiv 1908.08413, sec. 4 (the limitation); the measure is ours",
        cost="for each method and radius, and each bisection, the explanation-aware attack and its plain form",
    )
    columns: ClassVar[Columns] = {
        "outcome": "text",
        "method": "text",
        "epsilon": "real",
        "reached": "real",
        **dict.fromkeys(explanation_robustness_account.NUMBERS, "real"),
        "smallest": "real",
    }
    headline: ClassVar[str] = "forged"
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.attack, ExplanationAware):
            raise bad_parameter("attack", "must be an explanation-aware attack, such as aware", repr(self.attack))
        if self.attack.decoy != "clean":
            raise bad_parameter("attack", "must have the decoy clean", describe_value(self.attack))
        check_methods(self.attacked, "attacked")
        for method in self.attacked:
            check_differentiable(method)
        check_entries("epsilons", self.epsilons)
        for epsilon in self.epsilons:
            check_epsilon(epsilon, self.attack.ball, "epsilons")
        if list(self.epsilons) != sorted(set(self.epsilons)):
            raise bad_parameter("epsilons", "must be ascending", list(self.epsilons))
        at_least("bisections", self.bisections, 0)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the images that the classifier gets right, in every ball, and bisect for the smallest."""
        right = right_images(classifier, batch)
        rows: list[dict[str, Any]] = list(right.wrong_rows())
        for method in self.attacked if right.places else ():
            try:
                rows += self._measure_method(classifier, right, method)
            except MethodError as error:
                known = [{"place": place, "outcome": ""} for place in right.places]
                rows += make_error_rows(known, title(method), error)
        return Measured(rows)

    def _measure_method(self, classifier: Classifier, right: RightImages, method: Any) -> list[dict[str, Any]]:
        every = list(range(len(right.places)))
        forged_at: dict[float, list[bool]] = {}
        rows: list[dict[str, Any]] = []
        for epsilon in self.epsilons:
            result = self._attack(classifier, right, method, epsilon, every)
            forged_at[epsilon] = _tell_forged(result)
            numbers = {
                "reached": result.success.double(),
                "cosine": _mean_cosine(result, AWARE),
                "matched": _mean_cosine(result, MATCHED),
                "gain": _find_gain(result),
                "forged": torch.tensor(forged_at[epsilon]).double(),
            }
            columns = {name: values.tolist() for name, values in numbers.items()}
            rows += [
                {
                    "place": place,
                    "outcome": FOOLED if columns["reached"][number] else FAILED,
                    "method": title(method),
                    "epsilon": epsilon,
                    **{name: values[number] for name, values in columns.items()},
                }
                for number, place in enumerate(right.places)
            ]
        smallest = self._bisect(classifier, right, method, forged_at)
        by_place = dict(zip(right.places, smallest, strict=True))
        return [row | {"smallest": by_place[row["place"]]} for row in rows]

    def _bisect(
        self, classifier: Classifier, right: RightImages, method: Any, forged_at: Mapping[float, Sequence[bool]]
    ) -> list[float]:
        """Return for each image the smallest radius at which its map is forged; NaN where it is at none."""
        brackets: list[tuple[float, float]] = []
        for number in range(len(right.places)):
            at = next((place for place, epsilon in enumerate(self.epsilons) if forged_at[epsilon][number]), None)
            below = 0.25 * self.epsilons[0] if not at else self.epsilons[at - 1]
            brackets.append((below, float("nan") if at is None else self.epsilons[at]))
        for _ in range(self.bisections):
            # Images with the same bracket go through the classifier together.
            together: dict[tuple[float, float], list[int]] = defaultdict(list)
            for number, bracket in enumerate(brackets):
                if bracket[1] == bracket[1]:
                    together[bracket].append(number)
            for (low, high), numbers in together.items():
                middle = (low * high) ** 0.5
                forged = _tell_forged(self._attack(classifier, right, method, middle, numbers))
                for number, done in zip(numbers, forged, strict=True):
                    brackets[number] = (low, middle) if done else (middle, high)
        return [high for _, high in brackets]

    def _attack(
        self, classifier: Classifier, right: RightImages, method: Any, epsilon: float, numbers: Sequence[int]
    ) -> AwareResult:
        chosen = torch.tensor(numbers, device=right.classes.device)
        attack = replace(self.attack, methods=(method,), epsilon=epsilon)
        return run_aware(attack, classifier, right.batch.images[chosen], Untargeted(right.classes[chosen]))

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each image, method and radius whether the map is forged."""
        return [row["forged"] for row in rows if "forged" in row and row["forged"] is not None]

    summarise = staticmethod(explanation_robustness_account.summarise)
    draw = staticmethod(explanation_robustness_account.draw)


def _tell_forged(result: AwareResult) -> list[bool]:
    flags: list[bool] = (result.success & (_find_gain(result) >= ENOUGH)).tolist()
    return flags


def _find_gain(result: AwareResult) -> PerImage:
    """Return (n,) which part of what the plain attack of the same margin leaves open, between its cosine and 1."""
    before = _mean_cosine(result, MATCHED)
    return (_mean_cosine(result, AWARE) - before) / (1 - before).clamp_min(torch.finfo(before.dtype).eps)


def _mean_cosine(result: AwareResult, shown: str) -> PerImage:
    return result.cosines[:, SHOWN.index(shown)].mean((1, 2))
