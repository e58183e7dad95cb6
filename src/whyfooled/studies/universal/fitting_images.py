"""The images that universal perturbations are fitted to, apart from those that they are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch

from whyfooled.errors import ImageError, WhyfooledError, hearing
from whyfooled.images import content_digest, perceptual_hash
from whyfooled.sources import Source, open_source, takes_labels
from whyfooled.studies.parts.held_out import split
from whyfooled.studies.prepare import Setting
from whyfooled.tensors.randomness import choose
from whyfooled.universal import UniversalPerturbation
from whyfooled.universal.evaluation import check_unseen

HALF = "the other half of the images, drawn at random"


@final
@dataclass(frozen=True, eq=False)
class FittingImages:
    """The images to fit to, and which of the study's own are left to be tested.

    Parameters
    ----------
    source
        The images to fit to.
    tested
        The places of the study's images that are not fitted to.
    origin
        Where the fitting images come from, for a sentence.
    digests
        For each fitting image, its digests; empty before they were looked at.
    notes
        What a reader should know.
    """

    source: Source
    tested: Sequence[int]
    origin: str
    digests: tuple[frozenset[str], ...] = ()
    notes: tuple[str, ...] = ()

    def used(self, perturbation: UniversalPerturbation) -> int:
        """Return how many of the images a perturbation was fitted to: those that the classifier gets right."""
        known = perturbation.fitted_to or frozenset()
        return sum(not known.isdisjoint(digests) for digests in self.digests)

    def drawn(self, count: int, seed: int) -> FittingImages:
        """Draw so many of them."""
        places = choose(len(self.source), count, seed)
        digests = tuple(self.digests[place] for place in places)
        return replace(self, source=self.source.only(places), digests=digests)


def find_fitting_images(setting: Setting, fit: str, labels: str, count: int | None) -> FittingImages:
    """Find the images to fit to: those of another source or, without one, half of the study's own. Nothing is read.

    Raises
    ------
    ParameterError
        If there are too few images to fit to some and test others.
    ImageError
        If there are no images at the place.
    """
    if fit:
        given = Path(labels) if labels else setting.labels if takes_labels(fit) else None
        others = open_source(fit, given)
        return FittingImages(others.only(choose(len(others), count, setting.seed)), setting.places, fit)
    half, left = split(setting.places, 0.5, setting.seed, "half of them are fitted to")
    drawn = [half[number] for number in choose(len(half), count, setting.seed)]
    return FittingImages(setting.source.only(drawn), left, HALF)


def look_at(images: FittingImages, setting: Setting) -> FittingImages:
    """Leave out fitting images that cannot be read, and make sure that no test image is among the others.

    Raises
    ------
    ParameterError
        If a test image is a fitting image too: by content, whatever the names.
    ImageError
        If no fitting image can be read.
    """
    classifier = setting.classifier
    digests: dict[int, frozenset[str]] = {}
    looks: set[str] = set()
    notes: list[str] = []
    for place in range(len(images.source)):
        try:
            sample = images.source[place]
            fitted = sample.fitted(classifier.fit, classifier.channels)
            digests[place] = frozenset((content_digest(sample.image), content_digest(fitted)))
            looks.add(perceptual_hash(sample.image))
        except WhyfooledError as error:
            notes.append(f"{images.source.name(place)} cannot be fitted to: {error}")
        setting.progress(place + 1, len(images.source), "looking at the fitting images")
    if not digests:
        raise ImageError(f"None of the {len(images.source)} fitting images can be used. {notes[0]}")
    probe = UniversalPerturbation(
        delta=torch.zeros(classifier.channels, *classifier.size),
        epsilon=1.0,
        fitted_to=frozenset().union(*digests.values()),
        looks=frozenset(looks),
    )
    with hearing() as heard:
        check_unseen(
            probe,
            setting.source,
            classifier,
            images.tested,
            lambda done, total, _: setting.progress(done, total, "looking at the test images"),
        )
    notes += heard
    readable = images.source.only(list(digests))
    return replace(images, source=readable, digests=tuple(digests.values()), notes=tuple(notes))
