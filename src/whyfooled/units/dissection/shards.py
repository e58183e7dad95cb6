"""What is done to some of the annotated images, wherever that is: the same shards and the same digits on every engine.

A shard of the survey is some batches, one of the counts is a group within which annotations are permuted. Both cut the
images into the same batches, since a batch's size and company decide about last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import Layer, activations
from whyfooled.classifier.passes import count_passes
from whyfooled.classifier.workers import share_out
from whyfooled.images import to_tensor
from whyfooled.units.concepts import Concepts
from whyfooled.units.dissection.tally import (
    Labels,
    Overlap,
    Spread,
    Tally,
    count_codes,
    encode_labels,
    find_active_pixels,
)
from whyfooled.units.dissection.thresholds import BatchMoments, Largest, TopImages, Tops, arrange_by_unit

Batches = Mapping[int, Sequence[int]]
"""Batches by their numbers: each the places of its images in the list."""
Maps = Mapping[str, Tensor]
"""What each layer gives for a batch, by name: (n,u,h,w), single precision."""


@final
@dataclass(frozen=True, eq=False)
class Workplace:
    """What a worker has: the classifier, the annotated images, and whom to tell of those that are done."""

    classifier: Classifier
    layers: Sequence[Layer]
    concepts: Concepts
    tick: Callable[[int], None]

    def read(self, places: Sequence[int]) -> list[Tensor]:
        """Read pictures, as the classifier takes them."""
        pictures = (self.concepts.reader.picture(place) for place in places)
        return [to_tensor(self.classifier.fit(one), self.classifier.channels) for one in pictures]

    def run(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return what the layers give for a batch."""
        outputs = activations(self.classifier, self.layers, torch.stack(list(images)).to(self.classifier.mean))
        return {name: maps.float() for name, maps in outputs.items()}


@runtime_checkable
class Shard(Protocol):
    """A task: which images, and what to do with them."""

    @property
    def count(self) -> int:
        """How many images it has."""

    def do(self, at: Workplace) -> Any:
        """Do it."""


@final
@dataclass(frozen=True, eq=False)
class DissectionWork:
    """Works on shards, and counts the forward passes; it can be sent to another machine."""

    concepts: Concepts
    layers: Sequence[Layer]

    def count(self, task: Shard) -> int:
        """Return how many images a shard has."""
        return task.count

    def __call__(self, classifier: Classifier, task: Shard, tick: Callable[[int], None]) -> tuple[Any, int]:
        """Work on a shard."""
        with count_passes(classifier) as passes:
            result = task.do(Workplace(classifier, self.layers, self.concepts, tick))
        return result, passes.forwards


@final
@dataclass(frozen=True, eq=False)
class Surveyed:
    """What a shard of the survey found; on the CPU.

    Parameters
    ----------
    largest
        For each layer whose turn it is, the largest activations of the units whose turn it is.
    moments
        For each batch, and each layer, the moments; of the first turn alone.
    tops
        For each layer the images in which units are most active; of the first turn alone.
    kept
        For each batch what the layers gave, if that is kept.
    """

    largest: Mapping[str, Tensor]
    moments: Mapping[int, Mapping[str, BatchMoments]]
    tops: Mapping[str, Tops]
    kept: Mapping[int, Maps]


@final
@dataclass(frozen=True, eq=False)
class SurveyShard:
    """Some batches, to look for thresholds in.

    Parameters
    ----------
    batches
        The images.
    units
        The units whose turn it is, for each layer that has some.
    keep
        How many activations of each unit are needed, for each layer.
    floors
        For each layer, above which activation of each unit that is; None where it is not known yet.
    tops
        For each layer, how large an activation an image needs to be among a unit's top images; nothing if that was
        looked for before, in the first turn.
    most
        How many top images each unit has.
    keep_maps
        Whether to keep what the layers give.
    """

    batches: Batches
    units: Mapping[str, slice]
    keep: Mapping[str, int]
    floors: Mapping[str, Tensor | None]
    tops: Mapping[str, Tensor]
    most: int
    keep_maps: bool

    @property
    def count(self) -> int:
        """How many images it has."""
        return sum(map(len, self.batches.values()))

    def do(self, at: Workplace) -> Surveyed:
        """Survey them."""
        largest = {name: Largest(self.keep[name], self.floors[name]) for name in self.units}
        tops = {
            layer.name: TopImages(layer, self.most, self.tops[layer.name])
            for layer in at.layers
            if layer.name in self.tops
        }
        moments: dict[int, dict[str, BatchMoments]] = {}
        kept: dict[int, Maps] = {}
        read = (at.read(places) for places in self.batches.values())
        outputs = share_out(at.classifier, at.run, read)
        for (number, places), maps in zip(self.batches.items(), outputs, strict=True):
            for name, layer_maps in maps.items():
                if name in tops:
                    moments.setdefault(number, {})[name] = BatchMoments.of(arrange_by_unit(layer_maps))
                    tops[name].add(places, layer_maps)
                if name in self.units:
                    largest[name].add(arrange_by_unit(layer_maps[:, self.units[name]]))
            if self.keep_maps:
                kept[number] = {name: layer_maps.cpu() for name, layer_maps in maps.items()}
            at.tick(len(places))
        return Surveyed(
            {name: values.kept().cpu() for name, values in largest.items()},
            moments,
            {name: images.of_interest() for name, images in tops.items()},
            kept,
        )


