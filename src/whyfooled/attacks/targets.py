"""Which class a targeted attack is to reach: a random one, the least likely one, or the runner-up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_images
from whyfooled.classifier.goals import Targeted, Untargeted
from whyfooled.errors import ParameterError, bad_parameter, one_of
from whyfooled.tensors.randomness import image_generators
from whyfooled.types import Classes, Images


@one_thread()
def choose_targets(
    classifier: Classifier, images: Images, how: str = "random", *, labels: Classes | None = None, seed: int = 0
) -> Targeted:
    """Choose a target for each image: never the class that the classifier gives it, nor its true class.

    Parameters
    ----------
    classifier
        The classifier to fool.
    images
        (n,c,h,w), values in [0, 1].
    how
        ``"random"``: any other class, each as likely; ``"least-likely"``: the class with the smallest logit (Kurakin et
        al. 2017, sec. 2.3); ``"runner-up"``: the class with the largest logit of the others.
    labels
        (n,) The true classes; those that the classifier gives if None.
    seed
        Seed of the random choice; each image has its own, made from this and its content.

    Returns
    -------
    Targeted
        On the device of the images.

    Raises
    ------
    ParameterError
        If `how` is unknown, or there is no class left to choose.
    """
    one_of("how", how, TARGET_CHOICES)
    check_classifier(classifier)
    check_images(images)
    logits = classifier.logits(images.to(classifier.device)).to(images.device)
    predicted = logits.argmax(1)
    true = predicted if labels is None else Untargeted(labels).classes.long()
    if len(true) != len(images):
        raise ParameterError(f"`labels` must have a class for each of the {len(images)} images; got {len(true)}.")
    check_classes(true, logits)
    taken = torch.zeros_like(logits, dtype=torch.bool)
    for classes in (predicted, true):
        taken.scatter_(1, classes.unsqueeze(1), True)
    if taken.all(1).any():
        raise bad_parameter("classifier", "must have a class beside the true and the predicted one", logits.shape[1])
    return Targeted(TARGET_CHOICES[how](logits, taken, images, seed))


def _draw_random(logits: Tensor, taken: Tensor, images: Tensor, seed: int) -> Tensor:
    chosen = torch.zeros(len(images), dtype=torch.int64)
    for number, (free, generator) in enumerate(zip((~taken).cpu(), image_generators(images, seed), strict=True)):
        classes = free.nonzero()[:, 0]
        chosen[number] = classes[torch.randint(len(classes), (), generator=generator)]
    return chosen.to(images.device)


def _find_least_likely(logits: Tensor, taken: Tensor, images: Tensor, seed: int) -> Tensor:
    return logits.masked_fill(taken, float("inf")).argmin(1)


def _find_runner_up(logits: Tensor, taken: Tensor, images: Tensor, seed: int) -> Tensor:
    return logits.masked_fill(taken, float("-inf")).argmax(1)


TARGET_CHOICES: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "random": _draw_random,
    "least-likely": _find_least_likely,
    "runner-up": _find_runner_up,
}
"""The ways to choose a target, by name."""
