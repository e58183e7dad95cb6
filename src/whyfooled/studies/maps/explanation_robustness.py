"""How hard each explanation is to forge: how near attacks of each size bring it to the clean one, and the smallest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch

from whyfooled.attacks import AwareResult, ExplanationAware, run_attack, run_aware
from whyfooled.attacks.aware_result import AWARE, MATCHED, SHOWN
from whyfooled.classifier import Classifier
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.goals import Untargeted
from whyfooled.errors import MethodError, at_least, bad_parameter
from whyfooled.registry import Card, describe_value, title
from whyfooled.saliency import Enhanced, GradCAM, Gradient, GuidedBackprop
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.saliency.interpretations import Interpretations, interpretation
from whyfooled.studies.maps import explanation_robustness_account
from whyfooled.studies.parts.attacked import FAILED, FOOLED
from whyfooled.studies.parts.maps import compute_maps, make_error_rows
from whyfooled.studies.parts.references import Reference, read_references
from whyfooled.studies.parts.right_images import RightImages, right_images
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study, check_entries, check_methods
from whyfooled.studies.table import Columns
from whyfooled.tensors.balls import check_epsilon
from whyfooled.tensors.measures import cosine
from whyfooled.types import Images, PerImage

OTHERS = 8
"""With the maps of how many other images each clean map is compared, to see what chance gives. [ours]"""

_FORGED_BELOW, _FOOLED_BELOW = 1 / 4, 1 / 16
"""Where a bisection begins under the first radius, as a part of it: for the map, and for the class alone. [ours]"""


@final
@dataclass(frozen=True)
class ExplanationRobustness(Study):
    """Attack each method's map in balls of several sizes, and bisect for the smallest in which it is forged.

    Images that the classifier gets right are attacked by the explanation-aware attack. A map is forged where the
    classifier is fooled and at least half of what a plain attack of the same margin leaves open is gained, between its
    cosine similarity to the clean map and 1: so that a method is not called weak because all its maps are alike.
    Beside it stand the smallest radius that fools the classifier without a view to the map, which a robust network
    makes larger for every method, and what chance gives: the cosine similarity of the clean maps of different images.

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
        "smallest_fooled": "real",
    }
    headline: ClassVar[str] = "forged"
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.attack, ExplanationAware) or self.attack.decoy != "clean" or not self.attack.weight:
            rule = "must be aware, with the decoy clean and a weight above 0"
            raise bad_parameter("attack", rule, describe_value(self.attack))
        check_methods(self.attacked, "attacked")
        for method in self.attacked:
            check_differentiable(method)
        check_entries("epsilons", self.epsilons)
        for epsilon in self.epsilons:
            check_epsilon(epsilon, self.attack.ball, "epsilons")
        if list(self.epsilons) != sorted(set(self.epsilons)):
            raise bad_parameter("epsilons", "must be ascending", list(self.epsilons))
        at_least("bisections", self.bisections, 0)

    def prepare(self, setting: Setting) -> Prepared:
        """Read some images to compare clean maps with."""
        # One more than each image is compared with: it may be among them itself.
        return Prepared(setting.places, read_references(setting, OTHERS + 1).get((), []))

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the images that the classifier gets right, in every ball, and bisect for the smallest."""
        right = right_images(classifier, batch)
        rows: list[dict[str, Any]] = list(right.wrong_rows())
        if not right.places:
            return Measured(rows)
        fooled = self._find_smallest_fooled(classifier, right)
        for method in self.attacked:
            try:
                rows += self._measure_method(classifier, right, method, fooled)
            except MethodError as error:
                known = [{"place": place, "outcome": ""} for place in right.places]
                rows += make_error_rows(known, title(method), error)
        return Measured(rows)

    def _measure_method(
        self, classifier: Classifier, right: RightImages, method: Any, fooled: Sequence[float]
    ) -> Iterator[dict[str, Any]]:
        by_chance = _find_chance(classifier, right, method)
        everything = range(len(right.places))
        results = {epsilon: self._attack(classifier, right, method, epsilon, everything) for epsilon in self.epsilons}

        def forge(epsilon: float, numbers: Sequence[int]) -> list[bool]:
            return _tell_forged(self._attack(classifier, right, method, epsilon, numbers))

        forged = {epsilon: _tell_forged(result) for epsilon, result in results.items()}
        smallest = _bisect(forge, forged, _FORGED_BELOW * self.epsilons[0], self.bisections)
        for epsilon, result in results.items():
            yield from right.rows(
                {
                    "outcome": [FOOLED if reached else FAILED for reached in result.success.tolist()],
                    "method": title(method),
                    "epsilon": epsilon,
                    "reached": result.success.double(),
                    "cosine": _mean_cosine(result, AWARE),
                    "matched": _mean_cosine(result, MATCHED),
                    "chance": by_chance,
                    "gain": result.gains.mean((1, 2)),
                    "forged": list(map(float, forged[epsilon])),
                    "smallest": smallest,
                    "smallest_fooled": fooled,
                }
            )

    def _find_smallest_fooled(self, classifier: Classifier, right: RightImages) -> list[float]:
        """Return for each image the smallest radius at which the class alone is attacked with success."""
        plain = replace(self.attack, weight=0.0)

        def fool(epsilon: float, numbers: Sequence[int]) -> list[bool]:
            images, goal = _choose(right, numbers)
            flags: list[bool] = run_attack(replace(plain, epsilon=epsilon), classifier, images, goal).success.tolist()
            return flags

        fooled = {epsilon: fool(epsilon, range(len(right.places))) for epsilon in self.epsilons}
        # There is further to go below, in steps as fine.
        return _bisect(fool, fooled, _FOOLED_BELOW * self.epsilons[0], self.bisections + 1)

    def _attack(
        self, classifier: Classifier, right: RightImages, method: Any, epsilon: float, numbers: Sequence[int]
    ) -> AwareResult:
        images, goal = _choose(right, numbers)
        return run_aware(replace(self.attack, methods=(method,), epsilon=epsilon), classifier, images, goal)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each image, method and radius whether the map is forged."""
        return [row["forged"] for row in rows if row.get("forged") is not None]

    summarise = staticmethod(explanation_robustness_account.summarise)
    draw = staticmethod(explanation_robustness_account.draw)