@final
@dataclass(frozen=True, eq=False)
class Counted:
    """What was counted in a group; on the CPU.

    Parameters
    ----------
    concepts
        (c,) The concepts that its images show; everything else is of these.
    area
        (c,) Pixels that show each.
    seen, whole
        How many annotated pixels the classifier sees, and how many there are.
    tallies
        For each layer the counts: of the images' own annotations, then of each permutation.
    spreads
        For each layer how the first are spread over the images.
    """

    concepts: Int[Tensor, " c"]
    area: Int[Tensor, " c"]
    seen: int
    whole: int
    tallies: Mapping[str, Sequence[Tally]]
    spreads: Mapping[str, Spread]


@final
@dataclass(frozen=True, eq=False)
class CountShard:
    """A group within which annotations are permuted, to count overlaps in.

    Parameters
    ----------
    batches
        The images.
    thresholds
        For each layer those of its units.
    permutations
        In how many ways annotations are permuted.
    kept
        For each batch what the layers gave for it, if that was kept; nothing if they are to be run.
    """

    batches: Batches
    thresholds: Mapping[str, Tensor]
    permutations: int
    kept: Mapping[int, Maps]

    @property
    def count(self) -> int:
        """How many images it has."""
        return sum(map(len, self.batches.values()))

    def do(self, at: Workplace) -> Counted:
        """Count."""
        device, concepts = at.classifier.device, at.concepts
        group = self._read(at)
        tallies = {
            layer.name: [
                Tally.of_nothing(layer.units, len(group.shown), len(concepts.categories), device)
                for _ in range(1 + self.permutations)
            ]
            for layer in at.layers
        }
        spreads = {layer.name: Spread.of_nothing(layer.units, len(group.shown), device) for layer in at.layers}

        def count_batch(batch: tuple[int, range]) -> tuple[range, dict[str, list[list[Overlap]]]]:
            number, places = batch
            outputs = self.kept[number] if self.kept else at.run([group.images[place] for place in places])
            return places, {name: self._count_batch(name, maps, places, group) for name, maps in outputs.items()}

        for places, counted in share_out(at.classifier, count_batch, self._list_batches()):
            for name, overlaps in counted.items():
                for place, of_image in zip(places, overlaps, strict=True):
                    for tally, overlap, given in zip(tallies[name], of_image, self._give(group, place), strict=True):
                        tally.add(overlap, given)
                    spreads[name].add(of_image[0], group.labels[place])
            at.tick(len(places))
        return Counted(
            group.shown.cpu(),
            group.area.cpu(),
            group.seen,
            group.whole,
            {name: [tally.to("cpu") for tally in own] for name, own in tallies.items()},
            {name: spread.to("cpu") for name, spread in spreads.items()},
        )

    def _list_batches(self) -> Iterator[tuple[int, range]]:
        """Give each batch's number, and the places of its images in the group."""
        start = 0
        for number, places in self.batches.items():
            yield number, range(start, start + len(places))
            start += len(places)

    def _read(self, at: Workplace) -> _Group:
        """Read the annotations, and where the layers are to be run, the pictures."""
        images: list[Tensor] = []
        labels: list[Labels] = []
        whole = 0
        for place in (place for places in self.batches.values() for place in places):
            annotated = at.concepts[place]
            if not self.kept:
                images.append(to_tensor(at.classifier.fit(annotated.image), at.classifier.channels))
            cut = annotated.cut(at.classifier.fit).to(at.classifier.device)
            labels.append(encode_labels(cut, annotated.whole, annotated.categories))
            whole += annotated.maps.shape[1] * annotated.maps.shape[2]
        shown = torch.unique(torch.cat([one.concepts for one in labels]))
        labels = [replace(one, concepts=torch.searchsorted(shown, one.concepts)) for one in labels]
        area = torch.zeros(len(shown), dtype=torch.int64, device=shown.device)
        for annotation in labels:
            area[annotation.concepts] += annotation.area()
        return _Group(images, labels, shown, area, sum(one.codes.numel() for one in labels), whole)

    def _give(self, group: _Group, place: int) -> list[Labels]:
        """Give an image its own annotation first, then those that permutations give it."""
        return [group.labels[(place + shift) % len(group.labels)] for shift in range(1 + self.permutations)]

    def _count_batch(self, name: str, maps: Tensor, places: range, group: _Group) -> list[list[Overlap]]:
        """Count, for each image of a batch, what a layer's units share with each annotation that it is given."""
        excess = maps.to(group.shown.device) - self.thresholds[name].to(group.shown.device).view(1, -1, 1, 1)
        return [_count_overlaps(one, self._give(group, place)) for one, place in zip(excess, places, strict=True)]


@final
@dataclass(frozen=True, eq=False)
class _Group:
    """A group's pictures, if they are needed, and annotations.

    The labels' concepts are places in `shown` (c,), which has those that any of them shows; `area` (c,) are the pixels
    that show each, `seen` and `whole` the annotated pixels that the classifier sees, and all.
    """

    images: Sequence[Tensor]
    labels: Sequence[Labels]
    shown: Int[Tensor, " c"]
    area: Int[Tensor, " c"]
    seen: int
    whole: int


def _count_overlaps(excess: Float[Tensor, "u h w"], labels: Sequence[Labels]) -> list[Overlap]:
    """Count one image's active pixels by the labels of several."""
    counts = [torch.zeros(len(excess), len(own.shown), dtype=torch.int64, device=excess.device) for own in labels]
    for size in {own.codes.shape for own in labels}:
        for unit, pixel in find_active_pixels(excess, (size[0], size[1])):
            for count, annotation in zip(counts, labels, strict=True):
                if annotation.codes.shape == size:
                    count += count_codes(unit, pixel, annotation, len(excess))
    return [Overlap(annotation.summed(count), count.sum(1)) for count, annotation in zip(counts, labels, strict=True)]
