"""Where a refined attack may act: the pixels that class activation maps point at, or the most sensitive regions."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.errors import bad_parameter, one_of
from whyfooled.perturbation.interpretability import discriminative_region
from whyfooled.perturbation.regions import Grid, Regions
from whyfooled.perturbation.sensitivity import Method, Sensitivity, check_pair, sensitivity
from whyfooled.saliency.cam import GradCAM
from whyfooled.tensors.randomness import image_generators
from whyfooled.types import Classes, Images, Maps

Where = Literal["cam", "sensitivity", "random"]
WHERE: tuple[Where, ...] = get_args(Where)
"""What a region can be chosen by."""

Region = Bool[Tensor, "n 1 h w"]
"""Which pixels belong to a region, for each image."""

_CAM, _GRID = GradCAM(), Grid()


@one_thread()
def attack_region(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    true: Classes,
    target: Classes,
    where: Where = "cam",
    *,
    keep: float = 0.3,
    cam: Any = _CAM,
    regions: Regions = _GRID,
    method: Method = "exact",
    seed: int = 0,
) -> Region:
    """Choose where an attack that is made again may act, from what it did the first time (Xu et al. 2019).

    The paper's text is not public in full: which share is kept, and how ties are broken, is [ours].

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    clean, adversarial
        (n,c,h,w) The images before and after, values in [0, 1]; from any attack.
    true, target
        (n,) The classes t0 and t.
    where
        ``"cam"``: the largest values of the map of the clean image for t0, and those of the map of the adversarial
        image for t. ``"sensitivity"``: the regions whose perturbation has the largest effect on the two logits
        (`Sensitivity.score`). ``"random"``: as many regions as ``"sensitivity"`` takes, drawn from all of the image's;
        the control. [ours]
    keep
        The share that is kept, above 0 and at most 1: of each map's pixels, so that their union may hold up to twice as
        many, or of the image's regions, at least one. Regions without an effect are never chosen for their sensitivity,
        so it may be fewer.
    cam
        A saliency method, for ``"cam"``; summed over channels. Grad-CAM is, on a head that allows CAM, its positive
        part.
    regions
        How the images are divided, but for ``"cam"``: a `Grid`, `Superpixels`, or label maps.
    method
        ``"exact"`` or ``"gradient"``, how sensitivity is measured.
    seed
        Seed of the random choice; each image has its own, made from this and its content.

    Returns
    -------
    Tensor
        (n,1,h,w) Whether each pixel belongs to the region. An image for which nothing can be chosen has an empty one:
        both its maps are the same everywhere, or no region has an effect.

    Raises
    ------
    ImageError
        If the two images differ in size or have values outside [0, 1], or do not differ at all.
    ParameterError
        If both classes are the same, the regions do not fit, or a parameter is of no use.
    MethodError
        If the saliency method does not work on this model.
    """
    one_of("where", where, WHERE)
    if where == "cam":
        return cam_region(
            classifier, clean, adversarial, true, target, keep=keep, cam=GradCAM() if cam is None else cam
        )
    check_keep(keep)
    region_effects = sensitivity(classifier, clean, adversarial, true, target, regions, method=method)
    return (
        sensitive_region(region_effects, keep)
        if where == "sensitivity"
        else random_region(region_effects, clean, keep, seed)
    )


def check_keep(keep: float) -> None:
    """Raise `ParameterError` unless the share that is kept is above 0 and at most 1."""
    if not 0 < keep <= 1:
        raise bad_parameter("keep", "must be above 0 and at most 1", keep)


def cam_region(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    true: Classes,
    target: Classes,
    *,
    keep: float,
    cam: Any,
) -> Region:
    """Unite (n,1,h,w) where the map of the clean image for t0 is largest, and that of the adversarial one for t."""
    check_keep(keep)
    if not callable(cam):
        raise bad_parameter("cam", "must be a saliency method, such as GradCAM()", repr(cam))
    check_pair(classifier, clean, adversarial, true, target)
    parts = [_mark_largest(cam(classifier, *pair), keep) for pair in ((clean, true), (adversarial, target))]
    return parts[0] | parts[1]


def sensitive_region(region_effects: Sensitivity, keep: float) -> Region:
    """Return (n,1,h,w) the pixels of the regions with the largest scores, of those that have an effect."""
    return _mark_pixels(region_effects, _find_most_sensitive(region_effects, keep))


def random_region(region_effects: Sensitivity, clean: Images, keep: float, seed: int) -> Region:
    """Return (n,1,h,w) the pixels of as many regions as `sensitive_region` takes, drawn from all of an image's."""
    counts = _find_most_sensitive(region_effects, keep).sum(1).tolist()
    chosen = torch.zeros_like(region_effects.touched)
    for row, sizes, count, generator in zip(
        chosen, region_effects.sizes.cpu(), counts, image_generators(clean, seed), strict=True
    ):
        there = sizes.nonzero()[:, 0]
        row[there[torch.randperm(len(there), generator=generator)[:count]].to(row.device)] = True
    return _mark_pixels(region_effects, chosen)


def _find_most_sensitive(region_effects: Sensitivity, keep: float) -> Bool[Tensor, "n r"]:
    check_keep(keep)
    wanted = _share_of((region_effects.sizes > 0).sum(1), keep)
    places = region_effects.score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (places < wanted.unsqueeze(1)) & (region_effects.score > 0)


def _share_of(counts: Int[Tensor, " n"], keep: float) -> Int[Tensor, " n"]:
    return (keep * counts.double()).round().long().clamp_min(1)


def _mark_pixels(region_effects: Sensitivity, chosen: Bool[Tensor, "n r"]) -> Region:
    return region_effects.on_image(chosen).unsqueeze(1)


def _mark_largest(maps: Maps, keep: float) -> Region:
    """Tell where a map has its largest values; nowhere, if it is the same everywhere and so points at no place."""
    flat = maps.sum(1).flatten(1)
    varied = flat.amax(1) > flat.amin(1)
    return (discriminative_region(maps, keep) & varied.view(-1, 1, 1)).unsqueeze(1)
