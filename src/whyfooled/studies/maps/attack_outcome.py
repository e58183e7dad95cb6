"""Whether a map reacts to an attack's success: how much it changes on images that fool the classifier, and on others.

Gu & Tresp (2019, sec. 3) hold that plain methods show nearly the same on clean images, on successful adversarial images
and on unsuccessful ones, and that enhanced ones tell them apart. Here that is a number for every method.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from whyfooled.studies.parts.attacked import Stage, run_stages
from whyfooled.studies.parts.defaults import ATTACKS, METHODS
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.maps import compute_maps, make_error_rows, sort_out
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import cosine, rank_correlation, structural_similarity, top_overlap
from whyfooled.tensors.randomness import image_generators, uniform

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

    A map is made for the class that the classifier gives the image. Enhanced methods contrast it with the strongest
    other class or, where the classifier is fooled, with the true one. Random noise of a given size, which hardly ever
    fools a classifier, is the control.

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
        cost="the attacks, and the methods' maps of the clean and of every attacked image",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "method": "text",
        "class_clean": "whole",
        "class_attacked": "whole",
        **dict.fromkeys(_MEASURES, "real"),
    }
    controls: ClassVar[tuple[str, ...]] = (attack_outcome_account.NOISE,)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("noise", self.noise, 0)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and compare every method's maps before and after."""
        stages = run_stages(classifier, batch, self.attacks, self.target)
        clean = next(stages)
        maps_before = dict(compute_maps(self.methods, classifier, clean.images, *clean.explained))
        rows: list[dict[str, Any]] = []
        maps: dict[str, Tensor | MethodError] = {f"{clean.attack}/{name}": part for name, part in maps_before.items()}
        for stage in chain(stages, self._noise(classifier, batch, clean)):
            for name, maps_after in compute_maps(self.methods, classifier, stage.images, *stage.explained):
                both, error = sort_out((maps_before[name], maps_after))
                rows += make_error_rows(stage.keys(), name, error) if error else _compare(clean, stage, name, *both)
                maps[f"{stage.attack}/{name}"] = maps_after
        return Measured(rows, {name: part for name, part in maps.items() if isinstance(part, Tensor)})

    def _noise(self, classifier: Classifier, batch: Batch, clean: Stage) -> Iterator[Stage]:
        if self.noise:
            signs = torch.sign(uniform(batch.images, image_generators(batch.images, batch.seed)) - 0.5)
            noisy = (batch.images + self.noise * signs).clamp(0, 1)
            result = AttackResult.from_images(classifier, batch.images, noisy)
            yield Stage.after(attack_outcome_account.NOISE, batch, result, clean.true)

    summarise = staticmethod(attack_outcome_account.summarise)
    draw = staticmethod(attack_outcome_account.draw)


def _compare(clean: Stage, attacked: Stage, name: str, before: Tensor, after: Tensor) -> Iterator[dict[str, Any]]:
    numbers = {
        "class_clean": clean.logits.argmax(1),
        "class_attacked": attacked.logits.argmax(1),
        **{column: measure(before, after) for column, measure in _MEASURES.items()},
    }
    columns = {column: values.tolist() for column, values in numbers.items()}
    for place, key in enumerate(attacked.keys()):
        yield key | {"method": name} | {column: values[place] for column, values in columns.items()}
