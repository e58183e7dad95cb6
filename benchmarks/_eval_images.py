"""Small labelled images out of an .npz file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def read_eval_images(data: str, count: int) -> tuple[Tensor, Tensor]:
    """Read the first of the arrays ``eval_images`` (n,h,w,3), uint8, and ``eval_labels``; contiguous, in [0, 1]."""
    with np.load(data) as arrays:
        images = torch.from_numpy(arrays["eval_images"][:count]).permute(0, 3, 1, 2).contiguous().float() / 255
        return images, torch.from_numpy(arrays["eval_labels"][:count]).long()
