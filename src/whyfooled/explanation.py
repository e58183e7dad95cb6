"""What an explanation holds: the images, the classes, the evidence, the recovery, and how they were got."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from whyfooled.effect import Effect
from whyfooled.evidence import Evidence
from whyfooled.images import output_folder
from whyfooled.measures import RecoveryCurve
from whyfooled.passes import Passes
from whyfooled.trust import Trust
from whyfooled.types import Image, Outcome
from whyfooled.units.changes import UnitChanges


@final
@dataclass(frozen=True, eq=False)
class Recovery:
    """How the true class comes back when an adversarial image's pixels are perturbed in some order.

    Parameters
    ----------
    title
        Where the order comes from.
    curves
        For each fill, the curve; of several orders if the order is random, else of one.
    """

    title: str
    curves: dict[str, RecoveryCurve]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a classifier took an image for something else.

    Made by `explain`. In a notebook it shows the report; `save` writes everything to a folder.

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
        ``"fooled"``, ``"failed"`` (the attack did not reach its goal) or ``"already wrong"`` (nothing was attacked).
    headline
        The enhanced maps that the account is about.
    evidence
        What the other methods show.
    recovery
        One for each map, then for the size of the perturbation, then for random orders.
    effect
        What the perturbation does, region by region; None where there is none.
    notes
        What a reader should know before believing the rest, in sentences.
    parameters
        Model, attack, methods, seed: what it takes to do it again.
    seconds
        How long each stage took.
    passes
        Images sent through the classifier, forwards and backwards, in each stage.
    trust
        How far the clean image's maps move under a universal perturbation; None if none was given.
    units
        What the attack does to the units of dissected layers; None if no dissection was given, or nothing was attacked.
    """

    clean: Image
    adversarial: Image
    clean_logits: Tensor
    logits: Tensor
    true: int
    wrong: int
    names: tuple[str, ...]
    outcome: Outcome
    headline: Evidence
    evidence: tuple[Evidence, ...]
    recovery: tuple[Recovery, ...]
    effect: Effect | None
    notes: tuple[str, ...]
    parameters: dict[str, Any]
    seconds: dict[str, float]
    passes: dict[str, Passes]
    trust: Trust | None = None
    units: UnitChanges | None = None

    @property
    def delta(self) -> Image:
        """(c,h,w) What was added to the clean image."""
        return self.adversarial - self.clean

    def to_dict(self) -> dict[str, Any]:
        """Return every number of the report, as plain Python values."""
        from whyfooled.report.numbers import numbers

        return numbers(self)

    def summary(self) -> str:
        """Return a short account in plain text."""
        from whyfooled.report.account import account

        return account(self.to_dict())

    def save(self, folder: str | Path) -> Path:
        """Write ``report.html``, the pictures, ``explanation.json`` and ``tensors.safetensors``, all or nothing.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        from whyfooled.report.page import write_files

        with output_folder(folder) as staging:
            write_files(self, staging)
        return Path(folder)

    def __repr__(self) -> str:
        return f"Explanation({self.outcome}: {self.names[self.true]} -> {self.names[self.wrong]})"

    def _repr_html_(self) -> str:
        from whyfooled.report.html import notebook_frame
        from whyfooled.report.page import page

        return notebook_frame(page(self, self.to_dict()))
