"""How a source's classes become a classifier's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from whyfooled.classifier import Classifier
from whyfooled.errors import ParameterError, bad_parameter
from whyfooled.sources._source import Source
from whyfooled.sources.published import imagenet_names, imagenet_synsets

_IMAGENET = 1000
_FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)|nan", re.IGNORECASE)
"""A number with a point, or a missing one: sorted as text, and counted, such labels would become other classes."""


def class_map(source: Source, classifier: Classifier) -> tuple[int, ...] | None:
    """Find the classifier's index of each class of a source.

    By ImageNet synset (``n01440764``) where the classifier has ImageNet's 1000 classes; else by name, or by index where
    a name is a whole number, ``7`` or ``7.0``; else by position, where there are equally many classes and no name
    contradicts it or is a number with a point.

    Parameters
    ----------
    source
        The source.
    classifier
        The classifier. Without class names, its classes are counted by one forward pass, and 1000 are taken for
        ImageNet's.

    Returns
    -------
    tuple
        For each class of the source, the classifier's index. None if the source has no class names: its labels, if it
        has any, are the classifier's indices.

    Raises
    ------
    ParameterError
        If a class of the source is none of the classifier's, or a label is out of its range.
    """
    if source.class_names is None:
        _check_range(source, classifier)
        return None
    names = source.class_names
    count = classifier.class_count()
    synsets = _by_synset(source.synsets or names, classifier, count)
    if synsets is not None:
        return synsets
    indices = [_by_name(name, classifier, count) for name in names]
    whole = tuple(index for index in indices if index is not None)
    if len(whole) == len(names):
        return whole
    strange = [name for name, index in zip(names, indices, strict=True) if index is None]
    numbers = [name for name in strange if _FRACTION.fullmatch(name)]
    if numbers and re.search("[0-9]", "".join(names)):
        rule = f"must be indices from 0 to {count - 1} where they are numbers, or class names"
        fix = "Write them as whole numbers, and leave out those that are missing."
        raise bad_parameter("labels", rule, numbers[0], fix)
    if len(names) == count and all(index in (None, place) for place, index in enumerate(indices)):
        return tuple(range(count))
    order = ", and the others stand in another order" if len(names) == count else ""
    raise ParameterError(
        f"`images` must show classes that the classifier knows; {source.title} has {len(names)} classes, the "
        f"classifier {count}, and {len(strange)} of the former are none of the latter, such as {strange[0]}{order}. "
        "Name the classes as the classifier does, or by its indices, or give a classifier for these classes."
    )


def mapped(labels: Sequence[int], class_map: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return what an image shows, as the classifier's indices, each once: two labels may stand for one class."""
    return tuple(dict.fromkeys(labels if class_map is None else (class_map[label] for label in labels)))


def _check_range(source: Source, classifier: Classifier) -> None:
    there = {label for labels in source.all_labels for label in labels}
    if not there:
        return
    count = classifier.class_count()
    outside = sorted(there.difference(range(count)))
    if outside:
        fix = "Give a classifier for these classes."
        raise bad_parameter("labels", f"must be the classifier's indices, from 0 to {count - 1}", outside[-1], fix)


def _by_synset(synsets: Sequence[str], classifier: Classifier, count: int) -> tuple[int, ...] | None:
    if count != _IMAGENET or not all(re.fullmatch(r"n\d{8}", synset) for synset in synsets):
        return None
    if classifier.class_names is not None and not _are_imagenets(classifier.class_names):
        return None
    index = {synset: number for number, synset in enumerate(imagenet_synsets())}
    if not all(synset in index for synset in synsets):
        return None
    return tuple(index[synset] for synset in synsets)


def _are_imagenets(names: Sequence[str]) -> bool:
    """Tell whether names are ImageNet's: torchvision and timm write two of them differently, others perhaps more."""
    first = [[name.split(", ")[0].lower() for name in given] for given in (names, imagenet_names())]
    same = sum(1 for one, other in zip(*first, strict=True) if one == other)
    return same > _IMAGENET // 2


def _by_name(name: str, classifier: Classifier, count: int) -> int | None:
    for text in (name, name.split(", ")[0]):
        try:
            return classifier.class_index(text, classes=count)
        except ParameterError:
            continue
    return None
