"""Whether the units that attacks move most are those that detect concepts (Xu et al. 2019).

A unit that moves under an attack may be one that moves under anything. So noise of the perturbation's size is measured
beside it, and units are ranked by what the attack does beyond that, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch

from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import Layer
from whyfooled.errors import at_least, bad_parameter
from whyfooled.registry import Card
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, FooledStudy
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.studies.units import sensitivity_interpretability_account
from whyfooled.studies.units.living_units import ATTACK, FACTS, GRID, MOVES, NOISE, pack
from whyfooled.tensors.randomness import add_noise
from whyfooled.types import Images
from whyfooled.units import load_dissection
from whyfooled.units.changes import check_dissection
from whyfooled.units.dissection.dissection import Dissection
from whyfooled.units.dissection.results import DissectedLayer
from whyfooled.units.sensitivity import pair_moves


@final
@dataclass(frozen=True)
class SensitivityInterpretability(FooledStudy):
    """Hold the units that an attack moves most against the others, in how well they detect concepts.

    For each image that fools the classifier, how far the perturbation moves each unit's activation map; a unit's
    sensitivity is the mean over them, over its standard deviation on the clean images, as
    `whyfooled.units.unit_sensitivity` has it. What units detect is read from a dissection. The exact form of the
    sensitivity is ours, and so are the tests: the paper draws the share of detectors among the most sensitive units.

    Parameters
    ----------
    dissection
        A folder that ``whyfooled dissect`` wrote, of the classifier that is attacked.
    attacks
        What fools the classifier; not used on saved adversarial images.
    layers
        Which of the dissected layers, by name; all if empty.
    control
        Whether to measure noise too, which has the perturbation's ℓ2 norm and nothing else in common with it. [ours]
    shares
        How many of the most sensitive units are compared with the rest, as shares of a layer's living units. [ours]
    counts
        The same, as numbers of units. [ours]
    permutations
        How often what units detect is permuted among them, for p-values. [ours]
    """

    dissection: str = ""
    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    layers: tuple[str, ...] = ()
    control: bool = True
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    counts: tuple[int, ...] = (10, 50)
    permutations: int = 1000

    card: ClassVar[Card] = Card(
        name="sensitivity-interpretability",
        title="Sensitive and interpretable units",
        summary="Whether the units that attacks move most are those that detect concepts.",
        source="Xu et al. 2019, arXiv 1904.02057, network level",
        cost="the attacks, and 2 forward passes for each image that fools; twice that with the control",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "perturbation": "text",
        "layer": "text",
        "l2": "real",
        **dict.fromkeys((*MOVES, *FACTS, *GRID), "bytes"),
        "permutations": "whole",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("permutations", self.permutations, 1)
        if not all(0 < share < 1 for share in self.shares):
            raise bad_parameter("shares", "must be between 0 and 1", list(self.shares))
        if not all(count >= 1 for count in self.counts):
            raise bad_parameter("counts", "must be at least 1", list(self.counts))
        if not self.shares and not self.counts:
            raise bad_parameter("shares", "must have an entry, or `counts`", "none")

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which dissection it is, by what is taken from it."""
        digest = hashlib.blake2b(digest_size=16)
        for layer, facts in self._read_dissection(setting.classifier)[1]:
            digest.update(layer.name.encode() + b"".join(facts.values()))
        return {"dissection_digest": digest.hexdigest()}

    def prepare(self, setting: Setting) -> Prepared:
        """Read the dissection."""
        dissection, carried = self._read_dissection(setting.classifier)
        images, concepts = len(dissection.images), dissection.parameters.get("concepts", "concepts")
        note = f"The units were dissected on {images} images ({concepts}); cutoff of the IoU {dissection.cutoff}."
        return Prepared(setting.places, carried, notes=(note,))

    def _read_dissection(self, classifier: Classifier) -> tuple[Dissection, _Carried]:
        """Read the dissection, and take from it what the rows carry of each layer."""
        if not self.dissection:
            raise bad_parameter(
                "dissection", "must be a folder that `whyfooled dissect` wrote", repr(""), "Make one of this model."
            )
        dissection = load_dissection(self.dissection)
        check_dissection(classifier, dissection)
        layers = [dissection[name] for name in dict.fromkeys(self.layers)] or dissection.layers
        return dissection, tuple((layer.layer, _facts(layer, dissection.cutoff)) for layer in layers)

    def measure_fooled(self, classifier: Classifier, batch: Batch, fooled: Fooled) -> Measured:
        """See how far each perturbation, and noise of its size, moves every unit."""
        rows: list[dict[str, Any]] = []
        clean, carried = fooled.result.clean, batch.prepared
        changed = {ATTACK: fooled.result.attempted}
        if self.control:
            changed[NOISE] = _add_noise(clean, fooled.result.attempted, batch.seed)
        for kind, images in changed.items():
            l2 = (images - clean).double().flatten(1).norm(dim=1)
            moves = pair_moves(classifier, [layer for layer, _ in carried], clean, images)
            for layer, facts in carried:
                of_layer = fooled.rows({"l2": l2}, perturbation=kind, layer=layer.name, **facts, **self._asked())
                for number, row in enumerate(of_layer):
                    rows.append(row | {name: pack(getattr(moves[layer.name], name)[number]) for name in MOVES})
        return Measured(rows)

    def _asked(self) -> dict[str, Any]:
        """Return what the table must hold to be written up by itself."""
        return {"shares": pack(self.shares), "counts": pack(self.counts), "permutations": self.permutations}

    summarise = staticmethod(sensitivity_interpretability_account.summarise)
    draw = staticmethod(sensitivity_interpretability_account.draw)


_Carried = tuple[tuple[Layer, Mapping[str, bytes]], ...]


def _facts(layer: DissectedLayer, cutoff: float) -> dict[str, bytes]:
    chance = layer.null_iou.double()
    return {
        "iou": pack(layer.best_iou),
        "chance_iou": pack(chance.mean(0)),
        "detector": pack(layer.detectors(cutoff)),
        "chance_detector": pack((chance > cutoff).double().mean(0) if len(chance) else chance.mean(0)),
        "dead": pack(layer.dead),
    }


def _add_noise(clean: Images, changed: Images, seed: int) -> Images:
    """Add noise to the clean images that is as large (ℓ2) as the perturbation, as far as the bounds of images allow."""
    sizes = (changed - clean).double().flatten(1).norm(dim=1).tolist()
    return torch.cat([add_noise(image, size, seed) for image, size in zip(torch.split(clean, 1), sizes, strict=True)])
