"""Many versions of each image, a bounded number of them in a pass: what every sampling method shares."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

AT_ONCE = 8
"""About how many images a pass holds: more keep no processor busier and cost memory."""


def chunks(samples: int, images: int) -> Iterator[slice]:
    """Split the samples of a batch so that a pass holds `AT_ONCE` images, or one sample of each if they are more."""
    step = max(1, AT_ONCE // max(1, images))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def for_each_sample(values: Tensor, samples: int) -> Tensor:
    """Repeat (n,…) what belongs to each image of a batch: (samples·n,…), sample after sample."""
    return values.repeat(samples, *[1] * (values.ndim - 1))
