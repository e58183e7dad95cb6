"""Some images of a batch alone, such as those that the classifier gets right."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.studies.parts.attacked import ALREADY_WRONG
from whyfooled.studies.study import Batch
from whyfooled.types import Classes

TESTED = "tested"
"""The outcome of an image that counts, where nothing can be said of an attack."""


@final
@dataclass(frozen=True, eq=False)
class RightImages:
    """The m images of a batch that the classifier gets right: those that count.

    Parameters
    ----------
    batch
        These images alone.
    places
        Their places in the whole batch.
    wrong
        The places of those that the classifier gets wrong.
    classes
        (m,) What they show, which is what the classifier sees in them.
    """

    batch: Batch
    places: Sequence[int]
    wrong: Sequence[int]
    classes: Classes

    def wrong_rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each image that does not count."""
        return ({"place": place, "outcome": ALREADY_WRONG} for place in self.wrong)

    def rows(self, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield a row for each image that counts; tensors and lists have a value for each, the rest holds for all."""
        columns = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in facts.items()}
        several = {name: values for name, values in columns.items() if isinstance(values, list)}
        for number, place in enumerate(self.places):
            of_image = {name: values[number] for name, values in several.items()}
            yield {"place": place, "outcome": TESTED, **columns, **of_image}


def right_images(classifier: Classifier, batch: Batch, leaving_out: Collection[int] = ()) -> RightImages:
    """Pick out the images of a batch that the classifier gets right; those left out are neither right nor wrong."""
    seen = classifier.predict(batch.images)
    sides: dict[bool, list[int]] = {True: [], False: []}
    for place, right in enumerate(batch.right(seen, seen)):
        if place not in leaving_out:
            sides[right].append(place)
    part = part_of(batch, sides[True])
    return RightImages(part, sides[True], sides[False], seen[torch.tensor(sides[True], device=seen.device).long()])


def part_of(batch: Batch, places: Sequence[int]) -> Batch:
    """Return some images of a batch alone."""
    chosen = torch.tensor(places, dtype=torch.long, device=batch.images.device)
    return Batch(
        names=tuple(batch.names[place] for place in places),
        images=batch.images[chosen],
        labels=tuple(batch.labels[place] for place in places),
        adversaries={attack: result.select(chosen) for attack, result in batch.adversaries.items()},
        seed=batch.seed,
        prepared=batch.prepared,
        sizes=tuple(batch.sizes[place] for place in places) if batch.sizes else (),
    )
