"""Seconds of the processor, and those of plain passes."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable

import torch

from whyfooled import Classifier


def clock() -> float:
    """Return seconds of user and system time that this process has used: what others do beside it counts little."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def time_passes(classifier: Classifier, size: int, repeats: int = 15) -> tuple[float, float]:
    """Time a forward pass of a batch of so many images, and how much longer a forward and a backward pass are."""
    images = torch.rand(size, classifier.channels, *classifier.size).to(classifier.mean)

    def forward() -> None:
        classifier.logits(images)

    def both() -> None:
        needed = images.clone().requires_grad_()
        classifier(needed).amax(1).sum().backward()

    alone, together = (_time(work, repeats) for work in (forward, both))
    return alone, together - alone


def _time(work: Callable[[], None], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = clock()
        work()
        seconds.append(clock() - started)
    return statistics.median(seconds)
