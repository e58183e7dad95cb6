"""What a perturbation does, region by region, explained for one pair of images from any attack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.errors import bad_parameter, hearing
from whyfooled.explanations.case import (
    Case,
    classify_saved,
    collect_fields,
    describe_photograph,
    fool_by_chance,
    make_case,
    read_clean_image,
)
from whyfooled.explanations.explanation import PerturbationExplanation, UnitsExplanation
from whyfooled.explanations.named import describe_named, find_named, read_named_regions
from whyfooled.explanations.question import choose_question
from whyfooled.images import is_tensor_file, read_photograph
from whyfooled.perturbation import Regions
from whyfooled.perturbation.effect import find_effect
from whyfooled.perturbation.sensitivity import choose_batch_size, describe_evaluations
from whyfooled.registry import parse
from whyfooled.running.provenance import Stages
from whyfooled.types import Images, Progress, silent
from whyfooled.units import Dissection
from whyfooled.units.changes import DRAWS, find_unit_changes, open_dissection


@one_thread()
def explain_perturbation(
    classifier: Classifier,
    clean: str | Path | PILImage.Image | Images,
    adversarial: str | Path | Images,
    *,
    label: str | int | None = None,
    target: str | int | None = None,
    regions: Regions | None = None,
    names: str | Path | None = None,
    cam: Any = None,
    seed: int = 0,
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
        The true class (name or index); the class predicted on the clean image if None. Of a model that gives several
        labels, the one that it is about; the strongest if None.
    target
        The class that the perturbation promotes (name or index); if None the one predicted on the adversarial image or,
        where that is the true one, the strongest other.
    regions
        How the image is divided: a `Grid`, `Superpixels` or a label map; `Grid` if None.
    names
        The file that names the labels of a label map, which may then have the photograph's size too: the explanation
        says what the perturbation does on each name.
    cam
        The class activation maps, or their name as on the command line; Grad-CAM if None, where the model allows it.
    seed
        Seed of the random perturbations that the given one is compared with.
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
    if names is not None and not isinstance(regions, Tensor):
        raise bad_parameter("names", "is about the regions of a label map", "no label map in `regions`")
    with hearing() as heard:
        photograph: Any = clean
        if isinstance(clean, (str, Path)) and not is_tensor_file(Path(clean)):
            photograph = read_photograph(clean)
        classifier, stages, case = _open_case(classifier, photograph, adversarial, label, target, progress)
        places = None
        if names is not None and isinstance(regions, Tensor):
            places = read_named_regions(classifier, photograph, case.clean, regions, names)
            regions = places.labels
        by_chance = fool_by_chance(classifier, case, stages, seed)
        saved = classify_saved(classifier, case, stages)
        named = None if places is None else find_named(classifier, case, places, stages)
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
        **collect_fields(
            classifier,
            case,
            stages,
            by_chance=by_chance,
            saved=saved,
            image=clean,
            notes=[*effect.notes, *heard],
            parameters={
                **describe_photograph(classifier, photograph),
                "regions": effect.regions,
                "effect of regions": describe_evaluations(classifier, case.clean, effect.sensitivity),
                "seed": seed,
                **describe_named(None, names),
                "batch_size": {"regions": choose_batch_size(classifier.device)},
            },
        ),
        effect=effect,
        named=named,
    )


@one_thread()
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
        The true class (name or index); the class predicted on the clean image if None. Of a model that gives several
        labels, the one that it is about; the strongest if None.
    target
        The class that the perturbation promotes (name or index); if None the one predicted on the adversarial image or,
        where that is the true one, the strongest other.
    draws
        How many random perturbations of the same l2 norm the attack's is compared with.
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
    with hearing() as heard:
        classifier, stages, case = _open_case(classifier, clean, adversarial, label, target, progress)
        by_chance = fool_by_chance(classifier, case, stages, seed)
        saved = classify_saved(classifier, case, stages)
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
        **collect_fields(
            classifier,
            case,
            stages,
            by_chance=by_chance,
            saved=saved,
            image=clean,
            notes=[*changes.notes, *heard],
            parameters={"dissection": str(dissection), "draws": draws, "seed": seed},
        ),
        units=changes,
    )


def _open_case(
    classifier: Classifier,
    clean: Any,
    adversarial: str | Path | Images,
    label: str | int | None,
    target: str | int | None,
    progress: Progress,
) -> tuple[Classifier, Stages, Case]:
    """Read both images, and see what is predicted; of several labels, by a classifier for the one that is meant."""
    before = read_clean_image(classifier, clean, adversarial)
    stages = Stages(classifier, progress)
    question = choose_question(classifier, before, label, target, stages)
    if question is not None and question.others_stay:
        classifier, label = question.asked, None
        stages.count_too(classifier)
    with stages.stage("predictions"):
        case = make_case(
            classifier,
            before,
            adversarial=adversarial,
            label=label,
            target=target,
            question=question,
            progress=progress,
        )
    return classifier, stages, case
