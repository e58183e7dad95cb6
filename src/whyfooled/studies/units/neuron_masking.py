"""Whether masking the units that attacks move most is a defence (Xu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.attacks import BIM, AttackResult, CarliniWagner, run_attack
from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import LAST_STAGE, Layer, choose_layers
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.drawing.figures.bands import bands_grid
from whyfooled.drawing.summary import Summary
from whyfooled.errors import ParameterError, WhyfooledError, at_least, bad_parameter
from whyfooled.images import content_digest
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import (
    ALREADY_WRONG,
    FOOLED,
    attack_named,
    attacked,
    check_attacks,
    check_target,
    outcomes,
)
from whyfooled.studies.parts.held_out import check_share, part_of, right_part, split
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study
from whyfooled.studies.table import Columns, Table
from whyfooled.studies.units.masking_points import LEAST, LENGTH, MOST, NONE, RANDOM, panels, points, summary
from whyfooled.studies.units.ranked import RankedUnits, rank_units
from whyfooled.tensors.randomness import choose
from whyfooled.units.masking import Mask, without


@final
@dataclass(frozen=True)
class NeuronMasking(Study):
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
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
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
        check_attacks(self.attacks)
        check_target(self.target)
        for name in ("layers", "shares"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ParameterError(f"`{name}` must have at least one entry, and each once.")
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
        found = rank_units(setting, first, self.layers, self.attacks, self.target)
        notes = list(found.notes)
        for name in found.pairs if self.again else ():
            try:
                attack_named(name, self.attacks)
            except WhyfooledError as error:
                notes.append(f"{name} cannot be run again, so masks are tested on its old adversaries alone: {error}")
        return Prepared(others, found, found.passes, tuple(notes))

    def _numbers(self, layer: Layer) -> list[int]:
        """Return how many of a layer's units are masked, each number once."""
        wanted = self.counts or tuple(max(1, round(share * layer.units)) for share in self.shares)
        if layer.units < 2 or (self.counts and max(wanted) >= layer.units):
            rule = f"must leave a unit of {layer.name!r}, which has {layer.units}"
            raise bad_parameter("counts" if self.counts else "layers", rule, max(wanted))
        return sorted({min(layer.units - 1, number) for number in wanted})

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and measure it with every mask."""
        ranked: RankedUnits = batch.prepared
        known = [content_digest(image) in ranked.digests for image in batch.images]
        error = "Unit sensitivities were measured on the same image under another name, so it is not tested."
        rows: list[dict[str, Any]] = [{"place": place, "error": error} for place, one in enumerate(known) if one]
        right, some = right_part(classifier, batch)
        tested = [place for place in right if not known[place]]
        others = [place for place in range(len(known)) if place not in right and not known[place]]
        rows += [{"place": place, "outcome": ALREADY_WRONG} for place in others]
        if not tested:
            return Measured(rows)
        some = part_of(batch, tested)
        results = {
            name: result
            for name, result in attacked(classifier, some, self.attacks, self.target)
            if name in ranked.pairs
        }
        found = [row for name, result in results.items() for row in self._unmasked(name, some, result)]
        passes = Passes()
        for layer in ranked.layers:
            for one in self._masks(layer, ranked, batch.seed):
                masked = without(classifier, {layer: one.mask})
                with count_passes(masked) as spent:
                    found += self._masked(masked, some, {name: results[name] for name in one.attacks}, one)
                passes = Passes(passes.forwards + spent.forwards, passes.backwards + spent.backwards)
        rows += [{**row, "place": tested[row["place"]]} for row in found]
        return Measured(rows, passes=passes)

    def _unmasked(self, name: str, batch: Batch, result: AttackResult) -> Iterator[dict[str, Any]]:
        """Yield what each image is without a mask; the attack run again is then the old one."""
        ranked: RankedUnits = batch.prepared
        repeats = self._attack(name) is not None
        lengths = _lengths(result)
        for place, kind in enumerate(outcomes(batch, result)):
            row = {
                "place": place,
                "attack": name,
                "choice": NONE,
                "units": 0,
                "pairs": ranked.pairs[name],
                "ranked_on": len(ranked.digests),
                "outcome": kind,
                "clean": True,
                "old": kind != FOOLED,
            }
            yield row | ({"again": kind != FOOLED} if repeats else {}) | _if(kind == FOOLED, length=lengths[place])

    def _masks(self, layer: Layer, ranked: RankedUnits, seed: int) -> Iterator[_Masked]:
        """Choose the units; a smaller set is part of a larger one of its kind."""
        for number in self._numbers(layer):
            for name in ranked.pairs:
                order = ranked.order(name, layer.name)
                yield _Masked(layer, MOST, number, _mask(layer, order[:number]), (name,))
                yield _Masked(layer, LEAST, number, _mask(layer, order[-number:]), (name,))
            for draw in range(self.draws):
                drawn = torch.tensor(choose(layer.units, number, seed + draw))
                yield _Masked(layer, RANDOM, number, _mask(layer, drawn), tuple(ranked.pairs), draw)

    def _masked(
        self, masked: Classifier, batch: Batch, results: Mapping[str, AttackResult], one: _Masked
    ) -> Iterator[dict[str, Any]]:
        """Yield what each image is with one mask."""
        logits = masked.logits(batch.images)
        # Without labels, what the classifier without a mask saw counts as true.
        seen = next(iter(results.values())).clean_logits.argmax(1)
        clean = batch.right(logits.argmax(1), seen)
        for name, result in results.items():
            old = batch.right(masked.predict(result.attempted), seen)
            attack = self._attack(name) if one.draw == 0 else None
            anew = [{}] * len(old) if attack is None else _attacked_again(attack, masked, batch, result, clean, logits)
            for place, (was, kind, more) in enumerate(zip(old, outcomes(batch, result), anew, strict=True)):
                about = {"place": place, "attack": name, "outcome": kind, "clean": clean[place], "old": was}
                yield {**about, **one.about(), **more}

    def _attack(self, name: str) -> Any:
        """Return the attack of a name, or None if it is not to be run again, or cannot be."""
        if self.again:
            try:
                return attack_named(name, self.attacks)
            except WhyfooledError:
                return None
        return None

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each adversarial image whether it is right with the most units masked, the most sensitive ones."""
        own = [row for row in rows if row.get("choice") == MOST]
        most = max((row["units"] for row in own), default=0)
        return [float(row["old"]) for row in own if row["units"] == most]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Accuracies with every mask, paired differences to none and to random units, and what they say."""
        return summary(table, seed)

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw the accuracies over the number of masked units, a panel for each and a row for each attack and layer."""
        rows = panels(points(table, seed))
        return bands_grid(rows, x="units masked", y="accuracy", references=[NONE], free=LENGTH)


