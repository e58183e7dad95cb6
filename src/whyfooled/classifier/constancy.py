"""Whether a model's answer to an image is a function of that image alone, and not of chance, or of its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from whyfooled.classifier.calling import ONE_BY_ONE
from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.dependence import walk
from whyfooled.errors import ModelError, warn
from whyfooled.types import Images, Logits

ROUNDING, ROUNDING_ON_GPU, ROUNDING_IN_HALF = 1e-4, 1e-2, 1e-1
"""How much of their spread logits may differ by rounding: torchvision's and timm's stay below 1e-6 on a CPU, while GPUs
multiply with fewer digits and choose how by the size of the batch. [ours]"""


@torch.no_grad()
def check_constancy(classifier: Classifier, images: Images, logits: Logits, *, apart: bool = False) -> None:
    """Warn of a model that gives an image another answer each time, or another one beside other images.

    The first image goes through the model by itself, twice in all, and beside another one: those that were given with
    it or, if it came alone, its negative. That takes 2 or 3 forward passes of one image; nothing else is run for it.

    Parameters
    ----------
    classifier
        The classifier.
    images
        (n,c,h,w), values in [0, 1].
    logits
        (n,m) What it gave for them.
    apart
        Whether it gave them one at a time, and not together.

    Raises
    ------
    ModelError
        If even the class that the image is taken for is another one: then no number about it means anything.

    Warns
    -----
    WhyfooledWarning
        If the logits differ by more than rounding.
    """
    if not len(images):
        return
    first = images[:1]
    try:
        alone = classifier.logits(first)
        if len(images) > 1 and not apart:
            again, beside = classifier.logits(first), logits[:1]
        else:
            again, beside = logits[:1], classifier.logits(torch.cat([first, 1 - first]))[:1]
    except ModelError:
        # It takes batches of one size. Whoever sends another one will be told.
        return
    for other, (changes, means) in ((again, _EACH_TIME), (beside, _BESIDE)):
        if _differ(classifier, alone, other):
            names = [classifier.class_name(int(row.argmax())) for row in (alone, other)]
            if names[0] != names[1]:
                raise ModelError(f"{changes.format(f': once {names[0]}, once {names[1]}')} {means}")
            warn(f"{changes.format('')} {means}")
            return


_EACH_TIME = (
    "The model gives the same image another answer each time{}.",
    "Dropout or noise is always on (such as F.dropout without training=self.training), or it keeps a state from pass "
    "to pass. What is said of it is one draw, and the next one says something else: switch that off.",
)
_BESIDE = (
    "The model's answer to an image depends on the images beside it in the batch{}.",
    "A normalisation by the batch's own statistics does that, such as BatchNorm2d(track_running_stats=False). What is "
    f"said of images that were sent together holds for that batch alone: normalise otherwise, or {ONE_BY_ONE}",
)


def _differ(classifier: Classifier, logits: Tensor, others: Tensor) -> bool:
    """Tell whether logits (1,m) differ by more than rounding."""
    allowed = ROUNDING if logits.device.type == "cpu" else ROUNDING_ON_GPU
    if classifier.is_half or torch.equal(logits, logits.bfloat16().to(logits)):
        allowed = ROUNDING_IN_HALF
    spread = logits.max() - logits.min() + torch.finfo(logits.dtype).eps * logits.abs().max() / ROUNDING
    return bool((logits - others).abs().max() > allowed * spread)


_BATCH_NORMS = ("NativeBatchNormBackward", "CudnnBatchNormBackward", "MiopenBatchNormBackward")


def warn_of_neighbours(logits: Logits) -> None:
    """Warn of a pass with a graph in which images were normalised by statistics of their batch."""
    if len(logits) > 1 and any(map(_takes_batch_statistics, walk(logits))):
        warn(f"{_BESIDE[0].format('')} {_BESIDE[1]}", stacklevel=4)


def _takes_batch_statistics(node: object) -> bool:
    # Instance norm, and norms of weights, are batch norms of one image to PyTorch.
    name = getattr(node, "name", str)()
    return name.startswith(_BATCH_NORMS) and node._saved_training and len(node._saved_input) > 1  # type: ignore[attr-defined]
