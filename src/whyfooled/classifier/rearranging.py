"""A module behind a change of the order of its input's channels, or of its axes."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn


@final
class Rearranging(nn.Module):
    """A module that takes channels, or axes, in another order.

    Parameters
    ----------
    module
        The module.
    flip
        Whether it takes blue first.
    last
        Whether it takes channels last.
    """

    def __init__(self, module: nn.Module, *, flip: bool = False, last: bool = False) -> None:
        super().__init__()
        self.module, self.flip, self.last = module, flip, last

    def forward(self, images: Tensor) -> object:
        """Compute what the module gives for (n,c,h,w) images, red first."""
        turned = images.flip(1) if self.flip else images
        return self.module(turned.permute(0, 2, 3, 1) if self.last else turned)
