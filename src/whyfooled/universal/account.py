"""What a fit and a test of a universal perturbation came to, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from whyfooled.classifier import Classifier
from whyfooled.drawing.summary import Summary
from whyfooled.drawing.words import percent
from whyfooled.sources import Source
from whyfooled.tensors.statistics import FEWEST, NARROW, Interval
from whyfooled.universal import Evaluation, UniversalPerturbation

SHOWN = 3
"""How many unreadable images are named."""


def write_fit_account(perturbation: UniversalPerturbation) -> str:
    """Say what a perturbation is, what it was fitted to, how the fit went and what it cost, one sentence a line."""
    saliency, model = perturbation.saliency, perturbation.model
    epsilon, passes = perturbation.epsilon, perturbation.passes
    broken = f"to change the maps of {saliency} of {model}" if saliency else f"on {model}"
    lines = [
        f"{perturbation.method}: one perturbation of {_write_shape(perturbation)} values for all images.",
        f"Its size: {perturbation.size_text()}. It was kept in the {_BALLS[perturbation.ball]} ball of radius "
        f"{epsilon:.4g} for values from 0 to 1, which is {255 * epsilon:.4g} for values from 0 to 255.",
        f"Fitted {broken}, on {perturbation.images} images; {_write_left_out(perturbation.wrong)}.",
        *(["It is 0 everywhere: no perturbation was found."] if not perturbation.linf else []),
        *_write_history(perturbation),
        f"{passes.forwards} forward and {passes.backwards} backward passes, of one image each.",
    ]
    return "\n".join(lines)


_BALLS = {"l2": "l2", "linf": "l-infinity"}


def _write_left_out(misclassified: int) -> str:
    return f"{misclassified} left out, because the classifier misclassifies them" if misclassified else "none left out"


def _write_shape(perturbation: UniversalPerturbation) -> str:
    return " x ".join(map(str, perturbation.delta.shape))


def _write_history(perturbation: UniversalPerturbation) -> Iterator[str]:
    """Say how each number went from the first step that has it to the last."""
    for names, steps in groupby(perturbation.history, key=tuple):
        first, *others = steps
        last = others[-1] if others else first
        shown = [name for name in names if first[name] or last[name]]
        if shown and others:
            parts = ", ".join(f"{_name_in_words(name)} {first[name]:.3g} -> {last[name]:.3g}" for name in shown)
            yield f"From the first to the last of {len(others) + 1} steps: {parts}."
        elif shown:
            yield f"At the end: {', '.join(f'{_name_in_words(name)} {first[name]:.3g}' for name in shown)}."


def _name_in_words(name: str) -> str:
    return name.replace("_", " ")


def write_evaluation_summary(evaluation: Evaluation, remarks: tuple[str, ...] = ()) -> Summary:
    """Write up a test: what was found, what must be known to believe it, and the table.

    Parameters
    ----------
    evaluation
        The test.
    remarks
        What else must be known, in sentences.
    """
    clipped = _write_dissimilarity(evaluation, clipped=True)
    sentences = [
        _write_dissimilarity(evaluation, clipped=False),
        _write_fooling(evaluation),
        f"Clipped, the values brought back to [0, 1] as a picture's must be: {clipped}",
        *_write_altered(evaluation),
        *_write_images(evaluation),
        *_write_doubts(evaluation),
        *remarks,
    ]
    return Summary(tuple(sentences), (evaluation.summary_table(),))


def write_evaluation_remarks(
    given: UniversalPerturbation, evaluation: Evaluation, classifier: Classifier, source: Source
) -> tuple[str, ...]:
    """Say what must be known of where a perturbation comes from and where it was evaluated.

    Parameters
    ----------
    given
        The perturbation as it was made; that of the test may be resized.
    evaluation
        The test.
    classifier
        Whose maps were evaluated.
    source
        The test images.
    """
    transfer = given.transfer_note(classifier)
    said = [transfer] if transfer else []
    if given.delta.shape != evaluation.perturbation.delta.shape:
        sizes = [" x ".join(map(str, one.delta.shape[1:])) for one in (given, evaluation.perturbation)]
        said.append(f"The perturbation was resized from {sizes[0]} to {sizes[1]} pixels; its norm is as it was.")
    if given.saliency and given.saliency != evaluation.saliency:
        said.append(f"It was fitted to the maps of {given.saliency}, and evaluated on those of {evaluation.saliency}.")
    if not any(source.labels(index) for index in range(len(source))):
        said.append("The images have no labels: each counts as what the classifier sees in it.")
    return tuple(said)


def _write_dissimilarity(evaluation: Evaluation, *, clipped: bool) -> str:
    """Say how much more than by chance the maps change, and whether that is more than luck."""
    ours, chance = (evaluation.intervals(name, clipped=clipped)["dissimilarity"] for name in ("universal", "random"))
    if not ours.count:
        return "There is no D: the maps of all images are empty."
    gain = evaluation.gain(clipped=clipped)
    return (
        f"D is {ours.mean:.3f}, and {chance.mean:.3f} under random directions of the same norm: "
        f"{_judge_gain(gain)} (paired by image, difference {gain.format(sign=True)})."
    )


def _write_altered(evaluation: Evaluation) -> Iterator[str]:
    """Say on how many images it moves the map beyond what random directions do."""
    ours, chance = evaluation.altered()
    if ours.count:
        beside = f" (one random direction does on {percent(chance.mean)})" if chance.count else ""
        yield (
            f"It alters the maps of {percent(ours.mean)} of the images: they move further than 95 % of random "
            f"directions would move them{beside}."
        )


def _judge_gain(gain: Interval) -> str:
    if gain.count < FEWEST:
        few = "one image" if gain.count == 1 else f"{gain.count} images"
        return f"{few} cannot say whether by more than luck"
    if gain.low > 0:
        return "the maps change more than by chance"
    return "the maps change less than by chance" if gain.high < 0 else "no difference that is more than luck"


def _write_fooling(evaluation: Evaluation) -> str:
    ours, chance = (evaluation.intervals(name)["fooled"] for name in ("universal", "random"))
    return (
        f"The prediction changes on {percent(ours.mean)} of the images (random directions: {percent(chance.mean)}); "
        "where it stays, the map alone changes."
    )


def _write_images(evaluation: Evaluation) -> Iterator[str]:
    yield f"Images evaluated: {evaluation.count}; {_write_left_out(evaluation.wrong)}."
    empty = evaluation.count - evaluation.intervals()["dissimilarity"].count
    if empty:
        yield f"Images whose map is empty, so that only their predictions count: {empty}."
    if evaluation.unreadable:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(evaluation.unreadable.items())[:SHOWN])
        yield f"Images that could not be used: {len(evaluation.unreadable)}, such as {some}"


def _write_doubts(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.perturbation.fitted_to is None:
        yield "It is not known which images the perturbation was fitted to; if these are among them, the test flatters."
    if evaluation.count < NARROW:
        yield f"Intervals of means over fewer than {NARROW} images are too narrow."
