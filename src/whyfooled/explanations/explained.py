"""What is explained of one pair of images: what every report takes, whatever sections it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from whyfooled.attacks.forgery import Forgery
from whyfooled.classifier.passes import Passes
from whyfooled.defences.detection import Detection
from whyfooled.perturbation.by_chance import FooledByChance
from whyfooled.perturbation.effect import Effect
from whyfooled.perturbation.named_effect import NamedEffect
from whyfooled.perturbation.saved import SavedCopy
from whyfooled.saliency.evidence import Evidence
from whyfooled.saliency.map_checks import MapChecks
from whyfooled.saliency.recovery import RecoveryCurves
from whyfooled.types import Image, Outcome
from whyfooled.units import UnitChanges
from whyfooled.universal.trust import Trust


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explained(ABC):
    """A pair of images, the two classes that it is about, and what was found out about it: a section is there or not.

    Parameters
    ----------
    clean, adversarial
        (c,h,w) The image before and after the attack; after an attack that failed, what it tried last.
    clean_logits, logits
        (m,) The classifier's logits for them.
    true, wrong
        The class the image shows, and the class that it is (or was to be) taken for.
    names
        The names of all m classes.
    outcome
        ``"fooled"``, ``"failed"`` (the attack did not reach its goal) or ``"already wrong"`` (the clean image is not
        given the true class).
    notes
        What a reader should know before believing the rest, in sentences.
    parameters
        Model, images, methods, seed: what it takes to do it again.
    seconds
        How long each stage took.
    passes
        Images sent through the classifier, forwards and backwards, in each stage.
    by_chance
        How many random perturbations of the same length fool the classifier too; None where nothing was changed.
    saved
        What the classifier sees in copies of the adversarial image that were saved as pictures; none where it is not
        fooled.
    headline
        The maps of enhanced guided backpropagation (of the gradient, where its rule cannot hold on the model).
    evidence
        The maps of the other methods.
    recovery
        One for each map, then for the size of the perturbation, then for random orders.
    effect
        What the perturbation does, region by region.
    named
        What the perturbation does on regions with names.
    trust
        How much the clean image's maps change under a universal perturbation.
    forgery
        What an attack made that knows the explanation.
    detection
        What a detector says of the attack, and of one that knows it.
    units
        What the attack does to the units of dissected layers.
    checks
        Whether each method's map passes sanity checks: what changes it, and what it depends on.
    """

    clean: Image
    adversarial: Image
    clean_logits: Tensor
    logits: Tensor
    true: int
    wrong: int
    names: tuple[str, ...]
    outcome: Outcome
    notes: tuple[str, ...]
    parameters: dict[str, Any]
    seconds: dict[str, float]
    passes: dict[str, Passes]
    by_chance: FooledByChance | None = None
    saved: tuple[SavedCopy, ...] = ()
    headline: Evidence | None = None
    evidence: tuple[Evidence, ...] = ()
    recovery: tuple[RecoveryCurves, ...] = ()
    effect: Effect | None = None
    named: NamedEffect | None = None
    trust: Trust | None = None
    forgery: Forgery | None = None
    detection: Detection | None = None
    units: UnitChanges | None = None
    checks: MapChecks | None = None

    kind: ClassVar[str]
    """What the file of its numbers is called."""

    @property
    def delta(self) -> Image:
        """(c,h,w) What was added to the clean image."""
        return self.adversarial - self.clean

    @abstractmethod
    def save(self, folder: str | Path) -> Path:
        """Write everything to a folder."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.outcome}: {self.names[self.true]} -> {self.names[self.wrong]})"


def list_evidence(explained: Explained) -> tuple[Evidence, ...]:
    """Return every method's maps, the headline's first; none if there are none."""
    return () if explained.headline is None else (explained.headline, *explained.evidence)
