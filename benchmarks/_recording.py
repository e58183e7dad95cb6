"""Watching any library's attack from outside: every image that goes through the classifier is judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whyfooled import Classifier, Targeted, Untargeted


@dataclass
class Recording:
    """The smallest norm of each image so far, after each of its evaluations and at each moment.

    Parameters
    ----------
    best
        (n,) The smallest norm that reached the goal; infinite where none did.
    curves
        For each image, `best` after its first, second, ... evaluation.
    moments
        (seconds, mean of `best`) after each call of the classifier.
    """

    best: Tensor
    curves: list[list[float]]
    moments: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0

    def mean_curve(self) -> Tensor:
        """Return the mean of the curves; one that ended early stays where it ended."""
        longest = max(map(len, self.curves))
        whole = [curve + curve[-1:] * (longest - len(curve)) for curve in self.curves]
        return torch.tensor(whole, dtype=torch.float64).mean(0)

    def after(self, evaluations: int) -> Tensor:
        """Return (n,) the smallest norm that each image had after so many evaluations."""
        return torch.tensor([curve[min(len(curve), evaluations) - 1] for curve in self.curves])

    def evaluations_to(self, level: float) -> int | None:
        """Return after how many evaluations the mean curve is at a level or below; None if it never is."""
        below = (self.mean_curve() <= level).nonzero()[:, 0]
        return int(below[0]) + 1 if len(below) else None

    def seconds_to(self, level: float) -> float | None:
        """Return after how many seconds the mean is at a level or below; None if it never is."""
        return next((seconds for seconds, mean in self.moments if mean <= level), None)


@contextmanager
def record(classifier: Classifier, images: Tensor, goal: Untargeted | Targeted, norm: float = 2) -> Iterator[Recording]:
    """Record what goes through a classifier inside the block; each input belongs to the nearest clean image."""
    recording = Recording(torch.full((len(images),), float("inf")), [[] for _ in images])
    flat = images.flatten(1)
    started = time.perf_counter()

    @torch.no_grad()
    def after(_: torch.nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if logits.shape[0] == 0:
            return
        owner = torch.cdist(inputs[0].detach().flatten(1), flat).argmin(1)
        reached = goal.select(owner).reached(logits.detach())
        # cdist is not exact for small distances.
        exact = (inputs[0].detach() - images[owner]).flatten(1).norm(p=norm, dim=1)
        for number, ok, size in zip(owner.tolist(), reached.tolist(), exact.tolist(), strict=True):
            if ok:
                recording.best[number] = min(float(recording.best[number]), size)
            recording.curves[number].append(float(recording.best[number]))
        recording.moments.append((time.perf_counter() - started, float(recording.best.mean())))

    hook = classifier.register_forward_hook(after)
    try:
        yield recording
    finally:
        hook.remove()
        recording.seconds = time.perf_counter() - started
