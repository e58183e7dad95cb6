"""Opening annotated images: their kind is told by a prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from whyfooled.errors import bad_parameter, did_you_mean
from whyfooled.units.concepts.broden import open_broden
from whyfooled.units.concepts.colours import open_colours, with_colours
from whyfooled.units.concepts.concepts import Concepts
from whyfooled.units.concepts.masks import open_masks
from whyfooled.units.concepts.published import (
    open_coco_stuff,
    open_coco_stuff_train,
    open_voc2012_segmentation,
    open_voc2012_segmentation_train,
)


@final
@dataclass(frozen=True)
class ConceptCard:
    """What a kind of annotated images says of itself.

    Parameters
    ----------
    form
        How it is written.
    summary
        One line: what it is, and what its concepts are.
    open
        Opens it, from what follows the prefix and the title.
    """

    form: str
    summary: str
    open: Callable[[str, str], Concepts]


CONCEPTS: dict[str, ConceptCard] = {
    "masks": ConceptCard(
        "masks:IMAGES,LABELS,NAMES",
        "a folder of images, a folder of label maps, and a text or CSV file that names the labels",
        open_masks,
    ),
    "broden": ConceptCard("broden:ROOT", "Broden, or another data set in its layout", open_broden),
    "voc2012-segmentation": ConceptCard(
        "voc2012-segmentation:ROOT", "PASCAL VOC 2012, validation images: 20 objects", open_voc2012_segmentation
    ),
    "voc2012-segmentation-train": ConceptCard(
        "voc2012-segmentation-train:ROOT", "the same, training images", open_voc2012_segmentation_train
    ),
    "coco-stuff": ConceptCard(
        "coco-stuff:ROOT", "COCO-Stuff, validation images of 2017: things and stuff", open_coco_stuff
    ),
    "coco-stuff-train": ConceptCard("coco-stuff-train:ROOT", "the same, training images", open_coco_stuff_train),
    "colours": ConceptCard(
        "colours:PHOTOGRAPHS", "photographs without annotations: the eleven basic colour names", open_colours
    ),
}
"""The kinds of annotated images, by prefix."""


def open_concepts(place: str | Path, colours: bool = False) -> Concepts:
    """Open annotated images: they are listed, and no image is read; of masks, a label map or a few are.

    Parameters
    ----------
    place
        * ``"masks:IMAGES,LABELS,NAMES"``: a folder of images, a folder of label maps (PNG or ``.npy``, a number for
          every pixel), and a list of the labels: a text file with a name on each line, from label 0, or a CSV file with
          the columns ``label``, ``name`` and perhaps ``category``.
        * ``"broden:ROOT"``; ``"voc2012-segmentation:ROOT"``, ``"coco-stuff:ROOT"``, and these two with ``-train``; all
          in their published layouts.
        * ``"colours:PHOTOGRAPHS"``: photographs, or any source of pictures, see `whyfooled.sources.open_source`.

        See `CONCEPTS`.
    colours
        Whether to add the eleven basic colour names to the concepts, see `with_colours`; ``colours:`` has them anyway.

    Returns
    -------
    Concepts

    Raises
    ------
    ImageError
        If there is nothing of that kind at the place, or its lists are damaged: the lines are named.
    ParameterError
        If there is no such kind, or a part of the place is missing.
    """
    text = str(place)
    kind, colon, rest = text.partition(":")
    if not colon or kind not in CONCEPTS:
        fix = did_you_mean(kind, CONCEPTS) if colon else f"Such as {CONCEPTS['masks'].form}."
        rule = f"must start with a kind of annotated images ({', '.join(CONCEPTS)}) and a colon"
        raise bad_parameter("concepts", rule, repr(text), fix)
    card = CONCEPTS[kind]
    if not rest.strip():
        raise bad_parameter("concepts", f"must be {card.form}", repr(text), "What follows the colon is missing.")
    # The shell leaves ~ alone after a colon.
    concepts = card.open(str(Path(rest).expanduser()), text)
    return with_colours(concepts) if colours and kind != "colours" else concepts
