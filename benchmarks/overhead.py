"""What an explanation costs beyond the model's own passes: its time, over that of as many plain passes in as large batches."""

from __future__ import annotations

import resource
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whyfooled import Classifier, explain, load_classifier
from whyfooled.classifier.borrowing import hooked_before

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


def run(models: str, image: str, attack: str, repeats: int) -> None:
    """Explain a photograph with each model, in one thread, and print how its time compares with that of its passes."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {attack}; seconds of user and system time, medians of {repeats}")
    print(
        f"{'model':34}{'forwards':>9}{'backwards':>10}{'passes, s':>11}{'explained, s':>13}{'ratio':>7}{'written':>9}"
    )
    for name in models.split(","):
        _measure(name, image, attack, repeats)


def _measure(name: str, image: str, attack: str, repeats: int) -> None:
    classifier = load_classifier(
        name, weights="random" if ":" in name and not Path(name.split(":")[0]).exists() else None
    )

    def explain_it() -> Any:
        return explain(classifier, image, attack=attack)

    with tempfile.TemporaryDirectory() as folder, _noting(classifier) as calls:
        # Also so that what is done the first time alone, such as loading libraries, is nobody's.
        explain_it().save(Path(folder) / "report")
    explained, passes, written = [], [], []
    for _ in range(repeats):
        passes.append(_time_passes(classifier, calls))
        started = _clock()
        explanation = explain_it()
        explained.append(_clock() - started)
        with tempfile.TemporaryDirectory() as folder:
            started = _clock()
            explanation.save(Path(folder) / "report")
            written.append(_clock() - started)
    own, whole, writing = map(statistics.median, (passes, explained, written))
    forwards, backwards = (
        sum(size * times for size, times in noted.items()) for noted in (calls.forwards, calls.backwards)
    )
    ratios = f"{whole / own:>7.2f}{(whole + writing) / own:>9.2f}"
    print(f"{name:34}{forwards:>9}{backwards:>10}{own:>11.1f}{whole:>13.1f}{ratios}", end="")
    print(f"  limit {LIMIT}: {'kept' if whole + writing <= LIMIT * own else 'MISSED'}")


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
    forwards = {size: _time(classifier, size, backwards=False) for size in calls.forwards | calls.backwards}
    backwards = {size: _time(classifier, size, backwards=True) - forwards[size] for size in calls.backwards}
    return sum(forwards[size] * times for size, times in calls.forwards.items()) + sum(
        backwards[size] * times for size, times in calls.backwards.items()
    )


def _time(classifier: Classifier, size: int, *, backwards: bool, repeats: int = 7) -> float:
    images = torch.rand(size, classifier.channels, *classifier.size)

    def forward() -> None:
        with torch.no_grad():
            classifier(images)

    def both() -> None:
        needed = images.clone().requires_grad_()
        classifier(needed).amax(1).sum().backward()

    return _median(both if backwards else forward, repeats)


def _median(work: Callable[[], None], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = _clock()
        work()
        seconds.append(_clock() - started)
    return statistics.median(seconds)


def _clock() -> float:
    """Return seconds of user and system time that this process has used: what others do beside it counts little."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
