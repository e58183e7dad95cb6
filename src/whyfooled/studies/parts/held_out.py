"""Images that a study learns from before it measures the others: which they are, and going through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from whyfooled.errors import bad_parameter
from whyfooled.sources import class_map
from whyfooled.studies.prepare import Setting
from whyfooled.studies.run.job import as_batch, read_samples, reason_of
from whyfooled.studies.study import Batch
from whyfooled.tensors.randomness import choose

Seen = TypeVar("Seen")


def check_share(argument: str, share: float) -> None:
    """Raise `ParameterError` unless a share is above 0 and under 1."""
    if not 0 < share < 1:
        raise bad_parameter(argument, "must be above 0 and under 1", share)


def split(
    places: Sequence[int], share: float, seed: int, because: str = "some are learned from and not measured"
) -> tuple[list[int], list[int]]:
    """Draw which share of the images is learned from, rounded down, but at least one; return them and the others.

    Raises
    ------
    ParameterError
        If there are too few images to learn from some and measure others, with the reason for it.
    """
    total = len(places)
    if total < 2:
        raise bad_parameter("images", f"must be at least 2, because {because}", total)
    drawn = set(choose(total, max(1, int(share * total)), seed))
    first = [place for number, place in enumerate(places) if number in drawn]
    return first, [place for number, place in enumerate(places) if number not in drawn]


def over_batches(
    setting: Setting, places: Sequence[int], look: Callable[[Batch], Seen], doing: str
) -> tuple[list[Seen], list[str]]:
    """Look at images, batch after batch; an image that fails is left out, and named in the second list."""
    classes = class_map(setting.source, setting.classifier)
    seen: list[Seen] = []
    notes: list[str] = []
    for start in range(0, len(places), setting.batch_size):
        some = places[start : start + setting.batch_size]
        samples, unreadable = read_samples(setting.source, some)
        notes += [f"{row['image']} was left out: {row['error']}" for row in unreadable]
        waiting = [list(samples.values())] if samples else []
        while waiting:
            these = waiting.pop()
            try:
                seen.append(look(as_batch(setting.source, classes, setting.classifier, these, setting.seed)))
            except Exception as error:  # whatever a model or an attack of someone else's stumbles over on one image
                if len(these) == 1:
                    notes.append(f"{these[0].name} was left out: {reason_of(error)}")
                else:
                    waiting = [[sample] for sample in reversed(these)]
        setting.progress(min(start + setting.batch_size, len(places)), len(places), doing)
    return seen, notes
