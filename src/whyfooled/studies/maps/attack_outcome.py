"""Whether a map reacts to an attack's success: how much it changes on images that fool the classifier, and on others.

Gu & Tresp (2019, sec. 3) hold that plain methods show nearly the same on clean images, on successful adversarial images
and on unsuccessful ones, and that enhanced ones tell them apart. Here that is a number for every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, at_least
from whyfooled.registry import Card
from whyfooled.studies.maps import attack_outcome_account
from whyfooled.studies.maps.attack_outcome_account import FIXED
from whyfooled.studies.parts.attacked import Stage, run_stages
from whyfooled.studies.parts.defaults import ATTACKS, METHODS
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.maps import TitledMaps, compute_maps, make_error_rows, sort_out
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import cosine, rank_correlation, structural_similarity, top_overlap
from whyfooled.tensors.randomness import image_generators, uniform
from whyfooled.types import Images

_MEASURES = {
    "cosine": cosine,
    "rank_correlation": rank_correlation,
    "top_overlap": top_overlap,
    "ssim": structural_similarity,
}


@final
@dataclass(frozen=True)
class AttackOutcome(AttackedStudy):
    """Compare each method's map of the clean image with its map of the attacked one, by whether the attack succeeded.

    Three pairs of maps are compared: those of the class that the classifier gives, which is another one where it is
    fooled; those of the true class; and those of the wrong class: the target, or else the class that is given in place
    of the true one, or would be next. Enhanced methods contrast the given class with the strongest other or, where the
    classifier is fooled, with the true one; the true and the wrong class with each other. Random noise of a given size,
    which hardly ever fools a classifier, is the control.

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images.
    methods
        Saliency methods.
    noise
        Size of the control: every value of an image goes up or down by this much, at random (the image stays in [0,
        1]). [ours]
    """

    attacks: tuple[Any, ...] = ATTACKS
    target: str | None = None
    methods: tuple[Any, ...] = METHODS
    noise: float = 4 / 255

    card: ClassVar[Card] = Card(
        name="attack-outcome",
        title="Maps and the outcome of an attack",
        summary="How much a map changes when an attack succeeds, and when it fails.",
        source="Gu & Tresp 2019, arXiv 1908.08413, sec. 3 and fig. 5",
        cost="the attacks, and for each the methods' maps of two classes, of the clean image and of the attacked one",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "method": "text",
        "class_clean": "whole",
        "class_attacked": "whole",
        "class_wrong": "whole",
        **dict.fromkeys(_MEASURES, "real"),
        **dict.fromkeys((f"{measure}_{fixed}" for fixed in FIXED for measure in _MEASURES), "real"),
    }
    controls: ClassVar[tuple[str, ...]] = (attack_outcome_account.NOISE,)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("noise", self.noise, 0)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and compare every method's maps before and after."""
        stages = run_stages(classifier, batch, self.attacks, self.target)
        clean = next(stages)
        given_before = dict(compute_maps(self.methods, classifier, clean.images, *clean.explained))
        rows: list[dict[str, Any]] = []
        kept: dict[str, Tensor | MethodError] = {f"{clean.attack}/{name}": part for name, part in given_before.items()}
        for stage in chain(stages, self._noise(classifier, batch, clean)):
            fixed_before = dict(self._compute_fixed(classifier, clean.images, stage))
            fixed_after = dict(self._compute_fixed(classifier, stage.images, stage))
            for name, given_after in self._compute_given(classifier, stage, fixed_after):
                maps, error = sort_out((given_before[name], given_after, fixed_before[name], fixed_after[name]))
                rows += make_error_rows(stage.keys(), name, error) if error else _compare(clean, stage, name, *maps)
                kept[f"{stage.attack}/{name}"] = given_after
        return Measured(rows, {name: part for name, part in kept.items() if isinstance(part, Tensor)})

    def _compute_fixed(self, classifier: Classifier, images: Images, stage: Stage) -> TitledMaps:
        """Compute (n,2,d,h,w) the maps of the true class and of the wrong one, contrasted with each other."""
        return compute_maps(self.methods, classifier, images, stage.true, stage.promoted, both=True)

    def _compute_given(
        self, classifier: Classifier, stage: Stage, fixed: Mapping[str, Tensor | MethodError]
    ) -> TitledMaps:
        """Compute (n,d,h,w) the maps of the given class: as a rule they are among the fixed classes' maps."""
        given, contrast = stage.explained
        is_true = given == stage.true
        others = torch.where(is_true, stage.promoted, stage.true)
        among = is_true | (given == stage.promoted)
        if not bool((among & (others == contrast)).all()):
            yield from compute_maps(self.methods, classifier, stage.images, given, contrast)
            return
        place = (~is_true).long()
        rows = torch.arange(len(place), device=place.device)
        for name, maps in fixed.items():
            yield name, maps if isinstance(maps, MethodError) else maps[rows, place]

    def _noise(self, classifier: Classifier, batch: Batch, clean: Stage) -> Iterator[Stage]:
        if self.noise:
            signs = torch.sign(uniform(batch.images, image_generators(batch.images, batch.seed)) - 0.5)
            noisy = (batch.images + self.noise * signs).clamp(0, 1)
            result = AttackResult.from_images(classifier, batch.images, noisy)
            yield Stage.after(attack_outcome_account.NOISE, batch, result, clean.true)

    summarise = staticmethod(attack_outcome_account.summarise)
    draw = staticmethod(attack_outcome_account.draw)


def _compare(
    clean: Stage,
    attacked: Stage,
    name: str,
    before: Tensor,
    after: Tensor,
    fixed_before: Tensor,
    fixed_after: Tensor,
) -> Iterator[dict[str, Any]]:
    pairs = {"": (before, after)}
    pairs |= {f"_{fixed}": (fixed_before[:, place], fixed_after[:, place]) for place, fixed in enumerate(FIXED)}
    numbers = {
        "class_clean": clean.logits.argmax(1),
        "class_attacked": attacked.logits.argmax(1),
        "class_wrong": attacked.promoted,
        **{f"{column}{of}": measure(*pair) for of, pair in pairs.items() for column, measure in _MEASURES.items()},
    }
    columns = {column: values.tolist() for column, values in numbers.items()}
    for place, key in enumerate(attacked.keys()):
        yield key | {"method": name} | {column: values[place] for column, values in columns.items()}
