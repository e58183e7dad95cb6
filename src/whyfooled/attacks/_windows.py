"""Square windows at random places in images: what the Square attack changes at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from whyfooled.attacks._problem import Problem
from whyfooled.tensors.balls import length


@dataclass(frozen=True)
class Frames:
    """Where the windows of some images lie: in the smallest rectangle that holds all that may change.

    Parameters
    ----------
    top, left, height, width
        (n,1,1,1) The rectangle, whole numbers.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    @classmethod
    def of(cls, problem: Problem) -> Frames:
        """Find the rectangles."""
        free = (problem.high > problem.low).expand_as(problem.images).any(1)
        top, height = _find_extent(free.any(2))
        left, width = _find_extent(free.any(1))
        return cls(top, left, height, width)

    def select(self, which: Tensor) -> Frames:
        """Keep some of the images only (an index)."""
        return Frames(*(getattr(self, field.name)[which] for field in fields(self)))

    def find_side(self, share: float) -> Tensor:
        """Return (n,1,1,1) the side of a square that covers a share of the rectangle; at least 1, and it fits in."""
        side = (share * self.height * self.width).sqrt().round().long()
        return torch.minimum(side.clamp_min(1), torch.minimum(self.height, self.width))

    def place(self, draws: Tensor, side: Tensor, like: Tensor) -> Windows:
        """Place a window of a side in each image, by two numbers (n,2) in [0, 1)."""
        down, right = (draws[:, i].view(-1, 1, 1, 1) for i in (0, 1))
        row = self.top + (down * (self.height - side + 1)).long()
        column = self.left + (right * (self.width - side + 1)).long()
        rows = torch.arange(like.shape[2], device=like.device).view(1, 1, -1, 1)
        columns = torch.arange(like.shape[3], device=like.device).view(1, 1, 1, -1)
        return Windows(rows - row, columns - column, side)


@dataclass(frozen=True)
class Windows:
    """A square window in each image.

    Parameters
    ----------
    down, right
        (n,1,h,1), (n,1,1,w) How far each row and column is from the window's first.
    side
        (n,1,1,1) Its side.
    """

    down: Tensor
    right: Tensor
    side: Tensor

    @property
    def inside(self) -> Tensor:
        """(n,1,h,w) Which pixels are in the window."""
        return (self.down >= 0) & (self.down < self.side) & (self.right >= 0) & (self.right < self.side)

    def bump(self, turned: Tensor) -> Tensor:
        """Return (n,1,h,w) two hills side by side, one up and one down, of length 1 together; turned where asked for.

        A hill is ``Σ 1 / (k + 1)²`` over k from the pixel's distance to its middle (the larger of both directions) to
        half the window's side.
        """
        turned = turned.view(-1, 1, 1, 1)
        across = torch.where(turned, self.right, self.down)
        along = torch.where(turned, self.down, self.right)
        half = self.side // 2
        first = across < half
        middle = torch.where(first, half // 2, half + (self.side - half) // 2)
        distance = torch.maximum((across - middle).abs(), (along - half).abs())
        longest = int(self.side.max()) + 1
        terms = torch.arange(1, longest + 1, device=distance.device, dtype=torch.float64) ** -2
        # The sum of the terms from 0 to k - 1.
        before = torch.cat([terms.new_zeros(1), terms.cumsum(0)])
        height = (before[half + 1] - before[distance.clamp_max(longest)]).clamp_min(0)
        hills = (torch.where(first, height, -height) * self.inside).float()
        return hills / length(hills)


def _find_extent(free: Tensor) -> tuple[Tensor, Tensor]:
    """Return, each (n,1,1,1), the first of some places (n,p) that are free, and how many there are to the last."""
    places = torch.arange(free.shape[1], device=free.device)
    first = torch.where(free, places, free.shape[1]).amin(1)
    last = torch.where(free, places, -1).amax(1)
    return first.view(-1, 1, 1, 1), (last - first + 1).view(-1, 1, 1, 1)
