"""What one image's perturbation does, region by region, beside its class activation maps: the data of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError
from whyfooled.perturbation import Grid, Regions, Sensitivity, Superpixels, sensitivity
from whyfooled.registry import describe, title
from whyfooled.saliency import Enhanced, GradCAM
from whyfooled.saliency.evidence import Evidence
from whyfooled.saliency.pairs import pair_maps
from whyfooled.types import Images, Progress, silent


@final
@dataclass(frozen=True, eq=False)
class Effect:
    """What the perturbation of one image does, region by region.

    Parameters
    ----------
    regions
        How the image is divided, in words.
    sensitivity
        The exact sensitivity of its regions (a batch of one), on the CPU.
    first_order
        The same to first order.
    cams
        Class activation maps of both images and both classes; None where the model has none.
    notes
        What a reader should know, in sentences.
    """

    regions: str
    sensitivity: Sensitivity
    first_order: Sensitivity
    cams: Evidence | None
    notes: tuple[str, ...]


def find_effect(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    true: int,
    wrong: int,
    *,
    regions: Regions | None = None,
    cam: Any = None,
    progress: Progress = silent,
) -> Effect:
    """Measure what a perturbation does to the logits of two classes, region by region, and make the maps to draw it on.

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    clean, adversarial
        (1,c,h,w) The image before and after, values in [0, 1].
    true, wrong
        The true class, and the class that the perturbation promotes.
    regions
        How the image is divided; `Grid` if None.
    cam
        The class activation maps; `GradCAM` if None, where the model has a spatial layer.
    progress
        Called with the evaluations done, those in all, and what is being done.

    Raises
    ------
    ImageError
        If the images differ in size, or do not differ at all.
    ParameterError
        If both classes are the same, or the regions do not fit.
    MethodError
        If class activation maps were asked for and the model has none.
    """
    parts = Grid() if regions is None else regions
    t0, t = (torch.tensor([index], device=clean.device) for index in (true, wrong))
    exact = sensitivity(classifier, clean, adversarial, t0, t, parts, progress=progress)
    first = sensitivity(classifier, clean, adversarial, t0, t, exact.labels, method="gradient")
    cams = _compute_cams(classifier, clean, adversarial, true, wrong, GradCAM() if cam is None else cam)
    notes = []
    if isinstance(cams, MethodError):
        if cam is not None:
            raise cams
        notes.append(f"The perturbation is not compared with class activation maps. {cams}")
    return Effect(
        regions=_describe_regions(parts, exact),
        sensitivity=exact.to("cpu"),
        first_order=first.to("cpu"),
        cams=cams if isinstance(cams, Evidence) else None,
        notes=tuple(notes),
    )


def _compute_cams(
    classifier: Classifier, clean: Images, adversarial: Images, true: int, wrong: int, cam: Any
) -> Evidence | MethodError:
    images = torch.cat([clean, adversarial])
    pair = [torch.tensor([index] * 2, device=images.device) for index in (wrong, true)]
    ((method, maps),) = pair_maps([cam], classifier, images, *pair, both=True)
    if isinstance(maps, MethodError):
        return maps
    return Evidence(describe(method), title(method), method.card.summary, isinstance(method, Enhanced), maps.cpu())


def _describe_regions(regions: Regions, sensitivity: Sensitivity) -> str:
    if isinstance(regions, Tensor):
        return "regions of its label map"
    if isinstance(regions, Superpixels):
        return "superpixels"
    labels = sensitivity.labels[0]
    side = int((labels[0] == 0).sum())
    return f"cells of {side} × {side} pixels"


def name_effect_tensors(effect: Effect) -> Iterator[tuple[str, Tensor]]:
    """Name the tensors of an effect: the region of every pixel, and one number for each region."""
    sensitivity = effect.sensitivity
    yield "regions/labels", sensitivity.labels[0]
    for name in ("true_change", "target_change", "score", "ratio", "kind", "l2", "linf"):
        yield f"regions/{name}", getattr(sensitivity, name)[0]
