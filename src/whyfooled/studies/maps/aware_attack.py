"""Which maps an attack that knows one of them forges: method attacked × method shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import AttackResult, ExplanationAware, run_attack
from whyfooled.attacks.aware_result import run_matched
from whyfooled.classifier import Classifier
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.goals import Untargeted
from whyfooled.errors import MethodError, bad_parameter
from whyfooled.registry import Card, title
from whyfooled.saliency import Enhanced, GradCAM, Gradient, GuidedBackprop, IntegratedGradients, SmoothGrad
from whyfooled.saliency.interpretations import interpretation
from whyfooled.studies.maps import aware_attack_account
from whyfooled.studies.maps.aware_attack_account import ALL, ANOTHER, PLAIN, is_aware, match_name
from whyfooled.studies.parts.attacked import FAILED, FOOLED
from whyfooled.studies.parts.maps import TitledMaps, compute_maps, make_error_rows, sort_out
from whyfooled.studies.parts.references import Labels, Reference, read_references
from whyfooled.studies.parts.right_images import RightImages, right_images
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study, check_entries, check_methods
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import cosine, top_overlap
from whyfooled.tensors.medians import filter_median
from whyfooled.types import Classes, Image, Images

ATTACKED = (Enhanced(), GuidedBackprop(), Gradient(), GradCAM())


@final
@dataclass(frozen=True)
class AwareAttack(Study):
    """Attack the classifier and each of some methods' maps at once, and look at the maps of all methods.

    Each attack keeps the maps that it is aware of like the clean image's own. Every method's map of what it made, of
    the class now seen against the true one, is compared with that method's map of the clean image, of its class against
    the strongest other; both normalised as for the attack. For comparison there are the same attack without the maps,
    as far as it gets in the ball and, for each aware one, up to the margin alone that this one has, and the clean map
    of another image of the same class, where the images have labels. Images that are misclassified are left out.

    Parameters
    ----------
    attack
        The attack; the methods that it is aware of are those of `attacked`.
    attacked
        Saliency methods that an attack is aware of, one after the other; and all at once, if there are several.
    methods
        Saliency methods whose maps are looked at.
    median
        Whether the maps of each image's median of 2 × 2 pixels are looked at too, as by someone who looks twice.
    """

    attack: Any = field(default_factory=ExplanationAware)
    attacked: tuple[Any, ...] = ATTACKED
    methods: tuple[Any, ...] = (*ATTACKED, IntegratedGradients(), SmoothGrad())
    median: bool = False

    card: ClassVar[Card] = Card(
        name="aware-attack",
        title="Attacks that know the explanation",
        summary="Which methods' maps look as if there were no attack when it knows one of them, and which still warn.",
        source="limitation named by Gu & Tresp 2019, arXiv 1908.08413; after Zhang et al. 2020, arXiv 1812.00891",
        cost="for each of `attacked`, and for all, an explanation-aware attack and a plain one; the methods' maps",
    )
    columns: ClassVar[Columns] = {
        "outcome": "text",
        "made_by": "text",
        "margin": "real",
        "l2": "real",
        "passes": "real",
        "method": "text",
        "cosine": "real",
        "top_overlap": "real",
    }
    headline: ClassVar[str] = "fooled by an aware attack"
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_methods(self.methods)
        check_methods(self.attacked, "attacked")
        check_entries("attacked", self.attacked, once=True)
        if not isinstance(self.attack, ExplanationAware) or self.attack.decoy != "clean" or not self.attack.weight:
            rule = "must be aware, with the decoy clean and a weight above 0"
            raise bad_parameter("attack", rule, repr(self.attack))
        self._list_aware()  # which checks that maps of `attacked` have slopes

    def prepare(self, setting: Setting) -> Prepared:
        """Read up to two images of each class, one to compare each image with."""
        return Prepared(setting.places, read_references(setting, 2, lambda labels: labels or None))

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch with every attack, and compare every method's maps."""
        right = right_images(classifier, batch)
        rows: list[Mapping[str, Any]] = list(right.wrong_rows())
        if not right.places:
            return Measured(rows)
        images, true = right.batch.images, right.classes
        runner_up = strongest_other(classifier.logits(images), true)
        before = dict(self._look(classifier, images, true, runner_up))
        for name, result in self._attack_all(classifier, images, true):
            about = {"made_by": name, **_describe(result)}
            now = strongest_other(result.logits, true)
            after = self._look(classifier, result.attempted, now, true)
            rows += _compare(right, about, before, after)
        rows += self._compare_with_others(classifier, right, before)
        return Measured(rows)

    def _look(self, classifier: Classifier, images: Images, classes: Classes, contrast: Classes) -> TitledMaps:
        """Compute every method's maps, of the images and of their medians."""
        yield from compute_maps(self.methods, classifier, images, classes, contrast)
        if self.median:
            for name, maps in compute_maps(self.methods, classifier, filter_median(images, 2), classes, contrast):
                yield f"{name}, of the median", maps

    def _list_aware(self) -> dict[str, ExplanationAware]:
        """Name every attack that knows maps."""
        attacks = {title(method): replace(self.attack, methods=(method,)) for method in self.attacked}
        if len(self.attacked) > 1:
            attacks[ALL] = replace(self.attack, methods=self.attacked)
        return attacks

    def _attack_all(self, classifier: Classifier, images: Images, true: Classes) -> Iterator[tuple[str, AttackResult]]:
        """Run every attack, each aware one with the plain one that has its margin."""
        goal = Untargeted(true)
        yield PLAIN, run_attack(replace(self.attack, weight=0.0, margin=float("inf")), classifier, images, goal)
        for name, attack in self._list_aware().items():
            result = run_attack(attack, classifier, images, goal)
            yield match_name(name), run_matched(attack, result, classifier)
            yield name, result

    def _compare_with_others(
        self, classifier: Classifier, right: RightImages, before: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """Compare the clean maps with those of another image of the class, where there is one."""
        others = [_find_other(right.batch.names[number], right, number) for number in range(len(right.places))]
        known = [number for number, other in enumerate(others) if other is not None]
        if not known:
            return
        images = torch.stack([other for other in others if other is not None]).to(right.batch.images)
        logits = classifier.logits(images)
        chosen = torch.tensor(known, device=images.device)
        true = right.classes[chosen]
        there = {name: maps[chosen] for name, maps in before.items() if isinstance(maps, Tensor)}
        others_maps = self._look(classifier, images, true, strongest_other(logits, true))
        after = ((name, maps) for name, maps in others_maps if name in there)
        part = RightImages(right.batch, [right.places[number] for number in known], (), true)
        yield from _compare(part, {"made_by": ANOTHER}, there, after)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each image and aware attack whether the classifier is fooled."""
        aware = {
            (row["index"], row["made_by"]): row["outcome"]
            for row in rows
            if row.get("made_by") is not None and is_aware(row["made_by"])
        }
        return [float(outcome == FOOLED) for outcome in aware.values()]

    summarise = staticmethod(aware_attack_account.summarise)
    draw = staticmethod(aware_attack_account.draw)


def _find_other(name: str, right: RightImages, number: int) -> Image | None:
    """Find an image of the same class as one of the batch, and not this image itself."""
    references: Mapping[Labels, Sequence[Reference]] = right.batch.prepared or {}
    labels = right.batch.labels[number]
    return next((image for other, image in references.get(labels, ()) if other != name), None)


def _describe(result: AttackResult) -> dict[str, Any]:
    """Say of each image how the attack did."""
    return {
        "outcome": [FOOLED if reached else FAILED for reached in result.success.tolist()],
        "margin": -result.goal.margin(result.logits),
        "l2": (result.attempted - result.clean).flatten(1).norm(dim=1),
        "passes": result.forwards + result.backwards,
    }


def _compare(
    right: RightImages,
    about: Mapping[str, Any],
    before: Mapping[str, Tensor | MethodError],
    after: Iterator[tuple[str, Tensor | MethodError]],
) -> Iterator[Mapping[str, Any]]:
    for name, maps in after:
        both, error = sort_out((before[name], maps))
        if error is not None:
            yield from make_error_rows(right.rows(about), name, error)
            continue
        first, second = (interpretation(part).unsqueeze(1) for part in both)
        numbers = {"cosine": cosine(second, first), "top_overlap": top_overlap(second, first)}
        yield from right.rows({**about, "method": name, **numbers})
