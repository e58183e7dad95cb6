"""A dissection over all annotated images: thresholds first, then overlaps, put together from shards in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whyfooled.classifier.layers import Layer
from whyfooled.running.engines import Crew, in_order
from whyfooled.types import Progress
from whyfooled.units.concepts import Concepts
from whyfooled.units.dissection.shards import Counted, CountShard, Maps, Shard, Surveyed, SurveyShard
from whyfooled.units.dissection.tally import Spread, Tally
from whyfooled.units.dissection.thresholds import Largest, Moments, TopImages, ranks, share_units_out

GIB = 2**30
_MOST_IMAGES, _MOST_ACTIVATIONS = 32, 2**26
"""How many images a shard of the survey has at most, and activations of the layers asked for, unless a batch has more:
what a worker holds of a shard does not grow with the number of images. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """How the images of a dissection are gone through: the same for any number of workers, on any engine.

    Parameters
    ----------
    layers
        The layers.
    concepts
        The annotated images.
    groups
        Groups of batches, within which annotations are permuted.
    permutations
        In how many ways.
    top
        The share of a unit's activations above its threshold.
    most
        How many top images each unit has.
    keep_maps
        Whether what the layers give is kept, so that images go through the classifier once.
    turns
        For each pass over the images, the units whose thresholds are looked for, by layer.
    """

    layers: Sequence[Layer]
    concepts: Concepts
    groups: Sequence[Mapping[int, Sequence[int]]]
    permutations: int
    top: float
    most: int
    keep_maps: bool
    turns: Sequence[Mapping[str, slice]]

    @staticmethod
    def of(
        layers: Sequence[Layer],
        concepts: Concepts,
        *,
        permutations: int,
        top: float,
        most: int,
        batch_size: int,
        memory: float,
        seed: int,
    ) -> Plan:
        """Make a plan: activations are kept if they take at most so many GiB, and thresholds no more than one turn."""
        images = len(concepts)
        turns = list(share_units_out(layers, {layer.name: ranks(top, layer.places * images) + 1 for layer in layers}))
        needed = 4 * images * count_activations(layers)
        return Plan(
            layers=layers,
            concepts=concepts,
            groups=_cut(_make_permutation_groups(images, permutations, batch_size, seed), batch_size),
            # None, if there is no other image.
            permutations=min(permutations, images - 1),
            top=top,
            most=min(most, images),
            keep_maps=len(turns) == 1 and needed <= memory * GIB,
            turns=turns,
        )

    @property
    def batches(self) -> dict[int, Sequence[int]]:
        """All batches, by their numbers."""
        return {number: places for group in self.groups for number, places in group.items()}

    def keep(self, layer: Layer) -> int:
        """How many of a unit's activations decide about its threshold."""
        return ranks(self.top, self.positions(layer)) + 1

    def positions(self, layer: Layer) -> int:
        """How many activations each unit of a layer has in all images."""
        return layer.places * len(self.concepts)

    def survey_shards(self) -> list[dict[int, Sequence[int]]]:
        """Divide the batches into shards, in order."""
        most = max(1, min(_MOST_IMAGES, _MOST_ACTIVATIONS // count_activations(self.layers)))
        shards: list[dict[int, Sequence[int]]] = []
        for number, places in self.batches.items():
            if not shards or sum(map(len, shards[-1].values())) + len(places) > most:
                shards.append({})
            shards[-1][number] = places
        return shards


def count_activations(layers: Sequence[Layer]) -> int:
    """Count what layers give for one image."""
    return sum(layer.units * layer.places for layer in layers)


def _make_permutation_groups(images: int, permutations: int, batch_size: int, seed: int) -> Sequence[Sequence[int]]:
    """Divide the images into groups at random, within which annotations can be permuted in so many ways."""
    if not permutations:
        size = batch_size * max(1, _MOST_IMAGES // batch_size)
        return [range(images)[start : start + size] for start in range(0, images, size)]
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return [group.tolist() for group in order.tensor_split(max(1, images // (permutations + 1)))]


def _cut(groups: Sequence[Sequence[int]], batch_size: int) -> list[dict[int, Sequence[int]]]:
    """Cut groups into batches, numbered throughout."""
    cut: list[dict[int, Sequence[int]]] = []
    number = 0
    for group in groups:
        batches = [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
        cut.append(dict(enumerate(batches, number)))
        number += len(batches)
    return cut


@final
@dataclass(frozen=True, eq=False)
class Survey:
    """What was found of one layer's u units before anything is counted."""

    positions: int
    threshold: Float[Tensor, " u"]
    above: Int[Tensor, " u"]
    moments: Moments
    tops: TopImages


@dataclass(eq=False)
class Standing:
    """How far a dissection is, and what it has found so far; what it takes to go on from there.

    Parameters
    ----------
    turn
        How many passes over the images are finished.
    done
        How many shards of the one in work are.
    forwards
        Forward passes so far.
    seconds
        How long each stage took so far.
    moments, tops
        For each layer.
    largest
        For each layer whose turn it is, the largest activations.
    thresholds
        For each layer the thresholds that are found, and how many activations are above them, turn by turn.
    kept
        For each shard of the survey, and each of its batches, what the layers gave, if that is kept.
    counts
        What was counted, once that has begun.
    settled
        False in between, while what a shard gave is put together.
    """

    turn: int = 0
    done: int = 0
    forwards: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    tops: dict[str, TopImages] = field(default_factory=dict)
    largest: dict[str, Largest] = field(default_factory=dict)
    thresholds: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    kept: dict[int, Mapping[int, Maps]] = field(default_factory=dict)
    counts: Counts | None = None
    settled: bool = True


@dataclass(eq=False)
class Counts:
    """What is counted; all on the CPU.

    Parameters
    ----------
    area
        (c,) Pixels that show each concept.
    seen, whole
        How many annotated pixels the classifier sees, and how many there are.
    tallies
        For each layer the counts: of the images' own annotations, then of each permutation of them among the images.
    spreads
        For each layer how the first are spread over images.
    """

    area: Int[Tensor, " c"]
    seen: int
    whole: int
    tallies: Mapping[str, Sequence[Tally]]
    spreads: Mapping[str, Spread]

    @staticmethod
    def of_nothing(plan: Plan) -> Counts:
        """Return what is counted before the first image."""
        concepts, categories = len(plan.concepts.names), len(plan.concepts.categories)
        return Counts(
            torch.zeros(concepts, dtype=torch.int64),
            0,
            0,
            {
                layer.name: [Tally.of_nothing(layer.units, concepts, categories) for _ in range(1 + plan.permutations)]
                for layer in plan.layers
            },
            {layer.name: Spread.of_nothing(layer.units, concepts) for layer in plan.layers},
        )

    def take(self, counted: Counted) -> None:
        """Add what was counted in a group."""
        self.area[counted.concepts] += counted.area
        self.seen, self.whole = self.seen + counted.seen, self.whole + counted.whole
        for name, tallies in counted.tallies.items():
            for total, tally in zip(self.tallies[name], tallies, strict=True):
                total.take(tally, counted.concepts)
            self.spreads[name].take(counted.spreads[name], counted.concepts)


@final
@dataclass(frozen=True, eq=False)
class Going:
    """What goes over the images: the plan, the workers, how it stands, and who is told each time that it is further."""

    plan: Plan
    crew: Crew[Shard, tuple[Any, int]]
    standing: Standing
    progress: Progress
    save: Callable[[Standing], None]

    def survey(self) -> dict[str, Survey]:
        """Find thresholds, moments and top images; the units take turns where not all fit."""
        plan, standing = self.plan, self.standing
        for units in plan.turns[standing.turn :]:
            if not standing.done:
                standing.largest = {
                    layer.name: Largest(plan.keep(layer)) for layer in plan.layers if layer.name in units
                }
            self._take_turn(units)
            standing.settled = False
            for name, largest in standing.largest.items():
                standing.thresholds.setdefault(name, []).append(largest.threshold())
            standing.turn, standing.done, standing.largest = standing.turn + 1, 0, {}
            standing.settled = True
        surveys = {}
        for layer in plan.layers:
            parts = standing.thresholds[layer.name]
            threshold, above = (torch.cat(part) for part in zip(*parts, strict=True))
            moments, tops = standing.moments[layer.name], standing.tops[layer.name]
            surveys[layer.name] = Survey(plan.positions(layer), threshold, above, moments, tops)
        return surveys

    def _take_turn(self, units: Mapping[str, slice]) -> None:
        """Go over all images once for the thresholds of some units; the first time for everything else too."""
        plan, standing = self.plan, self.standing
        first = standing.turn == 0
        if first and not standing.tops:
            standing.tops = {layer.name: TopImages(layer, plan.most) for layer in plan.layers}
        keep = {layer.name: plan.keep(layer) for layer in plan.layers}

        def make(batches: Mapping[int, Sequence[int]]) -> SurveyShard:
            # What is known by now spares the workers what can no longer make a difference.
            floors = {name: largest.floor for name, largest in standing.largest.items()}
            tops = {name: images.floor.clone() for name, images in standing.tops.items()} if first else {}
            return SurveyShard(batches, units, keep, floors, tops, plan.most, plan.keep_maps)

        for shard, surveyed in self._results(plan.survey_shards(), make, "thresholds"):
            self._take(shard, surveyed)

    def _take(self, shard: int, surveyed: Surveyed) -> None:
        standing = self.standing
        for name, values in surveyed.largest.items():
            standing.largest[name].add(values)
        for batch in surveyed.moments.values():
            for name, moments in batch.items():
                before = standing.moments.get(name)
                standing.moments[name] = Moments(moments) if before is None else before.after(moments)
        for name, tops in surveyed.tops.items():
            standing.tops[name].take(tops)
        if surveyed.kept:
            standing.kept[shard] = surveyed.kept

    def count(self, surveys: Mapping[str, Survey]) -> Counts:
        """Count where units and concepts overlap, in the images' own annotations and in others'."""
        plan, standing = self.plan, self.standing
        thresholds = {name: survey.threshold for name, survey in surveys.items()}
        counts = standing.counts = standing.counts or Counts.of_nothing(plan)
        kept = {number: maps for batches in standing.kept.values() for number, maps in batches.items()}

        def make(batches: Mapping[int, Sequence[int]]) -> CountShard:
            known_maps = {number: kept[number] for number in batches} if kept else {}
            return CountShard(batches, thresholds, plan.permutations, known_maps)

        for _, counted in self._results(plan.groups, make, "overlaps"):
            counts.take(counted)
        return counts

    def _results(
        self,
        shards: Sequence[Mapping[int, Sequence[int]]],
        make: Callable[[Mapping[int, Sequence[int]]], Shard],
        doing: str,
    ) -> Iterator[tuple[int, Any]]:
        """Give the results of the shards that are left, in their order."""
        standing, total = self.standing, len(self.plan.concepts)
        tasks = _Tasks({number: shards[number] for number in range(standing.done, len(shards))}, make)
        done = sum(len(places) for shard in shards[: standing.done] for places in shard.values())
        started = time.perf_counter() - standing.seconds.get(doing, 0.0)

        def tick(images: int) -> None:
            nonlocal done
            done += images
            self.progress(done, total, doing)

        for number, (result, forwards) in in_order(self.crew.run(tasks, tick), tasks):
            standing.settled = False
            yield number, result
            standing.forwards += forwards
            standing.done += 1
            standing.seconds[doing] = time.perf_counter() - started
            standing.settled = True
            self.save(standing)


@final
class _Tasks(Mapping[int, Shard]):
    """Tasks that are made when a worker takes them, of what is known by then."""

    def __init__(
        self, shards: Mapping[int, Mapping[int, Sequence[int]]], make: Callable[[Mapping[int, Sequence[int]]], Shard]
    ) -> None:
        self.shards, self.make = shards, make

    def __getitem__(self, number: int) -> Shard:
        return self.make(self.shards[number])

    def __iter__(self) -> Iterator[int]:
        return iter(self.shards)

    def __len__(self) -> int:
        return len(self.shards)
