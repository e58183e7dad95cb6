"""PASCAL VOC 2012's segmentation and COCO-Stuff, in the layouts in which they are published."""

from __future__ import annotations

import re
from pathlib import Path

from whyfooled.errors import ImageError
from whyfooled.images import is_folder
from whyfooled.images.folders import existing_folder
from whyfooled.sources.published import VOC_CLASSES, find_voc_part, read_lines
from whyfooled.units.concepts.concepts import Concepts
from whyfooled.units.concepts.paired import CATEGORY, Labels, PairedReader, pair_up

_LAST_THING = 91
_MAPS = ("annotations", "stuffthingmaps")


def open_voc2012_segmentation(place: str, title: str) -> Concepts:
    """List the validation images of PASCAL VOC 2012 that have label maps; the concepts are the 20 classes.

    The layout is torchvision's: ``VOCdevkit/VOC2012`` below the place, or a folder in between. Label 0, the background,
    is no concept, and 255, the outlines, is not annotated.
    """
    return _open_voc(place, title, "val")


def open_voc2012_segmentation_train(place: str, title: str) -> Concepts:
    """List the training images of PASCAL VOC 2012 that have label maps."""
    return _open_voc(place, title, "train")


def _open_voc(place: str, title: str, part: str) -> Concepts:
    root, numbers = find_voc_part(place, "Segmentation", part)
    rows = [(label, name, CATEGORY) for label, name in enumerate(("", *VOC_CLASSES))]
    labels = Labels.of(rows, "PASCAL VOC 2012", void=True)
    pairs = tuple((f"{number}.jpg", f"{number}.png") for number in numbers)
    return PairedReader(root / "JPEGImages", root / "SegmentationClass", pairs, labels).open(title)


def open_coco_stuff(place: str, title: str) -> Concepts:
    """List the validation images of COCO-Stuff (Caesar et al. 2018); concepts are 91 things and 91 kinds of stuff.

    Below the place are ``images/val2017``, ``annotations/val2017`` with the published pixel maps, and ``labels.txt``
    with lines such as ``1: person``. A pixel of the number v shows the label v + 1; things go up to label 91, and 255
    is not annotated. The images may be in ``val2017``, the maps in ``stuffthingmaps/val2017`` as well. Eleven things
    have a name and are annotated nowhere.
    """
    return _open_coco_stuff(place, title, "val2017")


def open_coco_stuff_train(place: str, title: str) -> Concepts:
    """List the training images of COCO-Stuff."""
    return _open_coco_stuff(place, title, "train2017")


def _open_coco_stuff(place: str, title: str, part: str) -> Concepts:
    root = existing_folder(place)
    images = _find_first_folder([root / "images" / part, root / part], "images")
    maps = _find_first_folder([root / folder / part for folder in _MAPS], "label maps")
    listing = root / "labels.txt"
    rows = []
    for line in read_lines(listing, "COCO-Stuff"):
        match = re.fullmatch(r"([0-9]{1,3}):\s*(.+)", line)
        if match is None:
            raise ImageError(f"{listing} must have lines such as '1: person'; got {line!r}.")
        label = int(match[1])
        # Label 0 is called unlabeled; in the maps it is 255.
        rows += [(label - 1, match[2], "thing" if label <= _LAST_THING else "stuff")] if label else []
    labels = Labels.of(rows, str(listing), void=True)
    return PairedReader(images, maps, pair_up(images, maps), labels, (listing,)).open(title)


def _find_first_folder(folders: list[Path], what: str) -> Path:
    first = next((folder for folder in folders if is_folder(folder)), None)
    if first is None:
        places = " or ".join(map(str, folders))
        raise ImageError(f"There are no {what} of COCO-Stuff: they must be in {places}.")
    return first
