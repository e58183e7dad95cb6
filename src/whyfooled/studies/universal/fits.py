"""What the studies of universal perturbations share: fitting images, fits that a stopped run finds again, tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import pandas as pd
import torch
from torch import Tensor

from whyfooled._version import __version__
from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes
from whyfooled.errors import ImageError, MethodError, ParameterError, WhyfooledError, at_least, bad_parameter
from whyfooled.images import content_digest
from whyfooled.registry import describe, describe_value, parameters, title
from whyfooled.sources import Source, class_map, open_source, takes_labels
from whyfooled.studies.parts.attacked import ALREADY_WRONG
from whyfooled.studies.prepare import PERTURBATIONS, Setting
from whyfooled.studies.study import Batch
from whyfooled.tensors.balls import Ball
from whyfooled.tensors.randomness import choose
from whyfooled.types import Classes, Images
from whyfooled.universal import RandomDirection, UniversalMethod, UniversalPerturbation
from whyfooled.universal.evaluation import check_unseen, random_like

TESTED = "tested"
CHANCE = "Random, one for each image"
"""What every perturbation is held against: a random direction of each image's own, of the ball's radius."""
HALF = "the other half of the images, drawn at random"


def named(method: UniversalMethod) -> str:
    """Return a method's name in reports, without what all methods of a study share: ball, radius and seed."""
    defaults = parameters(type(method))
    usual: dict[str, Any] = {name: defaults[name] for name in ("epsilon", "ball", "scale", "seed")}
    return title(replace(method, **usual))


