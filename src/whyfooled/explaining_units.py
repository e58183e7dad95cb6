"""What an attack does to hidden units, explained for one pair of images from any attack."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from PIL import Image as PILImage
from torch import Tensor

from whyfooled.case import attacked, case_fields, case_parameters, clean_image
from whyfooled.classifier import Classifier
from whyfooled.images import output_folder
from whyfooled.passes import Passes
from whyfooled.provenance import Stages, pass_on, versions
from whyfooled.types import Image, Images, Outcome, Progress, silent
from whyfooled.units import load_dissection
from whyfooled.units._results import Dissection
from whyfooled.units.changes import DRAWS, UnitChanges, check_dissection, find_unit_changes


@final
@dataclass(frozen=True, eq=False, repr=False)
class UnitsExplanation:
    """What an attack does to the units of dissected layers.

    Made by `explain_units`. In a notebook it shows the report; `save` writes everything to a folder.

    Parameters
    ----------
    clean, adversarial
        (c,h,w) The image before and after.
    clean_logits, logits
        (m,) The classifier's logits for them.
    true, wrong
        The class the image shows, and the class that the attack promotes.
    names
        The names of all m classes.
    outcome
        ``"fooled"``, ``"failed"`` or ``"already wrong"`` (the clean image is not given the true class).
    units
        What becomes of the units.
    notes
        What a reader should know before believing the rest, in sentences.
    parameters
        Model, images, dissection: what it takes to do it again.
    seconds
        How long each stage took.
    passes
        Images sent through the classifier, forwards and backwards, in each stage.
    """

    clean: Image
    adversarial: Image
    clean_logits: Tensor
    logits: Tensor
    true: int
    wrong: int
    names: tuple[str, ...]
    outcome: Outcome
    units: UnitChanges
    notes: tuple[str, ...]
    parameters: dict[str, Any]
    seconds: dict[str, float]
    passes: dict[str, Passes]

    kind: ClassVar[str] = "units"
    effect: ClassVar[None] = None

    def to_dict(self) -> dict[str, Any]:
        """Return every number of the report, as plain Python values."""
        from whyfooled.report.common import common_numbers

        return common_numbers(self)

    def summary(self) -> str:
        """Return a short account in plain text."""
        from whyfooled.report.account import happened, with_notes

        found = self.to_dict()
        return with_notes(happened(found), found)

    def save(self, folder: str | Path) -> Path:
        """Write ``report.html``, pictures, ``units.json``, ``units.csv`` and ``tensors.safetensors``.

        Raises
        ------
        OutputError
            If the folder cannot be written; then nothing is.
        """
        from whyfooled.report.pair_page import write_files

        with output_folder(folder) as staging:
            write_files(self, staging)
        return Path(folder)

    def __repr__(self) -> str:
        return f"UnitsExplanation({self.outcome}: {self.names[self.true]} -> {self.names[self.wrong]})"

    def _repr_html_(self) -> str:
        from whyfooled.report.html import notebook_frame
        from whyfooled.report.pair_page import page

        return notebook_frame(page(self, self.to_dict()))


def explain_units(
    classifier: Classifier,
    clean: str | Path | PILImage.Image | Images,
    adversarial: str | Path | Images,
    dissection: Dissection | str | Path,
    *,
    label: str | int | None = None,
    target: str | int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = silent,
) -> UnitsExplanation:
    """Explain what the perturbation between two images does to hidden units, and through them to the predictions.

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    clean
        A photograph (file or PIL image), brought to the classifier's input size (one that has it goes in as it is, if
        that is nearer to the adversarial image); or a tensor (1,c,h,w) of that size, or a file with one.
    adversarial
        A tensor (1,c,h,w) of the classifier's input size, or a file with one.
    dissection
        What the units detect: a dissection of this classifier, or its folder.
    label
        The true class (name or index); the class predicted on the clean image if None.
    target
        The class that the perturbation promotes (name or index); if None the one predicted on the adversarial image or,
        where that is the true one, the strongest other.
    draws
        How many random perturbations of the same l2 norm the attack's is held against.
    seed
        Seed of the random perturbations.
    progress
        Called with the images done, the images in all, and what is being done.

    Raises
    ------
    ParameterError
        If an argument has a value that it must not have, such as an unknown class or another model's dissection.
    ImageError
        If an image or the dissection cannot be read, the images do not fit the classifier, or do not differ.
    """
    units = open_dissection(classifier, dissection)
    stages = Stages(classifier, progress)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = clean_image(classifier, clean, adversarial)
        with stages.stage("predictions"):
            case = attacked(classifier, before, None, adversarial, label, target, seed, progress)
        with stages.stage("units"):
            changes = find_unit_changes(
                classifier,
                units,
                case.clean,
                case.adversarial,
                case.true,
                case.wrong,
                draws=draws,
                seed=seed,
                progress=progress,
            )
    return UnitsExplanation(
        **case_fields(classifier, case),
        units=changes,
        notes=tuple(dict.fromkeys([*case.notes, *changes.notes, *pass_on(caught)])),
        parameters={
            **case_parameters(classifier, clean, case),
            "dissection": str(dissection),
            "draws": draws,
            "seed": seed,
            "versions": versions(),
        },
        seconds=stages.seconds,
        passes=stages.passes,
    )


def open_dissection(
    classifier: Classifier, dissection: Dissection | str | Path, argument: str = "dissection"
) -> Dissection:
    """Read a dissection from its folder, if it is not one already, and check that it is of this classifier.

    Raises
    ------
    ParameterError
        If it is of another model, or of one with other weights.
    ImageError
        If the folder holds none, or it is damaged.
    """
    found = dissection if isinstance(dissection, Dissection) else load_dissection(dissection)
    check_dissection(classifier, found, argument)
    return found
