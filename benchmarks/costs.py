"""What a study will cost, from a few images: passes of each times seconds of a pass, and the rest. And is it so."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._timing import clock, time_passes
from whyfooled import Classifier, load_classifier
from whyfooled.classifier.memory import batch_size_for
from whyfooled.sources import Source, open_source
from whyfooled.studies import run_study

SHARD = 16
AGREES = 0.15
"""By which share a prediction may be off."""


@dataclass(frozen=True)
class Spent:
    """What a run came to: passes, and seconds of user and system time, once and on the images together."""

    images: int
    forwards: int
    backwards: int
    once: float
    shards: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.once + self.shards


@dataclass(frozen=True)
class Cost:
    """A cost model: seconds of a forward pass of an image, and of what a backward pass adds; passes; and the rest."""

    forward: float
    backward: float
    sample: Spent

    @property
    def passes(self) -> float:
        """Seconds an image that its passes take."""
        forwards, backwards = self.sample.forwards * self.forward, self.sample.backwards * self.backward
        return (forwards + backwards) / self.sample.images

    @property
    def rest(self) -> float:
        """Seconds an image that everything else takes: reading, search directions, maps, counting."""
        return self.sample.shards / self.sample.images - self.passes

    def predict(self, images: int) -> float:
        """Return seconds of one core."""
        return self.sample.once + images * (self.passes + self.rest)


def run(
    study: str,
    data: str,
    model: str,
    weights: str | None,
    sample: int,
    check: Sequence[int],
    images: int,
    machines: Sequence[int],
    cores: int,
) -> None:
    torch.set_num_threads(1)
    classifier, source = load_classifier(model, weights=weights), open_source(data)
    size = batch_size_for(classifier)
    forward, backward = (seconds / size for seconds in time_passes(classifier, size))
    print(f"{study} on {classifier.name}, batches of {size}, one thread; seconds of user and system time")
    print(f"a pass of one image: forward {forward:.4g} s, backward {backward:.4g} s more")
    # What is done the first time alone, such as loading libraries, is nobody's.
    _spend(study, classifier, source, 2)
    cost = Cost(forward, backward, _spend(study, classifier, source, sample))
    found = cost.sample
    print(
        f"on {sample} images: {found.forwards / sample:.1f} forward and {found.backwards / sample:.1f} backward passes "
        f"an image; an image takes {cost.passes + cost.rest:.3g} s, of which passes {cost.passes:.3g} s and the rest "
        f"{cost.rest:.3g} s; once {found.once:.3g} s"
    )
    print(f"\n{images} images on machines of {cores} cores each, a worker on each core:")
    for count in machines:
        hours = (cost.predict(images) - found.once) / (count * cores) / 3600
        print(f"{count:>4} {'machine: ' if count == 1 else 'machines:'} {hours:8.2f} h")
    if check:
        _compare(cost, [_spend(study, classifier, source, count) for count in check])


def _compare(cost: Cost, runs: Sequence[Spent]) -> None:
    table = Table("images", "passes an image", "predicted", "measured", "measured / predicted", f"within {AGREES:.0%}")
    for spent in runs:
        ratio = spent.seconds / cost.predict(spent.images)
        passes = f"{spent.forwards / spent.images:.1f} + {spent.backwards / spent.images:.1f}"
        predicted, measured = f"{cost.predict(spent.images):.1f} s", f"{spent.seconds:.1f} s"
        agrees = "yes" if abs(ratio - 1) <= AGREES else "NO"
        table.add_row(str(spent.images), passes, predicted, measured, f"{ratio:.3f}", agrees)
    Console().print(table)


def _spend(study: str, classifier: Classifier, source: Source, count: int) -> Spent:
    moments = [clock()]
    with tempfile.TemporaryDirectory() as folder:
        result = run_study(
            study,
            source,
            Path(folder) / "run",
            model=classifier,
            count=count,
            shard_size=SHARD,
            workers=1,
            device="cpu",
            report=lambda progress: moments.append(clock()),
        )
    shards = moments[-1] - moments[1]
    about = result.about
    return Spent(count, about["forwards"], about["backwards"], clock() - moments[0] - shards, shards)
