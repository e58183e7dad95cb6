"""The last of a model's outputs whose places the logits depend on.

Where a class token gives the logits, as in a vision transformer, nothing reads the other tokens after the last
attention: the last places that speak for a class are those that this attention takes, the outputs of the norm before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from whyfooled.classifier.axes import Axes
from whyfooled.classifier.dependence import differentiate


@runtime_checkable
class Placed(Protocol):
    """The output of a part of a model, with channels and places."""

    @property
    def part(self) -> nn.Module:
        """The part that gave it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def known_axes(self) -> Axes:
        """Which of its axes are which."""
        ...

    @property
    def edge(self) -> GradientEdge | None:
        """Its place in the graph."""
        ...


P = TypeVar("P", bound=Placed)


def find_last_read(outputs: Sequence[P], logits: Tensor) -> P | None:
    """Return the last output whose places the logits depend on; None if they depend on none.

    Parameters
    ----------
    outputs
        In the order in which they were given; the logits depend on each of them.
    logits
        (n,m) With a graph, which is kept. It takes a backward pass to each output of tokens in question.
    """
    return next((output for output in reversed(outputs) if _is_read(output, logits)), None)


def _is_read(output: P, logits: Tensor) -> bool:
    axes = output.known_axes
    # Queries, keys, values, or logits of each token, are weighted sums of the channels, which the output before has.
    if axes.tokens and isinstance(output.part, nn.Linear):
        return False
    if axes.places_all(output.shape) or output.edge is None:
        return axes.places_all(output.shape)
    weights = logits.new_ones(logits.shape[1]).cumsum(0).expand_as(logits)
    return bool(axes.to_grid(differentiate(logits, output.edge, weights, retain_graph=True)).any())
