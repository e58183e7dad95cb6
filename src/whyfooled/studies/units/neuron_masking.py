"""Whether masking the units that attacks move most is a defence (Xu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import BIM, AttackResult, CarliniWagner, run_attack
from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import LAST_STAGE, Layer, choose_layers
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.errors import WhyfooledError, at_least, bad_parameter
from whyfooled.images import content_digest
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import FOOLED, find_attack, outcomes_of, run_or_load_attacks
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.held_out import check_share, split
from whyfooled.studies.parts.ranked_units import RankedUnits, rank_units
from whyfooled.studies.parts.right_images import part_of, right_images
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, check_entries
from whyfooled.studies.table import Columns
from whyfooled.studies.units import neuron_masking_account
from whyfooled.studies.units.neuron_masking_account import LEAST, MOST, NONE, RANDOM
from whyfooled.tensors.randomness import choose
from whyfooled.units.masking import Mask, mark_units, without


@final
@dataclass(frozen=True)
class NeuronMasking(AttackedStudy):
    """Mask the units of a layer that are most sensitive to an attack, and look at the old attack and at a new one.

    A unit's sensitivity is that of `whyfooled.units.sensitivity`, to one attack at a time, on images that are kept for
    it and not tested. On the others, three things are measured with the most sensitive units masked, with as many
    random ones, and with the least sensitive ones: whether the clean image is given its true class; whether the
    adversarial image made for the classifier without a mask is; and whether the image still is after the same attack,
    with the same goal, was run again on the masked classifier. The last is the honest number: an attacker who knows of
    the mask. Where the mask alone makes the clean image wrong, nothing needs to be attacked, and that counts as wrong.
    An attack for the smallest perturbation, which always gets there, is judged by how much longer its perturbation
    must be.

    Each layer is masked on its own. The paper's text is not public in full; everything but the question is [ours].

    Parameters
    ----------
    attacks
        What the images are attacked with; not used on saved adversarial images, whose own attack is run again if it is
        known here.
    layers
        Names, patterns or ``"last-stage"``, see `whyfooled.classifier.layers.choose_layers`.
    shares
        Shares of a layer's units that are masked, each above 0 and under 1; rounded, but at least one unit. [ours]
    counts
        Numbers of units that are masked, in place of shares.
    fit
        The share of the images that sensitivities are measured on, drawn at random; above 0 and under 1. [ours]
    draws
        How many times random units are drawn. All draws are tested on clean and old adversarial images, the first alone
        is attacked again.
    again
        Whether to run the attacks again on masked classifiers, which takes longer than all the rest.
    """

    attacks: tuple[Any, ...] = (BIM(), CarliniWagner())
    target: str | None = "random"
    layers: tuple[str, ...] = (LAST_STAGE,)
    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.25)
    counts: tuple[int, ...] = ()
    fit: float = 0.5
    draws: int = 3
    again: bool = True

    card: ClassVar[Card] = Card(
        name="neuron-masking",
        title="Neuron masking",
        summary="Whether masking the units most sensitive to an attack helps against it, and against a new one.",
        source="Xu et al. 2019, arXiv 1904.02057",
        cost="each attack once, and 3 times more for each number of units; forwards: 4 and 2 for each further draw",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "layer": "text",
        "layer_units": "whole",
        "choice": "text",
        "units": "whole",
        "draw": "whole",
        "pairs": "whole",
        "ranked_on": "whole",
        "outcome": "text",
        "clean": "flag",
        "old": "flag",
        "again": "flag",
        "length": "real",
        "forwards": "whole",
        "backwards": "whole",
    }
    headline: ClassVar[str] = "right on old adversaries"
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "shares"):
            check_entries(name, getattr(self, name), once=True)
        for share in self.shares:
            check_share("shares", share)
        if self.counts:
            at_least("counts", min(self.counts), 1)
        check_share("fit", self.fit)
        at_least("draws", self.draws, 1)

    def prepare(self, setting: Setting) -> Prepared:
        """Rank the units on the images that are kept for it."""
        # Before the attacks, which take long.
        for layer in choose_layers(setting.classifier, self.layers):
            self._numbers(layer)
        first, others = split(setting.places, self.fit, setting.seed)
        ranked = rank_units(setting, first, self.layers, self.attacks, self.target)
        runnable: dict[str, Any] = {}
        notes = list(ranked.notes)
        for name in ranked.pairs if self.again else ():
            try:
                runnable[name] = find_attack(name, self.attacks)
            except WhyfooledError as error:
                notes.append(f"{name} cannot be run again, so masks are tested on its old adversaries alone: {error}")
        return Prepared(others, (ranked, runnable), ranked.passes, tuple(notes))

    def _numbers(self, layer: Layer) -> list[int]:
        """Return how many of a layer's units are masked, each number once."""
        wanted = self.counts or tuple(max(1, round(share * layer.units)) for share in self.shares)
        if layer.units < 2 or (self.counts and max(wanted) >= layer.units):
            rule = f"must leave a unit of {layer.name!r}, which has {layer.units}"
            raise bad_parameter("counts" if self.counts else "layers", rule, max(wanted))
        return sorted({min(layer.units - 1, number) for number in wanted})

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and measure it with every mask."""
        ranked: RankedUnits = batch.prepared[0]
        known = [place for place, image in enumerate(batch.images) if content_digest(image) in ranked.digests]
        error = "Unit sensitivities were measured on the same image under another name, so it is not tested."
        rows: list[dict[str, Any]] = [{"place": place, "error": error} for place in known]
        right = right_images(classifier, batch, known)
        rows += right.wrong_rows()
        if not right.places:
            return Measured(rows)
        results = dict(run_or_load_attacks(classifier, right.batch, self.attacks, self.target))
        for name in ranked.pairs:
            rows += right.rows(_without_mask(name, right.batch, results[name]))
        passes = Passes()
        for layer in ranked.layers:
            for choice in self._choose_units(layer, ranked, batch.seed):
                masked = without(classifier, {layer: choice.mask})
                with count_passes(masked) as spent:
                    for facts in _with_mask(masked, right.batch, choice, results):
                        rows += right.rows(facts)
                passes.add(spent)
        return Measured(rows, passes=passes)

    def _choose_units(self, layer: Layer, ranked: RankedUnits, seed: int) -> Iterator[_Choice]:
        """Choose units to mask; a smaller set is part of a larger one of its kind."""
        for number in self._numbers(layer):
            for name in ranked.pairs:
                order = ranked.order(name, layer.name)
                yield _Choice(layer, MOST, order[:number], (name,))
                yield _Choice(layer, LEAST, order[-number:], (name,))
            for draw in range(self.draws):
                drawn = torch.tensor(choose(layer.units, number, seed + draw))
                yield _Choice(layer, RANDOM, drawn, tuple(ranked.pairs), draw)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each adversarial image whether it is right with the most units masked, the most sensitive ones."""
        masked = [row for row in rows if row.get("choice") == MOST]
        most = max((row["units"] for row in masked), default=0)
        return [float(row["old"]) for row in masked if row["units"] == most]

    summarise = staticmethod(neuron_masking_account.summarise)
    draw = staticmethod(neuron_masking_account.draw)


