"""What a perturbation does, region by region, explained for one pair of images from any attack."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from PIL import Image as PILImage
from torch import Tensor

from whyfooled.case import attacked, case_fields, case_parameters, clean_image
from whyfooled.classifier import Classifier
from whyfooled.effect import Effect, find_effect
from whyfooled.images import output_folder
from whyfooled.passes import Passes
from whyfooled.perturbation import Regions
from whyfooled.provenance import Stages, pass_on, versions
from whyfooled.registry import parse
from whyfooled.types import Image, Images, Outcome, Progress, silent


@final
@dataclass(frozen=True, eq=False, repr=False)
class PerturbationExplanation:
    """What a perturbation does, region by region.

    Made by `explain_perturbation`. In a notebook it shows the report; `save` writes everything to a folder.

    Parameters
    ----------
    clean, adversarial
        (c,h,w) The image before and after.
    clean_logits, logits
        (m,) The classifier's logits for them.
    true, wrong
        The class the image shows, and the class that the perturbation promotes.
    names
        The names of all m classes.
    outcome
        ``"fooled"``, ``"failed"`` or ``"already wrong"`` (the clean image is not given the true class).
    effect
        What the perturbation does.
    notes
        What a reader should know before believing the rest, in sentences.
    parameters
        Model, images, regions: what it takes to do it again.
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
    effect: Effect
    notes: tuple[str, ...]
    parameters: dict[str, Any]
    seconds: dict[str, float]
    passes: dict[str, Passes]

    kind: ClassVar[str] = "perturbation"
    units: ClassVar[None] = None

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
        """Write ``report.html``, pictures, ``perturbation.json``, ``regions.csv`` and ``tensors.safetensors``.

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
        return f"PerturbationExplanation({self.outcome}: {self.names[self.true]} -> {self.names[self.wrong]})"

    def _repr_html_(self) -> str:
        from whyfooled.report.html import notebook_frame
        from whyfooled.report.pair_page import page

        return notebook_frame(page(self, self.to_dict()))


def explain_perturbation(
    classifier: Classifier,
    clean: str | Path | PILImage.Image | Images,
    adversarial: str | Path | Images,
    *,
    label: str | int | None = None,
    target: str | int | None = None,
    regions: Regions | None = None,
    cam: Any = None,
    progress: Progress = silent,
) -> PerturbationExplanation:
    """Explain what the perturbation between two images does: which regions hold the true class down or lift the other.

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    clean
        A photograph (file or PIL image), brought to the classifier's input size (one that has it goes in as it is, if
        that is nearer to the adversarial image); or a tensor (1,c,h,w) of that size, or a file with one.
    adversarial
        A tensor (1,c,h,w) of the classifier's input size, or a file with one.
    label
        The true class (name or index); the class predicted on the clean image if None.
    target
        The class that the perturbation promotes (name or index); if None the one predicted on the adversarial image or,
        where that is the true one, the strongest other.
    regions
        How the image is parted: a `Grid`, `Superpixels` or a label map; `Grid` if None.
    cam
        The class activation maps, or their name as on the command line; Grad-CAM if None, where the model allows it.
    progress
        Called with the steps done, the steps in all, and what is being done.

    Raises
    ------
    ParameterError
        If an argument has a value that it must not have, such as an unknown class.
    ImageError
        If an image cannot be read or does not fit the classifier, or the two do not differ.
    MethodError
        If class activation maps were asked for and the model has none.
    """
    stages = Stages(classifier, progress)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = clean_image(classifier, clean, adversarial)
        with stages.stage("predictions"):
            case = attacked(classifier, before, None, adversarial, label, target, 0, progress)
        with stages.stage("regions"):
            maps = parse("saliency", cam, argument="cam") if isinstance(cam, str) else cam
            effect = find_effect(
                classifier,
                case.clean,
                case.adversarial,
                case.true,
                case.wrong,
                regions=regions,
                cam=maps,
                progress=progress,
            )
    return PerturbationExplanation(
        **case_fields(classifier, case),
        effect=effect,
        notes=tuple(dict.fromkeys([*case.notes, *effect.notes, *pass_on(caught)])),
        parameters={
            **case_parameters(classifier, clean, case),
            "regions": effect.regions,
            "versions": versions(),
        },
        seconds=stages.seconds,
        passes=stages.passes,
    )
