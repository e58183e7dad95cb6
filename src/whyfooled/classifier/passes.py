"""Counting forward and backward passes: exact, whatever runs the classifier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Passes:
    """How many images went through the classifier, forwards and backwards, summed over all calls."""

    forwards: int = 0
    backwards: int = 0


class _Count(torch.autograd.Function):
    """The identity, which adds the batch size to a counter for every vector-Jacobian product that comes through."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, passes: Passes) -> Tensor:
        ctx.passes = passes
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.passes.backwards += len(gradients[0])
        return gradients[0], None


@contextmanager
def count_passes(model: nn.Module) -> Iterator[Passes]:
    """Count the images that pass through a classifier, or any other module, inside the ``with`` block.

    A backward pass is one vector-Jacobian product that reaches the model's input for one image. The counter sits on
    the model itself (on a `Classifier`, never on the module that it wraps) and is gone when the block ends.

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
        passes.forwards += len(images)
        return (_Count.apply(images, passes), *rest), named

    hook = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()
