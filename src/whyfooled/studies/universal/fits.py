"""Fits of universal perturbations, which a stopped run finds again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from whyfooled._version import __version__
from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes
from whyfooled.errors import ImageError, MethodError
from whyfooled.registry import describe, describe_value, parameters, title
from whyfooled.sources import Source, class_map
from whyfooled.studies.prepare import PERTURBATIONS, Prepared, Setting
from whyfooled.studies.universal.fitting_images import FittingImages
from whyfooled.types import Images
from whyfooled.universal import UniversalMethod, UniversalPerturbation


def named(method: UniversalMethod) -> str:
    """Return a method's name in reports, without what all methods of a study share: ball, radius and seed."""
    defaults = parameters(type(method))
    usual: dict[str, Any] = {name: defaults[name] for name in ("epsilon", "ball", "scale", "seed")}
    return title(replace(method, **usual))


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """A perturbation that is sent to the workers, or why there is none.

    Parameters
    ----------
    perturbation
        Without the digests of the images and the history, which workers do not need; None if it could not be found.
    facts
        What the rows say of it: ``method``, what found it; ``fit`` and ``fit_images``, which images it was fitted to,
        and how many; ``error``, why it could not be found; and what the study adds.
    """

    perturbation: UniversalPerturbation | None
    facts: Mapping[str, Any]

    def applied_to(self, images: Images) -> Images | None:
        """Return images with it, outside of [0, 1] too; None if there is none."""
        return None if self.perturbation is None else self.perturbation.apply(images, clip=False)


@final
@dataclass(eq=False)
class Fits:
    """Finds perturbations, or reads what an earlier part of the run has found. Lives inside one preparation.

    Parameters
    ----------
    setting
        What the study was given.
    images
        The images to fit to.
    passes
        What all fits took, once each, whether found now or before.
    """

    setting: Setting
    images: FittingImages
    passes: Passes = field(default_factory=Passes)
    known: dict[Path, UniversalPerturbation] = field(default_factory=dict)

    def find(
        self,
        method: UniversalMethod,
        saliency: Any,
        *,
        images: FittingImages | None = None,
        classifier: Classifier | None = None,
        **more: Any,
    ) -> Fitted:
        """Fit a method's perturbation; one that was fitted to the same is not fitted again.

        To all images and on the run's classifier, unless others are given; `more` is what else its rows say. A method
        that does not work on the model is no error here: its reason is in the result.
        """
        images = images or self.images
        facts = {"method": named(method), "fit": images.origin, "fit_images": 0, **more}
        try:
            perturbation = self._find_or_fit(method, saliency, images.source, classifier or self.setting.classifier)
        except MethodError as error:
            return Fitted(None, {**facts, "error": f"{named(method)}: {error}"})
        facts["fit_images"] = images.used(perturbation)
        return Fitted(replace(perturbation, fitted_to=None, looks=frozenset(), history=()), facts)

    def prepared(self, carried: Any, *notes: str) -> Prepared:
        """Hand on what was found, and the images that were not fitted to."""
        return Prepared(self.images.tested, carried, self.passes, (*self.images.notes, *notes))

    def _find_or_fit(
        self, method: UniversalMethod, saliency: Any, source: Source, classifier: Classifier
    ) -> UniversalPerturbation:
        path = self._path(method, saliency, source, classifier)
        if path not in self.known:
            perturbation = self._read(path) or self._fit(path, method, saliency, source, classifier)
            self.known[path] = perturbation
            self.passes.add(perturbation.passes)
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
        perturbation = method.fit(
            classifier,
            source,
            saliency,
            batch_size=setting.batch_size,
            engine=setting.engine,
            address=setting.address,
            workers=setting.workers,
            progress=lambda done, total, doing: setting.progress(done, total, f"{named(method)}, {doing}"),
        )
        perturbation.save(path)
        return perturbation
