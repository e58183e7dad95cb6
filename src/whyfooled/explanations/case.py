"""What is to be explained: an image, what an attack made of it, and the two classes that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.attacks import AttackResult, CarliniWagner, run_attack
from whyfooled.classifier import Classifier
from whyfooled.classifier.checks import check_single_precision
from whyfooled.classifier.classifier import check_pixels, strongest_other
from whyfooled.classifier.goals import Goal, Targeted, Untargeted
from whyfooled.classifier.inputs import describe_input
from whyfooled.classifier.passes import Passes
from whyfooled.errors import ImageError, bad_parameter, hearing
from whyfooled.explanations.question import Question
from whyfooled.images import (
    PICTURE_CHANNELS,
    content_digest,
    is_tensor_file,
    read_adversarial,
    read_clean,
    read_photograph,
    to_tensor,
)
from whyfooled.perturbation.by_chance import FooledByChance, count_fooled_by_chance
from whyfooled.perturbation.saved import SavedCopy, classify_saved_copies
from whyfooled.registry import describe, describe_value, parse, with_next_seed, with_seed
from whyfooled.running.provenance import Stages, versions
from whyfooled.running.publishing import hide_all_folders, hide_folders
from whyfooled.types import Image, Images, Outcome, Progress, silent

SUSPICIOUS_CHANGE = 0.1
"""Mean absolute change of a value above which two images are hardly an adversarial pair. [ours]"""


@dataclass(frozen=True, eq=False)
class Case:
    """An image, what became of it, and the two classes that it is about."""

    clean: Images
    adversarial: Images
    clean_logits: Tensor
    logits: Tensor
    true: int
    wrong: int
    outcome: Outcome
    parameters: dict[str, Any]
    notes: tuple[str, ...]
    rerun: Callable[[], AttackResult] | None = None
    """Attacks the image again with the attack's next seed; None where it was not attacked here, or has no seed."""


class Fields(TypedDict):
    """What every explanation holds, whatever sections it has."""

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
    by_chance: FooledByChance | None
    saved: tuple[SavedCopy, ...]


def collect_fields(
    classifier: Classifier,
    case: Case,
    stages: Stages,
    *,
    by_chance: FooledByChance | None,
    saved: tuple[SavedCopy, ...],
    image: object,
    notes: Iterable[str],
    parameters: Mapping[str, Any],
) -> Fields:
    """Return what every explanation of a case holds, on the CPU, without the folders that files lay in.

    Parameters
    ----------
    classifier, case
        The classifier, and what is explained.
    stages
        What was done for it, all of it.
    by_chance
        What random perturbations of the same length do.
    saved
        What is seen in the adversarial image once it was saved as a picture.
    image
        The image as it was given.
    notes
        What a reader should know beside the notes of the case.
    parameters
        What it takes to do it again, beside model, images and attack.
    """
    return {
        "clean": case.clean[0].cpu(),
        "adversarial": case.adversarial[0].cpu(),
        "clean_logits": case.clean_logits.cpu(),
        "logits": case.logits.cpu(),
        "true": case.true,
        "wrong": case.wrong,
        "names": tuple(classifier.class_name(index) for index in range(len(case.logits))),
        "outcome": case.outcome,
        "notes": tuple(dict.fromkeys(map(hide_folders, [*classifier.notes, *case.notes, *_note_images(case), *notes]))),
        "parameters": hide_all_folders(
            {
                "model": classifier.name,
                "device": str(classifier.device),
                "input_size": list(classifier.size),
                "input": describe_input(classifier),
                "image": str(image) if isinstance(image, (str, Path)) else "given as pixels",
                **case.parameters,
                **parameters,
                "digests": {"clean image": content_digest(case.clean[0]), "model": classifier.digest()},
                "versions": versions(),
            }
        ),
        "seconds": stages.seconds,
        "passes": stages.passes,
        "by_chance": by_chance,
        "saved": saved,
    }


