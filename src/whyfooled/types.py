"""Shapes of the tensors that cross public interfaces: n images, k classes of each, c channels, h × w pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

Image = Float[Tensor, "c h w"]
"""One image, values in [0, 1]."""

Images = Float[Tensor, "n c h w"]
"""A batch of images, values in [0, 1]."""

Logits = Float[Tensor, "n m"]
"""What a classifier gives: one logit for each image and each of its m classes."""

Classes = Int[Tensor, " n"]
"""One class index for each image."""

ManyClasses = Int[Tensor, " n"] | Int[Tensor, "n k"]
"""One class index for each image, or k of them."""

Maps = Float[Tensor, "n d h w"]
"""One saliency map for each image; d is c, or 1 for class activation maps."""

Map = Float[Tensor, "d h w"]
"""One saliency map; d is c, or 1 for class activation maps."""

ManyMaps = Float[Tensor, "n d h w"] | Float[Tensor, "n k d h w"]
"""One saliency map for each class that was asked for: (n,d,h,w) for classes (n,), (n,k,d,h,w) for classes (n,k)."""

PerImage = Float[Tensor, " n"]
"""One number for each image."""

ManyNumbers = Float[Tensor, " n"] | Float[Tensor, "n k"]
"""One number for each class that was asked for: (n,) for classes (n,), (n,k) for classes (n,k)."""

Flags = Bool[Tensor, " n"]
"""One yes or no for each image."""

LabelFlags = Bool[Tensor, "n m"]
"""One yes or no for each image and each of its m labels."""

Counts = Int[Tensor, " n"]
"""One count for each image."""

Outcome = Literal["fooled", "failed", "already wrong"]
"""Whether an image fools the classifier, does not, or was given a wrong class before any attack."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done); the second may shrink when work ends early."""


def silent(done: int, total: int, doing: str) -> None:
    """Report progress to nobody."""
