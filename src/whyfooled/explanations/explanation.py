"""The explanations of one pair of images: their numbers, their account and their report."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from whyfooled.explanations.explained import Explained
from whyfooled.images import output_folder
from whyfooled.perturbation.effect import Effect
from whyfooled.saliency.evidence import Evidence
from whyfooled.units import UnitChanges


class _Reported(Explained):
    """What is explained, with the report of it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the account and every number of the report, as plain Python values: what its JSON file holds."""
        return deepcopy(self._numbers)

    @cached_property
    def _numbers(self) -> dict[str, Any]:
        from whyfooled.explanations.report.numbers import collect_numbers

        return collect_numbers(self)

    def summary(self) -> str:
        """Return a short account in plain text."""
        from whyfooled.explanations.report.account import write_account

        return write_account(self._numbers)

    def save(self, folder: str | Path, *, figures: Literal["pdf", "svg", "png"] | None = None) -> Path:
        """Write ``report.html``, pictures, tables, tensors, and every number in a JSON file; all or nothing.

        Parameters
        ----------
        folder
            Where to write.
        figures
            The format in which every picture and panel is written once more, one a file, as a paper needs it.

        Raises
        ------
        OutputError
            If the folder cannot be written; then nothing is.
        """
        # What draws takes half a second to import, which an attack that fails need not wait for.
        from whyfooled.explanations.report.folder import write_files

        with output_folder(folder) as staging:
            write_files(self, self._numbers, staging, figures)
        return Path(folder)

    def _repr_html_(self) -> str:
        from whyfooled.drawing.html import wrap_for_notebook
        from whyfooled.explanations.report.page import write_page

        return wrap_for_notebook(write_page(self, self._numbers))


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Explanation(_Reported):
    """Why a classifier took an image for something else. Made by `explain`; its fields are those of `Explained`.

    In a notebook it shows the report; `save` writes everything to a folder. It has the sections ``headline``,
    ``evidence`` and ``recovery``; ``effect`` unless nothing was attacked; ``trust`` if a universal perturbation was
    given, ``units`` if a dissection was, ``checks`` where they were asked for or take little, and ``forgery`` and
    ``detection`` if they were asked for.
    """

    headline: Evidence

    kind: ClassVar[str] = "explanation"


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PerturbationExplanation(_Reported):
    """What a perturbation does, region by region. Made by `explain_perturbation`; its fields are those of `Explained`.

    In a notebook it shows the report; `save` writes everything to a folder. It has the section ``effect``.
    """

    effect: Effect

    kind: ClassVar[str] = "perturbation"


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitsExplanation(_Reported):
    """What an attack does to the units of dissected layers. Made by `explain_units`; fields as of `Explained`.

    In a notebook it shows the report; `save` writes everything to a folder. It has the section ``units``.
    """

    units: UnitChanges

    kind: ClassVar[str] = "units"
