"""What a report says of whether a detector would have flagged the attack: its numbers, and the sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from whyfooled.defences.detection import Detection
from whyfooled.drawing.words import percent
from whyfooled.explanations.report.forgery import write_size

QUESTION = "Would it have been flagged?"


def collect_detection_numbers(detection: Detection) -> dict[str, Any]:
    """Collect everything that a report says of a detector in figures."""
    return asdict(detection)


def write_detection_sentences(numbers: Mapping[str, Any], wrong: str) -> list[str]:
    """Say whether the image alone would have been flagged, and what becomes of that where the attack knows it."""
    return [*_write_verdict(numbers), _write_evasion(numbers, wrong)]


def _write_verdict(numbers: Mapping[str, Any]) -> Iterator[str]:
    before, after = numbers["clean"], numbers["adversarial"]
    answer, side = ("Yes", "above") if after["flagged"] else ("No", "not above")
    yield (
        f"{answer}: {numbers['title']} alone gives it a score of {after['score']:.3g}, {side} the "
        f"{numbers['threshold']:.3g} that {percent(numbers['false_positives'])} of clean images may exceed "
        f"(p = {after['p_value']:.2g}, among {numbers['clean_images']})."
    )
    if before["flagged"]:
        yield f"So would the clean image (score {before['score']:.3g}): the flag says nothing of the attack."


def _write_evasion(numbers: Mapping[str, Any], wrong: str) -> str:
    score, size = f"(score {numbers['evading']['score']:.3g})", write_size(numbers)
    if not numbers["fooled"]:
        return f"An attack that knows the detector does not make the model see {wrong} with {size}."
    flagged = f"is flagged as well {score}" if numbers["evading"]["flagged"] else f"is not flagged {score}"
    return f"An attack that knows the detector, with {size}, makes the model see {wrong}, and {flagged}."
