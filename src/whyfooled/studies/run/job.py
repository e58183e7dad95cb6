"""One shard of a study, from reading its images to the bytes of its table: the same code whichever engine calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.classifier.workers import most_together
from whyfooled.errors import WhyfooledError, first_line, hearing
from whyfooled.running.kept import FileKind, encode_tensors, is_text, storable_text
from whyfooled.running.publishing import hide_all_folders, hide_folders
from whyfooled.sources import Sample, Source, mapped
from whyfooled.studies.study import Batch, Measured, Study
from whyfooled.studies.table import encode

MAPS = FileKind("file of maps", 2, "whyfooled study --maps", {"run": is_text})


@final
@dataclass(frozen=True, eq=False)
class Job:
    """Everything a worker needs to measure shards of a study; it can be sent to another machine.

    Parameters
    ----------
    study
        What to measure.
    source
        Where the images come from.
    indices
        Which of them, in order.
    class_map
        The classifier's class for each label of the source; None if the labels are the classes, or there are none.
    run
        Digest of everything that makes it this run and no other.
    seed
        Seed of everything random.
    batch_size
        Images measured together, at most.
    shard_size
        Images in a shard.
    keep_maps
        Whether to keep the saliency maps.
    prepared
        What the study found before.
    """

    study: Study
    source: Source
    indices: Sequence[int]
    class_map: tuple[int, ...] | None
    run: str
    seed: int
    batch_size: int
    shard_size: int
    keep_maps: bool
    prepared: Any = None

    @property
    def shards(self) -> range:
        """The shards' numbers."""
        return range(-(-len(self.indices) // self.shard_size))

    def images_of(self, shard: int) -> Sequence[int]:
        """Return the places in the source of a shard's images."""
        return self.indices[shard * self.shard_size : (shard + 1) * self.shard_size]

    def count(self, task: int) -> int:
        """Return how many images a shard has."""
        return len(self.images_of(task))

    def __call__(self, classifier: Classifier, task: int, tick: Callable[[int], None]) -> Finished:
        """Measure a shard's images, batch after batch; `tick` is told how many more images are done."""
        rows: list[dict[str, Any]] = []
        maps: dict[str, Tensor] = {}
        indices = self.images_of(task)
        with hearing() as heard, count_passes(classifier) as passes:
            size = most_together(classifier, self.batch_size)
            for start in range(0, len(indices), size):
                some = indices[start : start + size]
                samples, unreadable = read_samples(self.source, some)
                rows += unreadable
                for measured, kept in _measure(self, classifier, samples, passes):
                    rows += measured
                    maps |= kept
                tick(len(some))
        place = {index: number for number, index in enumerate(indices)}
        rows.sort(key=lambda row: place[row["index"]])
        good = [row for row in rows if "error" not in row]
        headline = [value for value in self.study.headline_values(good) if value == value] if good else []
        about = {
            "run": self.run,
            "shard": task,
            "forwards": passes.forwards,
            "backwards": passes.backwards,
            "notes": sorted(heard),
            "good": len(good),
            "headline": [sum(headline), len(headline)],
        }
        content = encode_tensors(MAPS, maps, {"run": self.run}) if self.keep_maps else None
        return Finished(task, about, encode(rows, self.study.columns, about), content)


@final
@dataclass(frozen=True)
class Finished:
    """A shard that was measured.

    Parameters
    ----------
    shard
        Its number.
    about
        What is kept beside its rows: passes, notes, the sum and the number of the headline's values.
    table
        Its rows, as a Parquet file.
    maps
        Its saliency maps, as a safetensors file, if they are kept.
    """

    shard: int
    about: Mapping[str, Any]
    table: bytes
    maps: bytes | None


def read_samples(source: Source, indices: Sequence[int]) -> tuple[dict[int, Sample], list[dict[str, Any]]]:
    """Read images, by their places in the source; of those that cannot be read, a row with the reason."""
    samples: dict[int, Sample] = {}
    unreadable: list[dict[str, Any]] = []
    for index in indices:
        try:
            samples[index] = source[index]
        except Exception as error:  # a damaged file makes a reader stumble over anything
            unreadable.append({"index": index, "image": source.name(index), "error": reason_of(error)})
    return samples, unreadable


def _measure(
    job: Job, classifier: Classifier, samples: Mapping[int, Sample], passes: Passes
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Tensor]]]:
    """Measure a batch; if one of its images cannot be measured, each on its own, so that the others are not lost."""
    if not samples:
        return
    reason = ""
    try:
        batch = as_batch(job.source, job.class_map, classifier, list(samples.values()), job.seed, job.prepared)
        measured = job.study.measure(classifier, batch)
        passes.add(measured.passes)
        named = _name_rows(measured, samples), _name_maps(measured, samples) if job.keep_maps else {}
    except Exception as error:  # whatever a model or an attack of someone else's stumbles over on one image
        reason = reason_of(error)
    # Outside of the handler, whose error would keep the memory of the whole batch.
    if not reason:
        yield named
    elif len(samples) == 1:
        ((index, sample),) = samples.items()
        yield [{"index": index, "image": sample.name, "error": reason}], {}
    else:
        for index, sample in samples.items():
            yield from _measure(job, classifier, {index: sample}, passes)


def _name_rows(measured: Measured, samples: Mapping[int, Sample]) -> list[dict[str, Any]]:
    """Give each row its image's number and name in place of its place in the batch."""
    named = [{"index": index, "image": sample.name} for index, sample in samples.items()]
    # What a row says of files is for others to read, as all that is written from it.
    rows = [(row["place"], {key: value for key, value in row.items() if key != "place"}) for row in measured.rows]
    return [named[place] | hide_all_folders(facts) for place, facts in rows]


def _name_maps(measured: Measured, samples: Mapping[int, Sample]) -> dict[str, Tensor]:
    return {
        storable_text(f"{sample.name}/{name}"): maps[place]
        for name, maps in measured.maps.items()
        for place, sample in enumerate(samples.values())
    }


def reason_of(error: Exception) -> str:
    """Say in a line what went wrong; an error that is not this package's, with its type."""
    if isinstance(error, WhyfooledError):
        return hide_folders(str(error))
    return f"{type(error).__name__}: {hide_folders(first_line(error))}" if str(error).strip() else type(error).__name__


def as_batch(
    source: Source,
    class_map: tuple[int, ...] | None,
    classifier: Classifier,
    samples: Sequence[Sample],
    seed: int,
    prepared: Any = None,
) -> Batch:
    """Put images of a source together, as the classifier takes them."""
    saved = {
        attack: AttackResult.join([sample.adversaries[attack] for sample in samples]).to(classifier.device)
        for attack in source.attacks
    }
    images = torch.stack([sample.fitted(classifier.fit, classifier.channels) for sample in samples])
    return Batch(
        names=tuple(sample.name for sample in samples),
        images=images.to(classifier.mean),
        labels=tuple(mapped(sample.labels, class_map) for sample in samples),
        adversaries=saved,
        seed=seed,
        prepared=prepared,
        sizes=tuple(sample.size for sample in samples),
    )
