"""ImageNet, Tiny ImageNet and PASCAL VOC 2012, in the layouts in which they are published."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from whyfooled.errors import ImageError, did_you_mean, first_line
from whyfooled.images import list_folders_in, photographs_below
from whyfooled.images.folders import existing_folder
from whyfooled.sources._files import PhotographReader, list_photographs_by_class
from whyfooled.sources._source import Source
from whyfooled.sources.text_files import read_text

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def imagenet_synsets() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes, in the order of their indices (sorted)."""
    return tuple(_imagenet_info().label_names())


def imagenet_names() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes, several of one class separated by ``", "``."""
    info = _imagenet_info()
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))


def _imagenet_info() -> Any:
    return importlib.import_module("timm.data").ImageNetInfo("imagenet-1k")


def open_imagenet(place: str, title: str) -> Source:
    """List ImageNet's validation images: ``val/n01440764/*.JPEG``, or flat in ``val`` beside the development kit.

    The tree may have folders of some of the 1000 classes only; labels are always indices of the 1000. For a flat
    ``val``, torchvision reads the labels from ``ILSVRC2012_devkit_t12.tar.gz``, and writes ``meta.bin`` beside it.
    """
    root = existing_folder(place)
    root = root / "val" if (root / "val").is_dir() else root
    synsets = imagenet_synsets()
    index = {synset: number for number, synset in enumerate(synsets)}
    folders = list_folders_in(root)
    if folders:
        unknown = next((folder.name for folder in folders if folder.name not in index), None)
        if unknown is not None:
            raise ImageError(
                f"{root / unknown} is not named by one of ImageNet's 1000 synsets, such as n01440764. "
                f"{did_you_mean(unknown, synsets)}".rstrip()
            )
        names, shown = list_photographs_by_class(root, folders, [index[folder.name] for folder in folders])
    else:
        names = tuple(path.name for path in photographs_below(root))
        if not names:
            raise ImageError(f"{root} has neither folders named by synsets (n01440764) nor photographs in it.")
        shown = _labels_from_devkit(root.parent, names, index)
    return Source(title, names, shown, PhotographReader(root, names), imagenet_names(), synsets)


def _labels_from_devkit(root: Path, names: Sequence[str], index: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    imagenet = importlib.import_module("torchvision.datasets.imagenet")
    try:
        if not (root / imagenet.META_FILE).is_file():
            imagenet.parse_devkit_archive(str(root))
        in_order: list[str] = imagenet.load_meta_file(str(root))[1]
        return tuple((index[in_order[_number(name) - 1]],) for name in names)
    except ImageError:
        raise
    except Exception as error:  # torchvision, SciPy and tarfile each have their own
        raise ImageError(
            f"The photographs of {root} are not in folders named by synset, and ImageNet's development kit cannot tell "
            f"what they show: {first_line(error)}."
        ) from None


def _number(name: str) -> int:
    match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name)
    if match is None:
        raise ImageError(f"{name} is not named as ImageNet's validation images are: ILSVRC2012_val_00000001.JPEG.")
    return int(match[1])


def open_tiny_imagenet(place: str, title: str) -> Source:
    """List Tiny ImageNet's validation images: ``val/images``, with ``val/val_annotations.txt``.

    The classes are those in ``wnids.txt``, sorted as training on its folders sorts them; their names are from
    ``words.txt``.
    """
    root = existing_folder(place)
    synsets = tuple(sorted(read_lines(root / "wnids.txt", "Tiny ImageNet")))
    index = {synset: number for number, synset in enumerate(synsets)}
    rows = [line.split("\t") for line in read_lines(root / "val" / "val_annotations.txt", "Tiny ImageNet")]
    strange = next((row for row in rows if len(row) < 2 or row[1] not in index), None)
    if strange is not None or not rows:
        raise ImageError(
            f"{root}/val/val_annotations.txt must have an image and one of wnids.txt in every line; "
            f"got {'nothing' if strange is None else repr(' '.join(strange))}."
        )
    words = dict(line.partition("\t")[::2] for line in read_lines(root / "words.txt", "Tiny ImageNet"))
    names = tuple(row[0] for row in rows)
    return Source(
        title,
        names,
        tuple((index[row[1]],) for row in rows),
        PhotographReader(root / "val" / "images", names),
        tuple(words.get(synset, synset) for synset in synsets),
        synsets,
    )


def open_voc2012(place: str, title: str) -> Source:
    """List the validation images of PASCAL VOC 2012 (``VOCdevkit/VOC2012``), each with all classes that it shows."""
    return _open_voc(place, title, "val")


def open_voc2012_train(place: str, title: str) -> Source:
    """List the training images of PASCAL VOC 2012: none of them is among the validation images."""
    return _open_voc(place, title, "train")


def _open_voc(place: str, title: str, part: str) -> Source:
    """List one part.

    Objects marked ``difficult`` do not count, as in the challenge's own scores: an image of nothing else has no label.
    """
    root, numbers = find_voc_part(place, "Main", part)
    names = tuple(f"{number}.jpg" for number in numbers)
    shown = tuple(_read_voc_labels(root / "Annotations" / f"{number}.xml") for number in numbers)
    return Source(title, names, shown, PhotographReader(root / "JPEGImages", names), VOC_CLASSES)


def find_voc_part(place: str, task: str, part: str) -> tuple[Path, list[str]]:
    """Return the folder of PASCAL VOC 2012, and the numbers of the images of one part for one task.

    Raises
    ------
    ImageError
        If there is no such folder, its list of images cannot be read, or is empty.
    """
    root = existing_folder(place)
    root = next((root / below for below in ("VOCdevkit/VOC2012", "VOC2012") if (root / below).is_dir()), root)
    listing = root / "ImageSets" / task / f"{part}.txt"
    numbers = read_lines(listing, "PASCAL VOC 2012")
    if not numbers:
        raise ImageError(f"{listing} names no image.")
    return root, numbers


def _read_voc_labels(path: Path) -> tuple[int, ...]:
    try:
        objects = ElementTree.parse(path).findall("object")
        plain = {found.findtext("name", "").strip() for found in objects if found.findtext("difficult", "0") != "1"}
        return tuple(sorted(VOC_CLASSES.index(name) for name in plain))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ImageError(f"{path} cannot be read as an annotation of PASCAL VOC: {error}.") from None


def read_lines(path: Path, data_set: str) -> list[str]:
    """Read the lines of a file that are not blank; `ImageError` says which data set it is a part of."""
    try:
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ImageError(f"{path}, a part of {data_set}, cannot be read: {reason}.") from None
