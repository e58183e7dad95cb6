"""Whether perturbations lie where class activation maps are high (Xu et al. 2019, fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError
from whyfooled.perturbation import interpretability_curve
from whyfooled.registry import Card
from whyfooled.studies.effects import interpretability_account
from whyfooled.studies.effects.interpretability_account import AFTER, BEFORE, NUMBERS
from whyfooled.studies.parts.defaults import CAMS, NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, FooledStudy
from whyfooled.studies.parts.maps import check_quantiles, compute_maps, make_error_rows, scatter_maps
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.tensors.randomness import image_generators, normal


@final
@dataclass(frozen=True)
class InterpretabilityScores(FooledStudy):
    """Measure how much of each attack's perturbation lies in the discriminative regions of class activation maps.

    Two maps are looked at: that of the true class on the clean image, and that of the class that the perturbation
    promotes (the target; without one, the class reached) on the adversarial image. Only images that the attack fools
    the classifier on count. Each score is compared with its chance level, with a random perturbation's, and with the
    same perturbation's on the mirrored map.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
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
        **dict.fromkeys(NUMBERS, "real"),
    }
    headline: ClassVar[str] = "score"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quantiles("quantile", self.quantile)
        check_quantiles("quantiles", *self.quantiles)

    def measure_fooled(self, classifier: Classifier, batch: Batch, fooled: Fooled) -> Measured:
        """Score the perturbations by every method's maps."""
        rows: list[dict[str, Any]] = []
        kept: dict[str, Tensor] = {}
        facts = {
            "reached": fooled.result.success,
            "true_class": fooled.true,
            "promoted_class": fooled.target,
            "l2": fooled.delta.flatten(1).norm(dim=1),
        }
        for name, kind, maps in self._maps(classifier, fooled):
            if isinstance(maps, MethodError):
                rows += make_error_rows(fooled.rows(facts), name, maps)
                continue
            kept[f"{fooled.attack}/{name}/{kind}"] = scatter_maps(maps, fooled.places, len(batch.images))
            for size, numbers in self._scores(fooled, maps, batch.seed):
                main = size == self.quantile
                rows += fooled.rows(facts | numbers, method=name, map=kind, quantile=size, main=main)
        return Measured(rows, kept)

    def _maps(self, classifier: Classifier, fooled: Fooled) -> Iterator[tuple[str, str, Tensor | MethodError]]:
        """Compute (m,d,h,w) the two maps of every method; enhanced ones contrast one of the classes with the other."""
        refused = set()
        for name, maps in compute_maps(self.methods, classifier, fooled.result.clean, fooled.true, fooled.target):
            yield name, BEFORE, maps
            if isinstance(maps, MethodError):
                refused.add(name)
        for name, maps in compute_maps(self.methods, classifier, fooled.result.attempted, fooled.target, fooled.true):
            # A reason is given once.
            if name not in refused:
                yield name, AFTER, maps

    def _scores(self, fooled: Fooled, maps: Tensor, seed: int) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """Score the perturbations by maps (m,d,h,w): for each size of the region, (m,) each of `NUMBERS`."""
        sizes = tuple(sorted({*self.quantiles, self.quantile}))
        # The score does not depend on a perturbation's norm, so a direction is enough.
        direction = normal(fooled.result.clean, image_generators(fooled.result.clean, seed))
        attacked, random, mirrored = (
            interpretability_curve(changes, cam, sizes)
            for changes, cam in ((fooled.delta, maps), (direction, maps), (fooled.delta, maps.flip(-1)))
        )
        columns = (attacked.score, attacked.chance, random.score, mirrored.score)
        for number, size in enumerate(sizes):
            yield size, {name: values[:, number] for name, values in zip(NUMBERS, columns, strict=True)}

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take the scores under the first method."""
        main = [row for row in rows if row.get("main")]
        return [row["score"] for row in main if row["method"] == main[0]["method"]]

    summarise = staticmethod(interpretability_account.summarise)
    draw = staticmethod(interpretability_account.draw)