def _choose(right: RightImages, numbers: Sequence[int]) -> tuple[Images, Untargeted]:
    chosen = torch.tensor(numbers, device=right.classes.device)
    return right.batch.images[chosen], Untargeted(right.classes[chosen])


def _bisect(
    succeed: Callable[[float, Sequence[int]], Sequence[bool]],
    known: Mapping[float, Sequence[bool]],
    lowest: float,
    halvings: int,
) -> list[float]:
    """Return for each image the smallest radius at which something succeeds; NaN where it does at none.

    Parameters
    ----------
    succeed
        Tries a radius on images with certain numbers.
    known
        For each radius, ascending, whether it succeeds on each image.
    lowest
        Where the search under the first of these radii begins.
    halvings
        How often what is left between two radii is halved, on a logarithmic scale.
    """
    radii = list(known)
    brackets: list[tuple[float, float]] = []
    for flags in zip(*known.values(), strict=True):
        first = flags.index(True) if any(flags) else None
        high = float("nan") if first is None else radii[first]
        brackets.append((radii[first - 1] if first else lowest, high))
    for _ in range(halvings):
        # Images with the same bracket go through the classifier together.
        together: dict[tuple[float, float], list[int]] = defaultdict(list)
        for number, bracket in enumerate(brackets):
            if bracket[1] == bracket[1]:
                together[bracket].append(number)
        for (low, high), numbers in together.items():
            middle = (low * high) ** 0.5
            for number, done in zip(numbers, succeed(middle, numbers), strict=True):
                brackets[number] = (low, middle) if done else (middle, high)
    return [high for _, high in brackets]


def _find_chance(classifier: Classifier, right: RightImages, method: Any) -> list[float]:
    """Return the mean cosine of each image's clean map with those of other images; NaN where there is none."""
    clean_maps = _compute_clean_maps(classifier, right.batch.images, method)
    others: Sequence[Reference] = right.batch.prepared or ()
    if not others:
        return [float("nan")] * len(clean_maps)
    images = torch.stack([image for _, image in others]).to(right.batch.images)
    maps = _compute_clean_maps(classifier, images, method)
    chances = []
    for name, clean in zip(right.batch.names, clean_maps, strict=True):
        different = torch.tensor([other != name for other, _ in others], device=maps.device)
        # The image itself is left out; of the rest, as many for each image.
        rest = maps[different][:OTHERS]
        chances.append(float(cosine(clean.expand_as(rest).unsqueeze(1), rest.unsqueeze(1)).mean()))
    return chances


def _compute_clean_maps(classifier: Classifier, images: Images, method: Any) -> Interpretations:
    """Compute the normalised maps of images and of the classes that the classifier gives them."""
    logits = classifier.logits(images)
    seen = logits.argmax(1)
    ((_, maps),) = compute_maps((method,), classifier, images, seen, strongest_other(logits, seen))
    if isinstance(maps, MethodError):
        raise maps
    return interpretation(maps)


def _tell_forged(result: AwareResult) -> list[bool]:
    flags: list[bool] = (result.success & result.map_success).tolist()
    return flags


def _mean_cosine(result: AwareResult, shown: str) -> PerImage:
    return result.cosines[:, SHOWN.index(shown)].mean((1, 2))
