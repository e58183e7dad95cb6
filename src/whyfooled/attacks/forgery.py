"""Whether the explanation of one attack could have been forged: by how large a perturbation, and what it shows then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.attacks._shown import likeness, show
from whyfooled.attacks.aware import ExplanationAware
from whyfooled.attacks.aware_result import MATCHED, SHOWN, Failed, run_aware
from whyfooled.classifier import Classifier
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.goals import Targeted
from whyfooled.registry import describe, title
from whyfooled.saliency import Enhanced
from whyfooled.saliency.recovery import shifted_maps
from whyfooled.tensors.balls import BALLS, Ball, length
from whyfooled.types import Image, Images, Progress, silent

FACTORS = (1, 2, 4)
"""How many times as large as the attack's own perturbation a forgery is tried to be, one after the other. [ours]"""

_SHIFTS = 19
"""To how many other places a map is shifted, to see what chance gives. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class Forgery:
    """What an attack that knows the explanation made of an image, beside the attack that is explained.

    Parameters
    ----------
    method, title, contrastive
        The method whose map was to be forged, its name in a report, and whether it contrasts two classes.
    epsilon, ball
        The ball that the forgery was made in, the last that was tried.
    factor
        How many times as large it is as the attack's own.
    failed
        ``""`` if the classifier is fooled and the map is brought nearer to the clean one's, by half of what a plain
        attack of the same margin leaves open or more; else the part that failed: ``"class"`` or ``"map"``.
    image
        (c,h,w) The forged image.
    logits
        (m,) The classifier's logits for it.
    maps
        (3,h,w) The normalised maps of the clean image (its class, against the strongest other), of the attack that is
        explained and of the forgery (the wrong class, against the true one), on the CPU.
    honest, matched, forged
        The cosine with the clean image's map: of the attack's, of that of a plain attack of the forgery's margin, and
        of the forged one.
    chance
        The mean cosine of the clean image's map with itself, shifted to other places.
    """

    method: str
    title: str
    contrastive: bool
    epsilon: float
    ball: Ball
    factor: int
    failed: Failed
    image: Image
    logits: Tensor
    maps: Float[Tensor, "3 h w"]
    honest: float
    matched: float
    forged: float
    chance: float


def find_size(attack: Any, delta: Images) -> tuple[float, Ball]:
    """Return an attack's radius and ball; if it has none, the Euclidean length of its perturbation (1,c,h,w)."""
    epsilon, ball = getattr(attack, "epsilon", None), getattr(attack, "ball", None)
    if isinstance(epsilon, float | int) and ball in BALLS:
        return float(epsilon), ball
    return float(length(delta)), "l2"


def find_forgery(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    true: int,
    wrong: int,
    method: Any,
    size: tuple[float, Ball],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Forgery:
    """Try to reach the wrong class and keep the clean image's map, with more room each time, until it succeeds.

    Parameters
    ----------
    classifier
        The classifier.
    clean, adversarial
        (1,c,h,w) The image, which is given its true class, and what the attack made of it.
    true, wrong
        The two classes.
    method
        The saliency method whose map is to be kept.
    size
        Radius and ball of the attack, as of `find_size`.
    seed
        Seed of the shifted maps.
    progress
        Called as the attacks proceed.

    Raises
    ------
    MethodError
        If the method's maps cannot be differentiated, or do not work on this model.
    """
    aimed_at, true_class = (clean.new_tensor([index], dtype=torch.int64) for index in (wrong, true))
    radius, ball = size
    for factor in FACTORS:
        epsilon = factor * radius if ball == "l2" else min(1.0, factor * radius)
        attack = ExplanationAware(epsilon=epsilon, ball=ball, methods=(method,))
        result = run_aware(attack, classifier, clean, Targeted(aimed_at), progress=progress)
        (failed,) = result.failed
        if not failed:
            break

    def show_one(images: Images, classes: Tensor, contrast: Tensor) -> Tensor:
        return show((method,), ("identity",), classifier, images, classes, contrast)

    before = show_one(clean, true_class, strongest_other(classifier.logits(clean), true_class))
    honest, forged = (show_one(images, aimed_at, true_class) for images in (adversarial, result.attempted))
    elsewhere = shifted_maps(before[:, 0], clean, _SHIFTS, seed).unsqueeze(1)
    return Forgery(
        method=describe(method),
        title=title(method),
        contrastive=isinstance(method, Enhanced),
        epsilon=epsilon,
        ball=ball,
        factor=factor,
        failed=failed,
        image=result.attempted[0].cpu(),
        logits=result.logits[0].cpu(),
        maps=torch.cat([maps[0, 0] for maps in (before, honest, forged)]).float().cpu(),
        honest=float(likeness(honest, before)),
        matched=float(result.cosines[0, SHOWN.index(MATCHED)]),
        forged=float(likeness(forged, before)),
        chance=float(likeness(elsewhere, before.expand(len(elsewhere), -1, -1, -1, -1)).mean()),
    )