@final
@dataclass(frozen=True, eq=False)
class _Masked:
    """One mask: of which units, and the attacks that it is held against."""

    layer: Layer
    choice: str
    number: int
    mask: Mask
    attacks: tuple[str, ...]
    draw: int = 0

    def about(self) -> dict[str, Any]:
        facts = {"layer": self.layer.name, "layer_units": self.layer.units, "choice": self.choice, "units": self.number}
        return facts | _if(self.choice == RANDOM, draw=self.draw)


def _mask(layer: Layer, units: Tensor) -> Mask:
    return torch.zeros(layer.units, dtype=torch.bool).index_fill(0, units, True)


def _if(there: bool, **facts: Any) -> dict[str, Any]:
    return facts if there else {}


def _lengths(result: AttackResult) -> list[float]:
    lengths: list[float] = (result.attempted - result.clean).flatten(1).norm(dim=1).tolist()
    return lengths


def _attacked_again(
    attack: Any, masked: Classifier, batch: Batch, result: AttackResult, clean: Sequence[bool], logits: Tensor
) -> list[dict[str, Any]]:
    """Attack a masked classifier, with the goal that the attack had; what is wrong already stays as it is."""
    found: list[dict[str, Any]] = [{"again": right} for right in clean]
    reached = result.goal.reached(logits).tolist()
    places = [place for place, right in enumerate(clean) if right and not reached[place]]
    if not places:
        return found
    some = part_of(batch, places)
    chosen = torch.tensor(places, device=batch.images.device)
    new = run_attack(attack, masked, some.images, result.goal.select(chosen))
    right = some.right(new.predictions, result.clean_logits[chosen].argmax(1))
    lengths, forwards, backwards = _lengths(new), new.forwards.tolist(), new.backwards.tolist()
    for number, place in enumerate(places):
        found[place] = {"again": right[number], "forwards": forwards[number], "backwards": backwards[number]}
        found[place] |= _if(not right[number], length=lengths[number])
    return found