@final
@dataclass(frozen=True, eq=False)
class _Choice:
    """Which units of a layer are masked, how they were chosen, and the attacks that the mask is tested on."""

    layer: Layer
    kind: str
    units: Tensor
    attacks: tuple[str, ...]
    draw: int | None = None

    @property
    def mask(self) -> Mask:
        return mark_units(self.layer.units, self.units)

    def about(self) -> dict[str, Any]:
        where = {"layer": self.layer.name, "layer_units": self.layer.units}
        return {**where, "choice": self.kind, "units": len(self.units), "draw": self.draw}


def _without_mask(name: str, batch: Batch, result: AttackResult) -> dict[str, Any]:
    """Say what the images are without a mask; the attack run again is then the old one."""
    ranked, runnable = batch.prepared
    kinds = outcomes_of(batch, result)
    withstands = [kind != FOOLED for kind in kinds]
    return {
        "attack": name,
        "choice": NONE,
        "units": 0,
        "pairs": ranked.pairs[name],
        "ranked_on": len(ranked.digests),
        "outcome": kinds,
        "clean": True,
        "old": withstands,
        "again": withstands if name in runnable else None,
        "length": _lengths(result, withstands),
    }


def _with_mask(
    masked: Classifier, batch: Batch, choice: _Choice, results: Mapping[str, AttackResult]
) -> Iterator[dict[str, Any]]:
    """Say, under each attack, what the images are with one mask."""
    logits = masked.logits(batch.images)
    for name in choice.attacks:
        result = results[name]
        # Without labels, what the classifier without a mask saw counts as true.
        seen = result.clean_logits.argmax(1)
        clean, old = (batch.right(given, seen) for given in (logits.argmax(1), masked.predict(result.attempted)))
        facts = {"attack": name, "outcome": outcomes_of(batch, result), "clean": clean, "old": old, **choice.about()}
        attack = batch.prepared[1].get(name) if choice.draw in (None, 0) else None
        yield facts if attack is None else facts | _attack_masked(attack, masked, batch, result, clean, logits)


def _lengths(result: AttackResult, withstands: Sequence[bool]) -> list[float | None]:
    """Return how long the perturbations of those images are that do not withstand the attack."""
    lengths = (result.attempted - result.clean).flatten(1).norm(dim=1).tolist()
    return [None if right else length for right, length in zip(withstands, lengths, strict=True)]


def _attack_masked(
    attack: Any, masked: Classifier, batch: Batch, result: AttackResult, clean: Sequence[bool], logits: Tensor
) -> dict[str, list[Any]]:
    """Attack a masked classifier, with the goal that the attack had; what is wrong already stays as it is."""
    reached = result.goal.reached(logits).tolist()
    places = [place for place, right in enumerate(clean) if right and not reached[place]]
    if not places:
        return {"again": list(clean)}
    part, chosen = part_of(batch, places), torch.tensor(places, device=batch.images.device)
    new = run_attack(attack, masked, part.images, result.goal.select(chosen))
    right = part.right(new.predictions, result.clean_logits[chosen].argmax(1))
    again = dict(enumerate(clean)) | dict(zip(places, right, strict=True))
    columns: dict[str, list[Any]] = {"again": list(again.values())}
    lengths, forwards, backwards = _lengths(new, right), new.forwards.tolist(), new.backwards.tolist()
    for name, values in {"length": lengths, "forwards": forwards, "backwards": backwards}.items():
        by_place = dict(zip(places, values, strict=True))
        columns[name] = [by_place.get(place) for place in range(len(clean))]
    return columns