def describe_photograph(classifier: Classifier, image: object) -> dict[str, Any]:
    """Describe a photograph as a parameter of a report: its size, and what share of it the model sees."""
    if not isinstance(image, PILImage.Image):
        return {}
    left, top, right, bottom = classifier.fit.seen(image.size)
    seen = round((right - left) * (bottom - top), 4)
    return {"photograph": {"width": image.width, "height": image.height, "seen": seen}}


def fool_by_chance(classifier: Classifier, case: Case, stages: Stages, seed: int = 0) -> FooledByChance | None:
    """Add random perturbations as long as the attack's to the clean image, if there is an attack's."""
    if torch.equal(case.clean, case.adversarial):
        return None
    with stages.stage("random perturbations"):
        return count_fooled_by_chance(classifier, case.clean, case.adversarial, case.true, seed=seed)


def classify_saved(classifier: Classifier, case: Case, stages: Stages) -> tuple[SavedCopy, ...]:
    """Classify copies of an adversarial image that were saved as pictures; none where nothing was fooled."""
    if case.outcome != "fooled":
        return ()
    with stages.stage("saved copies"):
        return classify_saved_copies(classifier, case.adversarial)


def _note_channels(images: Images) -> Iterator[str]:
    """Say what pictures show of images with as many channels as no picture has."""
    channels = images.shape[1]
    if channels not in PICTURE_CHANNELS:
        yield (
            f"The images have {channels} channels. Pictures show their mean, in grey; of the perturbation, the channel "
            "that changes most at each pixel; of maps, as always, the sum over the channels."
        )


def _note_images(case: Case) -> Iterator[str]:
    """Say what the images and the two classes are, where they are not what a reader would think."""
    yield from _note_channels(case.clean)
    yield from _note_opposites(case)


def _note_opposites(case: Case) -> Iterator[str]:
    """Say what to make of two classes whose logits are opposite: those of a model with one logit, or of one label."""
    both = torch.stack([case.clean_logits, case.logits])
    # To rounding, which is the last layer's.
    if both.shape[1] == 2 and bool((both.sum(1).abs() <= 1e-5 * both.abs().max()).all()):
        yield (
            "The logits of the two classes are one logit, halved, with either sign. Whatever holds one down lifts the "
            "other by as much, so the shares of the one and of the other say nothing here."
        )


def read_clean_image(
    classifier: Classifier,
    image: str | Path | PILImage.Image | Images,
    adversarial: str | Path | Images | None = None,
) -> Images:
    """Read a photograph and bring it to the classifier's input size, or read or check a tensor of that size.

    A picture that has that size already, such as one that an adversarial image was made from, goes in as it is where
    that is nearer to the adversarial image.
    """
    check_single_precision(classifier)
    if isinstance(image, (str, Path)) and is_tensor_file(Path(image)):
        return read_clean(Path(image), _input_shape(classifier)).to(classifier.mean)
    if isinstance(image, (str, Path)):
        image = read_photograph(image)
    if not isinstance(image, PILImage.Image):
        return _check_input_size(classifier, "image", image)
    fitted = classifier.prepare(image)
    if adversarial is None or (image.height, image.width) != classifier.size:
        return fitted
    as_it_is = to_tensor(image, classifier.channels).unsqueeze(0).to(fitted)
    # What is wrong with the other image is said when it is explained.
    with hearing():
        other = _read_made_elsewhere(classifier, adversarial)
    return as_it_is if (as_it_is - other).norm() < (fitted - other).norm() else fitted


def _check_input_size(classifier: Classifier, argument: str, image: Images) -> Images:
    check_pixels(argument, image)
    expected = (1, *_input_shape(classifier))
    if tuple(image.shape) != expected:
        rule = f"must be one image of the classifier's input size, {expected}"
        raise bad_parameter(argument, rule, tuple(image.shape))
    return image.detach().to(classifier.mean)


def _input_shape(classifier: Classifier) -> tuple[int, int, int]:
    return (classifier.mean.shape[1], *classifier.size)


