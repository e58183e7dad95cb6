"""Regions of one image that have names: a label map, fitted as the photograph is, and what its numbers are called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int, Int64
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Fit
from whyfooled.errors import ImageError, bad_parameter
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


def fit_label_map(
    label_map: Int[Tensor, "p q"], fit: Fit, size: tuple[int, int] | None, where: object
) -> Int[Tensor, "h w"]:
    """Bring a label map to the input size as its photograph is, no label mixed with another.

    Parameters
    ----------
    label_map
        The label map, of the photograph's size or of the input size.
    fit
        How the photograph is brought to the input size.
    size
        The photograph's height and width; None if it came in the input size.
    where
        What the label map is called in an error.

    Raises
    ------
    ImageError
        If it has another size.
    """
    given = tuple(label_map.shape)
    if given == size:
        nearest = replace(fit, interpolation="nearest")
        drawn = PILImage.fromarray(label_map.numpy().astype(np.int32))
        return torch.from_numpy(np.asarray(nearest(drawn)).astype(np.int64))
    if given == fit.size:
        return label_map
    expected = f"{fit.size[0]} × {fit.size[1]}, the classifier's input"
    if size is not None:
        expected = f"{size[0]} × {size[1]}, as the photograph, or {expected}"
    raise ImageError(f"{where} must be of {expected} (height × width); it is {given[0]} × {given[1]}.")


def name_regions(label_map: Int[Tensor, "h w"], names: str | Path | None, where: object) -> NamedRegions:
    """Give each region of a label map its name; labels of one name are one region.

    Parameters
    ----------
    label_map
        The label map, of the input size.
    names
        The file that names the labels, as of `whyfooled dissect`; they are called by their numbers if None.
    where
        What the label map is called in an error.

    Raises
    ------
    ImageError
        If the file cannot be read, or a label is not named.
    """
    present: list[int] = torch.unique(label_map).tolist()
    known = _name_labels(present, names, where)
    shown = list(dict.fromkeys(known[label] for label in present))
    numbered = torch.zeros_like(label_map)
    for label in present:
        numbered[label_map == label] = shown.index(known[label])
    return NamedRegions(numbered, tuple(shown))


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
