"""What one saliency method shows of a clean image and an adversarial one, for the wrong class and the true one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whyfooled.types import Maps


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """What one saliency method shows, for both images and both classes.

    Parameters
    ----------
    method
        The method, as on the command line.
    title
        The method's name in a report.
    summary
        What it computes, in one sentence.
    contrastive
        Whether each map holds its class against the other one.
    maps
        (2,2,c,h,w): the clean and the adversarial image × the wrong and the true class.
    """

    method: str
    title: str
    summary: str
    contrastive: bool
    maps: Tensor

    @property
    def wrong(self) -> Maps:
        """(1,c,h,w) The map of the wrong class on the adversarial image."""
        return self.maps[1, :1]

    def similarity(self) -> tuple[float, float]:
        """Compare the clean image's map with the adversarial one's, by cosine: of the wrong class, of the true one."""
        clean, adversarial = self.maps.flatten(2).double()
        wrong, true = torch.cosine_similarity(clean, adversarial, dim=1).tolist()
        return wrong, true

    def class_similarity(self) -> tuple[float, float]:
        """Compare the wrong class's map with the true one's, by cosine: of the clean image, of the adversarial one.

        A method whose maps hardly depend on the class stays the same under an attack whatever the model makes of it.
        """
        wrong, true = self.maps.transpose(0, 1).flatten(2).double()
        clean, adversarial = torch.cosine_similarity(wrong, true, dim=1).tolist()
        return clean, adversarial