def check_universal(methods: Sequence[Any], epsilons: Sequence[float], ball: Ball, scale: int) -> None:
    """Raise `ParameterError` unless there are ways to fit, with different names, and radii that the ball can have."""
    for method in methods:
        if not isinstance(method, UniversalMethod):
            raise bad_parameter("methods", "must be universal perturbations, such as UPIGrad()", repr(method))
    names = [named(method) for method in methods]
    if not names or not epsilons:
        raise ParameterError(f"`{'epsilons' if names else 'methods'}` must have at least one entry.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"`methods` must have different names; {twice} is there twice.")
    if len(set(epsilons)) < len(epsilons):
        raise ParameterError(f"`epsilons` must be there once each; got {list(epsilons)}.")
    for epsilon in epsilons:
        RandomDirection(epsilon=epsilon, ball=ball, scale=scale)


def check_fit(fit: str, labels: str, count: int | None) -> None:
    """Raise `ParameterError` unless these tell which images to fit to."""
    if count is not None:
        at_least("fit_count", count, 1)
    if labels and not fit:
        raise bad_parameter("fit_labels", "are for fitting images of their own", labels, "Give them with fit=PLACE.")


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
        return sum(not known.isdisjoint(own) for own in self.digests)


def fitting_images(setting: Setting, fit: str, labels: str, count: int | None) -> FittingImages:
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
    total = len(setting.places)
    if total < 2:
        raise bad_parameter("images", "must be at least 2, because half of them are fitted to", total)
    half = set(choose(total, total // 2, setting.seed))
    own = [place for number, place in enumerate(setting.places) if number in half]
    left = [place for number, place in enumerate(setting.places) if number not in half]
    drawn = [own[number] for number in choose(len(own), count, setting.seed)]
    return FittingImages(setting.source.only(drawn), left, HALF)


def looked_at(images: FittingImages, setting: Setting) -> FittingImages:
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
    notes: list[str] = []
    for place in range(len(images.source)):
        try:
            sample = images.source[place]
            fitted = sample.fitted(classifier.fit, classifier.channels)
            digests[place] = frozenset((content_digest(sample.image), content_digest(fitted)))
        except WhyfooledError as error:
            notes.append(f"{images.source.name(place)} cannot be fitted to: {error}")
        setting.progress(place + 1, len(images.source), "looking at the fitting images")
    if not digests:
        raise ImageError(f"None of the {len(images.source)} fitting images can be used. {notes[0]}")
    probe = UniversalPerturbation(
        delta=torch.zeros(classifier.channels, *classifier.size),
        epsilon=1.0,
        fitted_to=frozenset().union(*digests.values()),
    )
    check_unseen(
        probe,
        setting.source,
        classifier,
        images.tested,
        lambda done, total, _: setting.progress(done, total, "looking at the test images"),
    )
    return replace(
        images, source=images.source.only(list(digests)), digests=tuple(digests.values()), notes=tuple(notes)
    )


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """A perturbation that is sent to the workers, or why there is none.

    Parameters
    ----------
    method
        What found it, as in reports.
    perturbation
        Without the digests of the images and the history, which workers do not need; None if it could not be found.
    used
        How many images it was fitted to.
    error
        Why it could not be found.
    """

    method: str
    perturbation: UniversalPerturbation | None
    used: int = 0
    error: str = ""

    def applied_to(self, images: Images) -> Images:
        """Return images with it, outside of [0, 1] too.

        Raises
        ------
        MethodError
            If there is none.
        """
        if self.perturbation is None:
            raise MethodError(self.error)
        return self.perturbation.apply(images, clip=False)


@dataclass(eq=False)
class Fits:
    """Finds perturbations, or reads what an earlier part of the run has found. Lives inside one preparation.

    Parameters
    ----------
    setting
        What the study was given.
    passes
        What all fits took, once each, whether found now or before.
    """

    setting: Setting
    passes: Passes = field(default_factory=Passes)
    known: dict[Path, UniversalPerturbation] = field(default_factory=dict)

    def find(
        self, method: UniversalMethod, saliency: Any, images: FittingImages, classifier: Classifier | None = None
    ) -> Fitted:
        """Fit a method's perturbation; one that was fitted to the same is not fitted again.

        A method that does not work on the model is no error here: its reason is in the result.
        """
        try:
            found = self._found(method, saliency, images.source, classifier or self.setting.classifier)
        except MethodError as error:
            return Fitted(named(method), None, error=f"{named(method)}: {error}")
        return Fitted(named(method), replace(found, fitted_to=None, history=()), images.used(found))

    def _found(
        self, method: UniversalMethod, saliency: Any, source: Source, classifier: Classifier
    ) -> UniversalPerturbation:
        path = self._path(method, saliency, source, classifier)
        if path not in self.known:
            self.known[path] = found = self._read(path) or self._fit(path, method, saliency, source, classifier)
            self.passes.forwards += found.passes.forwards
            self.passes.backwards += found.passes.backwards
        return self.known[path]

    def _path(self, method: UniversalMethod, saliency: Any, source: Source, classifier: Classifier) -> Path:
        """Name the file after everything that the perturbation depends on."""
        fit = [
            __version__,
            describe(method),
            describe_value(saliency) if method.breaks_maps else "",
            classifier.digest(),
            str(classifier.fit),
            source.digest(),
            class_map(source, classifier),
            self.setting.batch_size,
            self.setting.threads,
        ]
        digest = hashlib.blake2b(json.dumps(fit).encode(), digest_size=6).hexdigest()
        return self.setting.folder / PERTURBATIONS / f"{method.card.name}-{digest}.safetensors"

    def _read(self, path: Path) -> UniversalPerturbation | None:
        # A damaged file is written anew.
        with suppress(ImageError):
            return UniversalPerturbation.load(path)
        return None

    def _fit(
        self, path: Path, method: UniversalMethod, saliency: Any, source: Source, classifier: Classifier
    ) -> UniversalPerturbation:
        setting = self.setting
        found = method.fit(
            classifier,
            source,
            saliency,
            batch_size=setting.batch_size,
            engine=setting.engine,
            address=setting.address,
            threads=setting.threads,
            progress=lambda done, total, doing: setting.progress(done, total, f"{named(method)}, {doing}"),
        )
        found.save(path)
        return found


@final
@dataclass(frozen=True, eq=False)
class Tested:
    """The images of a batch that the classifier gets right.

    Parameters
    ----------
    places
        Their places in the batch.
    others
        The places of those that it gets wrong.
    images
        (m,c,h,w).
    classes
        (m,) What they show, which is what the classifier sees in them.
    """

    places: list[int]
    others: list[int]
    images: Images
    classes: Classes

    def wrong(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each image that does not count."""
        return ({"place": place, "outcome": ALREADY_WRONG} for place in self.others)

    def rows(self, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield a row for each image; tensors and lists have a value for each, anything else is the same for all."""
        several = {
            name: value.tolist() if isinstance(value, Tensor) else value
            for name, value in facts.items()
            if isinstance(value, Tensor | list)
        }
        for number, place in enumerate(self.places):
            own = {name: values[number] for name, values in several.items()}
            yield {"place": place, "outcome": TESTED, **facts, **own}


def tested(classifier: Classifier, batch: Batch) -> Tested:
    """Find the images of a batch that a classifier gets right."""
    seen = classifier.predict(batch.images)
    right = batch.right(seen, seen)
    places = [place for place, one in enumerate(right) if one]
    chosen = torch.tensor(places, dtype=torch.long, device=seen.device)
    others = [place for place, one in enumerate(right) if not one]
    return Tested(places, others, batch.images[chosen], seen[chosen])


def by_chance(images: Images, epsilon: float, ball: Ball, scale: int, seed: int) -> Images:
    """Add to each image a random direction of its own, as long as the ball's radius."""
    whole = RandomDirection(epsilon=epsilon, ball=ball, scale=scale)
    reference = whole.largest(torch.ones(images.shape[1:]))
    return random_like(UniversalPerturbation(reference, whole.radius, ball), images, seed)


def who_was_tested(rows: pd.DataFrame, images: int) -> str:
    """Say how many images were tested, how many were wrong before, and which others were fitted to.

    `rows` are those of a table with the columns index, outcome, fit and fit_images; `images`, how many it was given.
    """
    wrong = rows.loc[rows["outcome"] == ALREADY_WRONG, "index"].nunique()
    count = rows.loc[rows["outcome"] == TESTED, "index"].nunique()
    if not count:
        raise ImageError(f"None of the {images} test images is classified as what it shows, so none can be used.")
    left_out = f"; {wrong} that the classifier gets wrong were left out" if wrong else ""
    return f"{count} images were tested{left_out}. {what_was_fitted_to(rows)}"


def what_was_fitted_to(rows: pd.DataFrame) -> str:
    """Say how many images perturbations were fitted to, and which; of rows with the columns fit and fit_images."""
    known = rows.loc[rows["fit"].notna(), "fit"]
    origin = known.iloc[0] if len(known) else HALF
    sizes = sorted(set(rows["fit_images"].dropna().astype(int)))
    many = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}" if sizes else "no"
    return (
        f"Perturbations were fitted to {many} other images that the classifier gets right, from {origin}; "
        "by content, none of them is among those tested."
    )


def ball_text(ball: str, scale: int) -> str:
    """Say what a radius measures."""
    norm = "Euclidean length" if ball == "l2" else "largest change of a value"
    return f"{norm}, for values from 0 to {scale}"
