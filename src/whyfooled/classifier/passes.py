"""Counting forward and backward passes: exact, whatever runs the classifier."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whyfooled.classifier.borrowing import hooked_before


@dataclass
class Passes:
    """How many images went through the classifier, forwards and backwards, summed over all calls."""

    forwards: int = 0
    backwards: int = 0

    def add(self, others: Passes) -> None:
        """Count other passes too."""
        self.forwards += others.forwards
        self.backwards += others.backwards


# What one block counts may come from several threads at once.
_ADDING = threading.Lock()


class _Count(torch.autograd.Function):
    """The identity, which adds the batch size to a counter for every vector-Jacobian product that comes through."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, passes: Passes) -> Tensor:
        ctx.passes = passes
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        with _ADDING:
            ctx.passes.backwards += len(gradients[0])
        return gradients[0], None


@contextmanager
def count_passes(*models: nn.Module, besides: nn.Module | None = None) -> Iterator[Passes]:
    """Count the images that pass through classifiers, or any other modules, inside the ``with`` block, all in one.

    Those of one model are counted elsewhere already and left out here, if it is given as ``besides``.

    A backward pass is one vector-Jacobian product that reaches a model's input for one image. The counter sits on
    each model itself (on a `Classifier`, never on the module that it wraps) and is gone when the block ends.

    Other threads count where they run in the block's context, as those of ``asyncio.to_thread`` do; what any other
    thread sends through the same model in the meantime is its own affair. For a thread pool, hand the context on:
    ``pool.submit(contextvars.copy_context().run, work)``.

    Examples
    --------
    >>> with count_passes(classifier) as passes:  # doctest: +SKIP
    ...     GuidedBackprop()(classifier, images, classes)
    >>> passes.forwards, passes.backwards  # doctest: +SKIP
    (4, 4)
    """
    passes = Passes()

    def before(_: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        images, *rest = inputs or (named.pop(next(iter(named))),)
        with _ADDING:
            passes.forwards += len(images)
        return (_Count.apply(images, passes), *rest), named

    with ExitStack() as hooks:
        for model in models:
            if model is not besides:
                hooks.enter_context(hooked_before(model, before))
        yield passes
