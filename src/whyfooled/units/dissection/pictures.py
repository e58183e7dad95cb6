"""The pictures of a dissection's page: a thumbnail of each top image, and outlines to lay over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from PIL import Image as PILImage

from whyfooled.classifier import Fit
from whyfooled.drawing.outlines import choose_box, outline_levels, outline_mask
from whyfooled.images import to_picture
from whyfooled.types import Progress, silent
from whyfooled.units.concepts import Annotated, Concepts
from whyfooled.units.dissection.results import DissectedLayer, DissectionRecord

SIDE = 160
"""The longer side of a thumbnail, at most, in pixels. [ours]"""

_AT_ONCE = 256


@final
@dataclass(frozen=True)
class Pictures:
    """What the page draws top images with.

    Parameters
    ----------
    box
        Height and width that the outlines are drawn in.
    names
        The images' names, by their places in the list.
    files
        Their thumbnails, beside the page; empty if the images could not be read again.
    masks
        Outlines of what shows a concept in an image, by ``"image:concept"``: the best concepts of the image's units.
    outlines
        For each layer, for each unit, for each of its top images, the outline of the area in which it is active.
    """

    box: tuple[int, int]
    names: Mapping[int, str]
    files: Mapping[int, str]
    masks: Mapping[str, str]
    outlines: list[list[list[str]]]


def draw_pictures(dissection: DissectionRecord, folder: Path, progress: Progress = silent) -> Pictures:
    """Write the thumbnails into a folder, which is made; each top image is read once.

    Without the dissection's `source` there are outlines alone, and no folder is made.

    Raises
    ------
    ImageError
        If an image can no longer be read.
    """
    best = _find_best_concepts(dissection)
    # Without the images, their shape is as good as that of the maps.
    shape = dissection.layers[-1].layer.map_size if dissection.fit is None else dissection.fit.size
    box = choose_box((shape[0], shape[1]))
    files: dict[int, str] = {}
    masks: dict[str, str] = {}
    done, total = 0, len(best) + sum(one.layer.units for one in dissection.layers)
    progress(done, total, "page")
    if dissection.source is not None and dissection.fit is not None:
        folder.mkdir()
        for index in sorted(best):
            picture, outlines = _draw_image(dissection.source, dissection.fit, dissection.channels, index, best, box)
            picture.save(folder / f"{index}.webp", quality=80, method=4)
            files[index] = f"{folder.name}/{index}.webp"
            masks |= outlines
            done += 1
            progress(done, total, "page")
    outlines_of_units = []
    for dissected in dissection.layers:
        outlines_of_units.append(_outline_units(dissected, box))
        done += dissected.layer.units
        progress(done, total, "page")
    return Pictures(
        box=box,
        names={index: dissection.images[index] for index in sorted(best)},
        files=files,
        masks=masks,
        outlines=outlines_of_units,
    )


def _find_best_concepts(dissection: DissectionRecord) -> dict[int, set[int]]:
    """Return, for each top image, the best concepts of the units whose top image it is."""
    concepts_of: dict[int, set[int]] = defaultdict(set)
    for dissected in dissection.layers:
        for concept, images, dead in zip(
            dissected.best.tolist(), dissected.top_images.tolist(), dissected.dead.tolist(), strict=True
        ):
            for image in images:
                if image >= 0 and not dead:
                    concepts_of[image] |= {concept} - {-1}
    return concepts_of


def _draw_image(
    source: Concepts, fit: Fit, channels: int, index: int, best: Mapping[int, set[int]], box: tuple[int, int]
) -> tuple[PILImage.Image, dict[str, str]]:
    """Read an image: a thumbnail of what the classifier saw of it, and outlines of what it shows of some concepts."""
    annotated: Annotated = source[index]
    image, maps = annotated.fitted(fit, channels)
    picture = to_picture(image)
    picture.thumbnail((SIDE, SIDE), PILImage.Resampling.LANCZOS)
    masks = {f"{index}:{concept}": outline_mask((maps == concept).any(0), box) for concept in sorted(best[index])}
    return picture, {key: path for key, path in masks.items() if path}


def _outline_units(dissected: DissectedLayer, box: tuple[int, int]) -> list[list[str]]:
    """Outline the active areas in every unit's top images."""
    excess = dissected.top_maps - dissected.threshold.to(dissected.top_maps)[:, None, None, None]
    units, most = excess.shape[:2]
    # Of none there are no top images.
    excess = torch.where((dissected.top_images >= 0)[:, :, None, None], excess, -1)
    paths = [path for part in torch.split(excess.flatten(0, 1), _AT_ONCE) for path in outline_levels(part, box)]
    return [paths[unit * most : (unit + 1) * most] for unit in range(units)]
