"""Regions with names: a label map of the photograph, and what its numbers are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import ImageError, bad_parameter
from whyfooled.explanations.case import Case
from whyfooled.images.label_maps import read_label_map
from whyfooled.perturbation.named_effect import NamedEffect, find_named_effect
from whyfooled.running.provenance import Stages
from whyfooled.types import Images
from whyfooled.units.concepts.masks import read_names
from whyfooled.units.concepts.paired import VOID

ELSE = "everything else"
"""What pixels are called whose label has no name."""


@final
@dataclass(frozen=True, eq=False)
class NamedRegions:
    """The regions of one image, brought to the classifier's input size.

    Parameters
    ----------
    labels
        (h,w) The region of every pixel, from 0.
    names
        Their names.
    """

    labels: Int64[Tensor, "h w"]
    names: tuple[str, ...]

    def find(self, name: str, argument: str) -> Tensor:
        """Return (1,1,h,w) whether each pixel belongs to the region of a name.

        Raises
        ------
        ParameterError
            If there is no such region in the image.
        """
        if name not in self.names:
            rule = f"must be a region of the image: {', '.join(self.names)}"
            raise bad_parameter(argument, rule, repr(name))
        return (self.labels == self.names.index(name))[None, None]


def read_named_regions(
    classifier: Classifier, image: Any, clean: Images, regions: str | Path | Tensor, names: str | Path | None
) -> NamedRegions:
    """Read a label map of a photograph and its names, and bring it to the input size as the photograph was.

    Labels of one name are one region. Pixels without a name, as of the label 255 which is left out by custom, are
    `ELSE`; names that the image does not show are left out.

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
    fitted = _fit(classifier, image, clean, label_map, where)
    present: list[int] = torch.unique(fitted).tolist()
    known = _name_labels(present, names, where)
    shown = list(dict.fromkeys(known[label] for label in present))
    numbered = torch.zeros_like(fitted)
    for label in present:
        numbered[fitted == label] = shown.index(known[label])
    return NamedRegions(numbered, tuple(shown))


def _fit(classifier: Classifier, image: Any, clean: Images, label_map: Tensor, where: object) -> Tensor:
    """Bring a label map to the input size, no label mixed with another."""
    size, photograph = tuple(label_map.shape), isinstance(image, PILImage.Image)
    if photograph and size == (image.height, image.width):
        # A picture of the input size may have gone in as it is.
        if size == classifier.size and not torch.equal(classifier.prepare(image), clean):
            return label_map
        nearest = replace(classifier.fit, interpolation="nearest")
        drawn = PILImage.fromarray(label_map.numpy().astype(np.int32))
        return torch.from_numpy(np.asarray(nearest(drawn)).astype(np.int64))
    if size == classifier.size:
        return label_map
    expected = f"{classifier.size[0]} × {classifier.size[1]}, the classifier's input"
    if photograph:
        expected = f"{image.height} × {image.width}, as the photograph, or {expected}"
    raise ImageError(f"{where} must be of {expected} (height × width); it is {size[0]} × {size[1]}.")


def _name_labels(present: list[int], names: str | Path | None, where: object) -> dict[int, str]:
    """Return what each label of an image is called."""
    if names is None:
        return {label: f"region {label}" for label in present}
    known = {label: name or ELSE for label, name, _ in read_names(Path(names))}
    unknown = [label for label in present if label not in known and label != VOID]
    if unknown:
        raise ImageError(f"{where} has the label {unknown[0]}, and {names} names none such.")
    if VOID in present and VOID not in known and set(present) <= {0, VOID}:
        raise ImageError(
            f"{where} has 0 and {VOID} alone: is {VOID} the object of a mask, or what was left out? Say it in a CSV "
            f"file with the columns label and name: {VOID},object or {VOID},void."
        )
    return {label: known.get(label, ELSE) for label in present}


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
