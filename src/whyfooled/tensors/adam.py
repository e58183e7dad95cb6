"""Adam's two moments, for each image of a batch on its own (Kingma & Ba 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Moments:
    """The running means (n,…) of the slope and of its square."""

    first: Tensor
    second: Tensor

    @classmethod
    def zero(cls, like: Tensor) -> Moments:
        """Begin."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def select(self, keep: Tensor) -> Moments:
        """Keep some of the images only."""
        return Moments(self.first[keep], self.second[keep])

    def after(self, slope: Tensor) -> Moments:
        """Take in a slope."""
        return Moments(self.first.lerp(slope, 1 - _FIRST), self.second.lerp(slope.square(), 1 - _SECOND))

    def direction(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the mean slope, and the scale by which it is to be divided, after `number` slopes."""
        first = self.first / (1 - _FIRST**number)
        second = self.second / (1 - _SECOND**number)
        return first, second.sqrt() + _TINY
