"""Regions with names: the label map of a photograph, and what its perturbation does there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.explanations.case import Case
from whyfooled.images.label_maps import read_label_map
from whyfooled.perturbation.named_effect import NamedEffect, find_named_effect
from whyfooled.running.provenance import Stages
from whyfooled.types import Images
from whyfooled.units.concepts.named_regions import NamedRegions, fit_label_map, name_regions


def read_named_regions(
    classifier: Classifier, image: Any, clean: Images, regions: str | Path | Tensor, names: str | Path | None
) -> NamedRegions:
    """Read a label map of a photograph and its names, and bring it to the input size as the photograph was.

    Labels of one name are one region. Pixels without a name, as of the label 255 which is left out by custom, are
    `whyfooled.units.concepts.named_regions.ELSE`; names that the image does not show are left out.

    Parameters
    ----------
    classifier
        The classifier.
    image
        The photograph (a PIL image), or anything else if it came in the input size.
    clean
        (1,c,h,w) What the classifier sees of it.
    regions
        The label map, of the photograph's size or of the input size; or its file.
    names
        The file that names the labels, as of `whyfooled dissect`; they are called by their numbers if None.

    Raises
    ------
    ImageError
        If a file cannot be read, the label map has another size, or a label that is not named.
    """
    where = regions if isinstance(regions, (str, Path)) else "the label map"
    label_map = read_label_map(regions) if isinstance(regions, (str, Path)) else regions
    size = (image.height, image.width) if isinstance(image, PILImage.Image) else None
    # A picture of the input size may have gone in as it is.
    if size is not None and tuple(label_map.shape) == size == classifier.size:
        as_it_is = not torch.equal(classifier.prepare(image), clean)
        return name_regions(
            label_map if as_it_is else fit_label_map(label_map, classifier.fit, size, where), names, where
        )
    return name_regions(fit_label_map(label_map, classifier.fit, size, where), names, where)


def find_named(classifier: Classifier, case: Case, places: NamedRegions, stages: Stages) -> NamedEffect | None:
    """Measure what a case's perturbation does on regions with names; None without a perturbation."""
    if torch.equal(case.clean, case.adversarial):
        return None
    with stages.stage("named regions"):
        return find_named_effect(
            classifier, case.clean, case.adversarial, case.true, case.wrong, places.labels, places.names
        )


def describe_named(
    regions: str | Path | Tensor | None, names: str | Path | None, attack_in: str | None = None
) -> dict[str, str]:
    """Describe what was given of regions with names."""
    given: dict[str, Any] = {"named_regions": regions, "names": names, "attack_in": attack_in}
    return {
        key: "given as a tensor" if isinstance(value, Tensor) else str(value)
        for key, value in given.items()
        if value is not None
    }
