"""What is done once, before the images of a study are measured: what it is given, and what it hands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes
from whyfooled.sources import Source
from whyfooled.types import Progress

PERTURBATIONS = "perturbations"
"""The folder of a run that keeps the universal perturbations that were fitted."""


@final
@dataclass(frozen=True, eq=False)
class Setting:
    """What a study is given to prepare itself with.

    Parameters
    ----------
    classifier
        The run's classifier.
    source
        Where its images come from.
    places
        Which of them the run is about, in order.
    labels
        The CSV file that says what photographs show, if there is one.
    folder
        Where the run writes to; what is found before the measurements may be kept there, and be read back by a run that
        goes on.
    seed
        Seed of everything random.
    batch_size
        Images worked on together.
    engine, address, workers
        The engine that the work is done on, as for `whyfooled.running.engines.choose_engine`.
    progress
        Called with the images done, the images in all, and what is being done.
    """

    classifier: Classifier
    source: Source
    places: Sequence[int]
    labels: Path | None
    folder: Path
    seed: int
    batch_size: int
    engine: str
    address: str | None
    workers: int | None
    progress: Progress


@final
@dataclass(frozen=True, eq=False)
class Prepared:
    """What a study found before the measurements.

    Parameters
    ----------
    places
        The images that are left to be measured, in order.
    carried
        What `Study.measure` finds in ``batch.prepared``; it is sent to the workers.
    passes
        What it took.
    notes
        What a reader of the summary should know.
    """

    places: Sequence[int]
    carried: Any = None
    passes: Passes = field(default_factory=Passes)
    notes: tuple[str, ...] = ()
