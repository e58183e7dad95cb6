"""What attacks for the smallest perturbation share: each image's best example so far, and bisection of its constant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Search:
    """The state of a search over n images. It lives inside one call of one attack.

    Parameters
    ----------
    best
        (n,c,h,w) The closest example so far that reaches the goal; the image itself where there is none.
    distance
        (n,) Its distance; infinite where there is none.
    start
        (n,c,h,w) Where the next round begins: at the best example, or, while there is none, where the last round ended.
    constant
        (n,) The weight of the goal against the distance, being bisected.
    low, high
        (n,) The largest constant that failed and the smallest that succeeded; 0 and infinite at first.
    """

    best: Tensor
    distance: Tensor
    start: Tensor
    constant: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def begin(cls, images: Tensor, initial_constant: float) -> Search:
        """Begin with nothing found."""
        zeros = images.new_zeros(len(images))
        infinite = torch.full_like(zeros, float("inf"))
        return cls(
            images.clone(), infinite.clone(), images.clone(), zeros + initial_constant, zeros.clone(), infinite.clone()
        )

    def offer(self, index: Tensor, examples: Tensor, distances: Tensor, reached: Tensor) -> None:
        """Keep, of some images (`index`), the examples that reach the goal at a smaller distance than any before."""
        better = reached & (distances < self.distance[index])
        self.best[index[better]] = examples[better]
        self.distance[index[better]] = distances[better]

    def end_round(self, ended: Tensor, succeeded: Tensor) -> None:
        """Move every image's constant: to the middle of the bracket, or ten times up while nothing succeeded."""
        found = self.distance.isfinite().view(-1, 1, 1, 1)
        self.start = torch.where(found, self.best, ended)
        self.high = torch.where(succeeded, torch.minimum(self.high, self.constant), self.high)
        self.low = torch.where(succeeded, self.low, torch.maximum(self.low, self.constant))
        middle = (self.low + self.high) / 2
        self.constant = torch.where(self.high.isfinite(), middle, self.constant * 10)