def make_case(
    classifier: Classifier,
    clean: Images,
    *,
    attack: Any = None,
    adversarial: str | Path | Images | None = None,
    label: str | int | None = None,
    target: str | int | None = None,
    mask: Tensor | None = None,
    question: Question | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Case:
    """Attack an image, or take what an attack made of it elsewhere, and say which two classes the case is about.

    Parameters
    ----------
    classifier
        The classifier to fool.
    clean
        (1,c,h,w) The image before the attack.
    attack
        What attacks it, unless `adversarial` is given; `CarliniWagner` if None.
    adversarial
        The image after an attack that was run elsewhere, or its file.
    label
        The true class (name or index); the class predicted on the clean image if None.
    target
        The class that the attack is to reach (name or index); any wrong one if None.
    mask
        (1,1,h,w) Which pixels the attack may change; all if None.
    question
        Of a model with several labels, the one that `classifier` tells.
    seed
        Seed of the attack.
    progress
        Called with the steps done, the steps in all, and what is being done.
    """
    clean_logits = classifier.logits(clean)
    count = clean_logits.shape[1]
    seen = int(clean_logits.argmax())
    true = seen if label is None else classifier.class_index(label, count, "label")
    aim = None if target is None else classifier.class_index(target, count, "target")
    if aim == true:
        raise bad_parameter("target", "must be another class than the true one", repr(classifier.class_name(true)))
    goal: Goal = Untargeted(clean.new_tensor([true], dtype=torch.int64))
    if aim is not None:
        goal = Targeted(clean.new_tensor([aim], dtype=torch.int64))
    given: dict[str, Any] = {
        "label": classifier.class_name(true) if label is not None else None,
        "target": None if aim is None else classifier.class_name(aim),
    }
    rerun = None
    if adversarial is not None:
        result = AttackResult.from_images(classifier, clean, _read_made_elsewhere(classifier, adversarial), goal)
        given["adversarial"] = str(adversarial) if isinstance(adversarial, (str, Path)) else "given as a tensor"
    elif seen != true:
        result = AttackResult.from_images(classifier, clean, clean, goal)
        given["attack"] = None
    else:
        chosen = choose_attack(attack, seed)
        result = _run(chosen, classifier, clean, goal, mask, question, progress)
        given["attack"] = describe(chosen) if hasattr(chosen, "card") else getattr(chosen, "__name__", repr(chosen))
        given["attack_parameters"] = _describe_parameters(chosen)
        if result.searched_on:
            given["search of the attack"] = result.searched_on
        if with_next_seed(chosen) != chosen:
            rerun = partial(_run, with_next_seed(chosen), classifier, clean, goal, mask, question)
    case = replace(_build_case(classifier, result, true, aim, given, question), rerun=rerun)
    if question is None:
        return case
    return replace(case, notes=(*case.notes, *question.write_notes(question.classifier.logits(case.adversarial))))


def _run(
    attack: Any,
    classifier: Classifier,
    clean: Images,
    goal: Goal,
    mask: Tensor | None,
    question: Question | None,
    progress: Progress = silent,
) -> AttackResult:
    """Run an attack; of several labels, it switches the one that is asked about, and leaves the others."""
    if question is None or not question.others_stay:
        return run_attack(attack, classifier, clean, goal, mask=mask, progress=progress)
    switched = run_attack(attack, question.classifier, clean, question.goal, mask=mask, progress=progress)
    return question.narrow(switched, goal)


def _build_case(
    classifier: Classifier,
    result: AttackResult,
    true: int,
    aim: int | None,
    given: dict[str, Any],
    question: Question | None,
) -> Case:
    seen, now = int(result.clean_logits.argmax()), int(result.predictions)
    outcome: Outcome = "fooled" if result.success[0] else "failed"
    if seen != true and torch.equal(result.attempted, result.clean):
        outcome = "already wrong"
    wrong = now
    if now == true:
        wrong = aim if aim is not None else int(strongest_other(result.logits, result.predictions))
    elif outcome == "failed" and aim is not None:
        wrong = aim
    return Case(
        clean=result.clean,
        adversarial=result.attempted,
        clean_logits=result.clean_logits[0],
        logits=result.logits[0],
        true=true,
        wrong=wrong,
        outcome=outcome,
        parameters=given,
        notes=tuple(_write_notes(classifier, result, true, aim, outcome, "adversarial" in given, question)),
    )


def _write_notes(
    classifier: Classifier,
    result: AttackResult,
    true: int,
    aim: int | None,
    outcome: Outcome,
    made_elsewhere: bool,
    question: Question | None,
) -> Iterator[str]:
    name = classifier.class_name
    seen, now = int(result.clean_logits.argmax()), int(result.predictions)
    if outcome == "already wrong":
        yield (
            f"The model already takes the clean image for {name(seen)} instead of {name(true)}: there is nothing to "
            "fool, so no attack was run."
        )
    elif seen != true:
        yield f"The model already takes the clean image for {name(seen)} instead of {name(true)}."
    if outcome == "failed":
        wanted = f"any class other than {name(true)}"
        if aim is not None or result.logits.shape[1] == 2:
            wanted = name(1 - true if aim is None else aim)
        if made_elsewhere:
            instead = "still" if aim is None else f"and not for {wanted}"
            yield f"The adversarial image does not fool the model: it is taken for {name(now)} {instead}."
        elif question is not None and question.others_stay:
            yield f"The attack failed: {question.aim}. What it tried last is explained."
        else:
            yield (
                f"The attack failed: the image was to be taken for {wanted} and is taken for {name(now)}. "
                "What it tried last is explained."
            )
    changes = (result.attempted - result.clean).abs()
    change = float(changes.mean())
    if made_elsewhere and float(changes.max()) <= 0.5 / 255 and _is_rounded(result.attempted):
        yield (
            f"The two images differ by {255 * float(changes.max()):.2g}/255 at most, which is what rounding to 8 bits "
            "gives: the perturbation is gone. Give the tensor that was fed to the model, in float32; a report's is in "
            "tensors.safetensors."
        )
    if made_elsewhere and change > SUSPICIOUS_CHANGE:
        yield (
            f"The two images differ by {change:.2f} (of 1) a pixel value on average, too much for one perturbation: is "
            "the adversarial image made from the same photograph, resized and cropped in the same way?"
        )


ALIKE = 0.5
"""Correlation of two images' values under which they are no photograph and what an attack made of it, if they also
differ by more than `SUSPICIOUS_CHANGE`. [ours]"""


def check_same_photograph(case: Case, adversarial: str | Path) -> None:
    """Raise `ImageError` if the file of an adversarial image shows another photograph."""
    both = torch.stack([case.clean.flatten(), case.adversarial.flatten()]).double()
    change = float((both[0] - both[1]).abs().mean())
    correlation = float(torch.corrcoef(both)[0, 1])
    if change > SUSPICIOUS_CHANGE and correlation < ALIKE:
        raise ImageError(
            f"{adversarial} shows another picture than the photograph: their values correlate by {correlation:.2f} and "
            f"differ by {change:.2f} (of 1) on average. Give the photograph that it was made from, resized and cropped "
            "in the same way; a report keeps both in tensors.safetensors."
        )


def _is_rounded(images: Images) -> bool:
    """Tell whether all values are among the 256 levels of a picture."""
    levels = 255 * images
    return bool((levels - levels.round()).abs().max() < 1e-3)


def _read_made_elsewhere(classifier: Classifier, adversarial: str | Path | Images) -> Images:
    if isinstance(adversarial, (str, Path)):
        adversarial = read_adversarial(adversarial, _input_shape(classifier))
    return _check_input_size(classifier, "adversarial", adversarial)


def _describe_parameters(attack: Any) -> dict[str, Any]:
    described = is_dataclass(attack) and not isinstance(attack, type) and hasattr(attack, "card")
    if not described:
        return {}
    # Not `asdict`, where a method has a value that JSON has no word for, such as a tensor.
    return {name: value if _is_plain(value) else describe_value(value) for name, value in asdict(attack).items()}


def _is_plain(value: object) -> bool:
    """Tell whether JSON has a word for a value."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def choose_attack(attack: Any, seed: int) -> Any:
    """Make the attack that is meant, with the seed where its own was left at the default; `CarliniWagner` if None."""
    chosen = CarliniWagner() if attack is None else parse("attacks", attack) if isinstance(attack, str) else attack
    return with_seed(chosen, seed)
