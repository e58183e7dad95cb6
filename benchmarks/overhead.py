"""What an explanation costs beyond its passes: its time, over that of as many plain passes in batches as large."""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._timing import clock, time_passes
from whyfooled import Classifier, Explanation, explain, load_classifier
from whyfooled.classifier.borrowing import hooked_before
from whyfooled.images import example_photograph

LIMIT = 1.3
"""How many times the time of its passes an explanation may take."""


@dataclass(frozen=True)
class _Calls:
    """How often the classifier was called with so many images, forwards and backwards."""

    forwards: Counter[int] = field(default_factory=Counter)
    backwards: Counter[int] = field(default_factory=Counter)


class _Note(torch.autograd.Function):
    """The identity, which notes how many images a backward pass is of."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, noted: Counter[int]) -> Tensor:
        ctx.noted = noted
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.noted[len(gradients[0])] += 1
        return gradients[0], None


def run(models: str, weights: str | None, attack: str, repeats: int) -> None:
    """Explain the example with each model, in one thread, and print how its time compares with that of its passes."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {attack}; seconds of user and system time, medians of {repeats}")
    print(f"{'model':30}{'forwards':>9}{'backwards':>10}{'passes, s':>11}{'explained':>10}{'ratio':>7}{'written':>9}")
    for name in models.split(","):
        _measure(load_classifier(name, weights=weights), attack, repeats)


def _measure(classifier: Classifier, attack: str, repeats: int) -> None:
    photograph = example_photograph()
    with _noting(classifier) as calls:
        # Also so that what is done the first time alone, such as loading libraries, is nobody's.
        _save(explain(classifier, photograph, attack=attack))
    times: dict[str, list[float]] = {"passes": [], "explained": [], "written": []}
    for _ in range(repeats):
        times["passes"].append(_time_passes(classifier, calls))
        started = clock()
        explanation = explain(classifier, photograph, attack=attack)
        times["explained"].append(clock() - started)
        _save(explanation)
        times["written"].append(clock() - started)
    passes, explained, written = map(statistics.median, times.values())
    counted = "".join(f"{_count(noted):>{width}}" for noted, width in ((calls.forwards, 9), (calls.backwards, 10)))
    seconds = f"{passes:>11.1f}{explained:>10.1f}{explained / passes:>7.2f}{written / passes:>9.2f}"
    print(f"{classifier.name:30}{counted}{seconds}  limit {LIMIT}: {'kept' if written <= LIMIT * passes else 'MISSED'}")


def _save(explanation: Explanation) -> None:
    with tempfile.TemporaryDirectory() as folder:
        explanation.save(Path(folder) / "report")


def _count(noted: Counter[int]) -> int:
    return sum(size * times for size, times in noted.items())


@contextmanager
def _noting(classifier: Classifier) -> Iterator[_Calls]:
    """Note with how many images the classifier is called inside the block."""
    calls = _Calls()

    def before(_: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        images, *rest = inputs
        calls.forwards[len(images)] += 1
        return (_Note.apply(images, calls.backwards), *rest), named

    with hooked_before(classifier, before):
        yield calls


def _time_passes(classifier: Classifier, calls: _Calls) -> float:
    """Return the seconds of as many plain passes of the model in batches as large."""
    seconds = 0.0
    for size in calls.forwards | calls.backwards:
        forward, backward = time_passes(classifier, size)
        seconds += calls.forwards[size] * forward + calls.backwards[size] * backward
    return seconds
