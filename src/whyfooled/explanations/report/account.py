"""The account of an explanation in a few plain sentences, from its numbers alone."""

from __future__ import annotations

from typing import Any

from whyfooled.drawing.words import percent
from whyfooled.explanations.report.checks import write_check_sentences
from whyfooled.explanations.report.detection import QUESTION as FLAGGED
from whyfooled.explanations.report.detection import write_detection_sentences
from whyfooled.explanations.report.effect import write_effect_sentences
from whyfooled.explanations.report.evidence import write_evidence_sentences
from whyfooled.explanations.report.forgery import QUESTION, write_forgery_sentence
from whyfooled.explanations.report.named import write_named_sentences
from whyfooled.explanations.report.saved import write_saved_sentence
from whyfooled.explanations.report.trust import write_trust_sentences
from whyfooled.explanations.report.units_account import write_unit_sentences
from whyfooled.explanations.report.verdict import write_happened, write_trusted


def write_account(numbers: dict[str, Any]) -> str:
    """Write the notes, which say what to know before believing the rest, and then the account, a sentence a line."""
    return "\n".join([*(f"Note: {note}" for note in numbers["notes"]), *write_sentences(numbers)])


def write_sentences(numbers: dict[str, Any]) -> list[str]:
    """Write the account: the two verdicts, what was added, what it does, which evidence changed."""
    effect, units, trusted = numbers["effect"], numbers.get("units"), write_trusted(numbers)
    names = (numbers["true"]["name"], numbers["wrong"]["name"])
    return [
        write_happened(numbers).sentence,
        *([] if trusted is None else [f"{trusted.question} {trusted.answer} {trusted.sentence}"]),
        *write_perturbation(numbers),
        *([] if effect is None else write_effect_sentences(effect, *names)),
        *(write_named_sentences(numbers["named"], numbers["true"]) if "named" in numbers else []),
        *([] if units is None else write_unit_sentences(units, *names)),
        *(write_evidence_sentences(numbers) if "headline" in numbers else []),
        *([f"{QUESTION} {write_forgery_sentence(numbers['forgery'])}"] if "forgery" in numbers else []),
        *_write_detection(numbers, names[1]),
        *(write_trust_sentences(numbers["trust"]) if "trust" in numbers else []),
        *(write_check_sentences(numbers["checks"]) if "checks" in numbers else []),
    ]


def _write_detection(numbers: dict[str, Any], wrong: str) -> list[str]:
    if "detection" not in numbers:
        return []
    first, *others = write_detection_sentences(numbers["detection"], wrong)
    return [f"{FLAGGED} {first}", *others]


def write_perturbation(numbers: dict[str, Any]) -> list[str]:
    """Say how many pixels changed, and how much, and what is left of it in a file."""
    delta = numbers["perturbation"]
    if delta["linf"] == 0:
        return []
    changed, saved = percent(delta["l0"] / delta["pixels"]), write_saved_sentence(numbers)
    return [
        f"{changed} of the pixels changed, none by more than {255 * delta['linf']:.2f}/255 "
        f"(ℓ2 {delta['l2']:.4g}, ℓ∞ {delta['linf']:.4g}, ℓ1 {delta['l1']:.4g}, ℓ0 {delta['l0']}).",
        *([saved] if saved else []),
    ]
