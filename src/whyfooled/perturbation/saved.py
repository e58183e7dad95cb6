"""What a classifier sees in an adversarial image that was saved as a picture file, as anybody would who hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import final

import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.images import PICTURE_CHANNELS, to_picture, to_tensor
from whyfooled.types import Image, Images

JPEG_QUALITIES = (95, 75)
"""Of the copies saved as JPEG, as Pillow counts it: its best, and its default. [ours]"""


@final
@dataclass(frozen=True)
class SavedCopy:
    """What a classifier sees in a copy of an image that went through a file.

    Parameters
    ----------
    format
        ``"PNG"``, which rounds to 8 bits a channel and loses nothing else, or ``"JPEG"``.
    quality
        Of a JPEG, from 1 to 95; None of a PNG.
    prediction
        The class that is predicted.
    probability
        Its probability.
    """

    format: str
    quality: int | None
    prediction: int
    probability: float


@torch.no_grad()
def classify_saved_copies(classifier: Classifier, image: Images) -> tuple[SavedCopy, ...]:
    """Save an image in several ways, read it again, and classify what comes back.

    Most attacks search among real numbers; a file has 256 levels a channel, and JPEG fewer waves (cf. Kurakin et al.
    2017, arXiv 1607.02533, sec. 3, on what photographs and compression leave of adversarial images).

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    image
        (1,c,h,w) The adversarial image, values in [0, 1].

    Returns
    -------
    tuple of SavedCopy
        As PNG; then, if it has as many channels as a picture, as JPEG of each of `JPEG_QUALITIES`.
    """
    ways: list[tuple[str, int | None]] = [("PNG", None)]
    if image.shape[1] in PICTURE_CHANNELS:
        ways += [("JPEG", quality) for quality in JPEG_QUALITIES]
    copies = [_round(image[0]) if quality is None else _compress(image[0], quality) for _, quality in ways]
    # One at a time, as the image itself was classified: the size of a batch changes last digits.
    logits = [classifier.logits(copy.unsqueeze(0).to(image))[0] for copy in copies]
    return tuple(
        SavedCopy(name, quality, *_find_strongest(own)) for (name, quality), own in zip(ways, logits, strict=True)
    )


def _round(image: Image) -> Image:
    return (255 * image).round() / 255


def _compress(image: Image, quality: int) -> Image:
    file = BytesIO()
    picture = to_picture(image)
    (picture if len(image) > 1 else picture.convert("L")).save(file, "JPEG", quality=quality)
    with PILImage.open(file) as read:
        return to_tensor(read, len(image))


def _find_strongest(logits: Tensor) -> tuple[int, float]:
    prediction = int(logits.argmax())
    return prediction, float(logits.softmax(0)[prediction])
