"""The two passes of a dissection over the annotated images: thresholds first, then overlaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import Layer, activations
from whyfooled.classifier.workers import share_out
from whyfooled.images import to_tensor
from whyfooled.types import Progress
from whyfooled.units.concepts import Concepts
from whyfooled.units.dissection.tally import Labels, Spread, Tally, count_codes, encode_labels, find_active_pixels
from whyfooled.units.dissection.thresholds import Largest, Moments, TopImages, arrange_by_unit, ranks, share_units_out


@final
@dataclass(frozen=True, eq=False)
class AnnotatedRun:
    """The annotated images, and what the layers give for them, a batch at a time."""

    classifier: Classifier
    layers: Sequence[Layer]
    concepts: Concepts
    batch_size: int
    progress: Progress

    def maps(self, doing: str) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Go through all images once: their places in the list, and the layers' maps."""
        total = len(self.concepts)
        batches = [range(total)[start : start + self.batch_size] for start in range(0, total, self.batch_size)]
        read = (self._read(places) for places in batches)
        for places, maps in zip(batches, share_out(self.classifier, self.run, read), strict=True):
            yield list(places), maps
            self.progress(places[-1] + 1, total, doing)

    def _read(self, places: Iterable[int]) -> list[Tensor]:
        pictures = (self.concepts.reader.picture(place) for place in places)
        return [to_tensor(self.classifier.fit(one), self.classifier.channels) for one in pictures]

    def run(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return what the layers give for some images, in single precision."""
        outputs = activations(self.classifier, self.layers, torch.stack(list(images)).to(self.classifier.mean))
        return {name: maps.float() for name, maps in outputs.items()}


@final
@dataclass(frozen=True, eq=False)
class Survey:
    """What the first pass found of one layer's u units."""

    positions: int
    threshold: Float[Tensor, " u"]
    above: Int[Tensor, " u"]
    moments: Moments
    tops: TopImages


def survey(images: AnnotatedRun, top: float, most: int) -> dict[str, Survey]:
    """Find thresholds, moments and top images; the units take turns where not all fit."""
    positions = {layer.name: layer.places * len(images.concepts) for layer in images.layers}
    keep = {name: ranks(top, count) + 1 for name, count in positions.items()}
    moments = {layer.name: Moments() for layer in images.layers}
    tops = {layer.name: TopImages(layer, most) for layer in images.layers}
    parts_of: dict[str, list[tuple[Tensor, Tensor]]] = {layer.name: [] for layer in images.layers}
    for turn, units in enumerate(share_units_out(images.layers, keep)):
        largest = {name: Largest(keep[name]) for name in units}
        for places, maps in images.maps("thresholds"):
            for name, layer_maps in maps.items():
                if turn == 0:
                    moments[name].add(arrange_by_unit(layer_maps))
                    tops[name].add(places, layer_maps)
                if name in units:
                    largest[name].add(arrange_by_unit(layer_maps[:, units[name]]))
        for name, values in largest.items():
            parts_of[name].append(values.threshold())
    surveys = {}
    for name, parts in parts_of.items():
        threshold, above = (torch.cat(part) for part in zip(*parts, strict=True))
        surveys[name] = Survey(positions[name], threshold, above, moments[name], tops[name])
    return surveys


@final
@dataclass(frozen=True, eq=False)
class Counts:
    """What the second pass counted.

    Parameters
    ----------
    area
        (c,) Pixels that show each concept.
    seen
        The share of all annotated pixels that the classifier sees.
    tallies
        For each layer the counts.
    spread
        For each layer how they are spread over images.
    permuted
        For each layer the counts for each permutation of the annotations among the images.
    """

    area: Int[Tensor, " c"]
    seen: float
    tallies: Mapping[str, Tally]
    spread: Mapping[str, Spread]
    permuted: Mapping[str, Sequence[Tally]]


def make_permutation_groups(images: int, permutations: int, batch_size: int, seed: int) -> Sequence[Sequence[int]]:
    """Divide the images into groups at random, within which annotations can be permuted in so many ways."""
    if not permutations:
        return [range(images)[start : start + batch_size] for start in range(0, images, batch_size)]
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return [group.tolist() for group in order.tensor_split(max(1, images // (permutations + 1)))]


def count(
    images: AnnotatedRun, groups: Sequence[Sequence[int]], permutations: int, surveys: Mapping[str, Survey]
) -> Counts:
    """Count where units and concepts overlap, in the images' own annotations and in others'."""
    concepts, device = images.concepts, images.classifier.device
    # None, if there is no other image.
    permutations = min(permutations, len(concepts) - 1)
    tallies = {
        layer.name: [
            Tally(layer.units, concepts.category_of, len(concepts.categories), device) for _ in range(1 + permutations)
        ]
        for layer in images.layers
    }
    spreads = {layer.name: Spread(layer.units, len(concepts.names), device) for layer in images.layers}
    area = torch.zeros(len(concepts.names), dtype=torch.int64, device=device)
    seen = whole = done = 0
    for group in groups:
        fitted: list[Tensor] = []
        labels: list[Labels] = []
        for place in group:
            annotated = concepts[place]
            image, cut = annotated.fitted(images.classifier.fit, images.classifier.channels)
            own_labels = encode_labels(cut.to(device), annotated.whole, annotated.categories)
            area[own_labels.concepts] += own_labels.area()
            seen, whole = seen + own_labels.codes.numel(), whole + annotated.maps.shape[1] * annotated.maps.shape[2]
            fitted.append(image)
            labels.append(own_labels)
        starts = range(0, len(group), images.batch_size)
        batches = [fitted[start : start + images.batch_size] for start in starts]
        for start, outputs in zip(starts, share_out(images.classifier, images.run, batches), strict=True):
            for name, maps in outputs.items():
                for number, excess in enumerate(maps - surveys[name].threshold.view(1, -1, 1, 1), start):
                    # Its own annotation first, then those that permutations give it.
                    given = [labels[(number + shift) % len(labels)] for shift in range(1 + permutations)]
                    counted = _count_overlaps(excess, given)
                    shared, *_ = [
                        tally.add(counts, of) for tally, counts, of in zip(tallies[name], counted, given, strict=True)
                    ]
                    spreads[name].add(counted[0].any(1), shared, given[0])
            done += min(images.batch_size, len(group) - start)
            images.progress(done, len(concepts), "overlaps")
    return Counts(
        area,
        seen / whole,
        {name: tally for name, (tally, *_) in tallies.items()},
        spreads,
        {name: permuted for name, (_, *permuted) in tallies.items()},
    )


def _count_overlaps(excess: Float[Tensor, "u h w"], labels: Sequence[Labels]) -> list[Int[Tensor, "u k"]]:
    """Count one image's active pixels by the labels of several."""
    overlaps = [torch.zeros(len(excess), len(own.shown), dtype=torch.int64, device=excess.device) for own in labels]
    for size in {own.codes.shape for own in labels}:
        for unit, pixel in find_active_pixels(excess, (size[0], size[1])):
            for counts, annotation in zip(overlaps, labels, strict=True):
                if annotation.codes.shape == size:
                    counts += count_codes(unit, pixel, annotation, len(excess))
    return overlaps
