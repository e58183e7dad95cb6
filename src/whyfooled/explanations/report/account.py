"""The account of an explanation in a few plain sentences, from its numbers alone."""

from __future__ import annotations

from typing import Any

from whyfooled.drawing.words import percent
from whyfooled.explanations.report.effect import write_effect_sentences
from whyfooled.explanations.report.trust import write_trust_sentences
from whyfooled.explanations.report.units_account import write_unit_sentences

SAME = 0.9
"""Cosine from which two maps are called nearly the same. [ours]"""

ELSEWHERE = 0.5
"""Cosine under which two maps are said to lie elsewhere. [ours]"""

UNSURE = 0.1
"""Probability under which a model is called unsure of what it sees. [ours]"""


NOTICEABLE = 0.01
"""Difference of two mean probabilities from which one is called better. [ours]"""


def write_account(numbers: dict[str, Any]) -> str:
    """Write the notes, which say what to know before believing the rest, and then the account, a sentence a line."""
    return "\n".join([*(f"Note: {note}" for note in numbers["notes"]), *write_sentences(numbers)])


def write_sentences(numbers: dict[str, Any]) -> list[str]:
    """Write the account: what was seen, what was added, what it does, which evidence changed, what removing it does."""
    effect, units = numbers["effect"], numbers.get("units")
    names = (numbers["true"]["name"], numbers["wrong"]["name"])
    return [
        _write_predictions(numbers),
        *_write_perturbation(numbers),
        *([] if effect is None else write_effect_sentences(effect, *names)),
        *([] if units is None else write_unit_sentences(units, *names)),
        *([*_write_evidence(numbers), *_write_recovery(numbers)] if "headline" in numbers else []),
        *(write_trust_sentences(numbers["trust"]) if "trust" in numbers else []),
    ]


def _write_predictions(numbers: dict[str, Any]) -> str:
    before, after = numbers["predictions"]["clean"][0], numbers["predictions"]["adversarial"][0]
    was = f"{before['name']} ({percent(before['probability'])})"
    now = f"{after['name']} ({percent(after['probability'])})"
    if numbers["outcome"] == "already wrong":
        return f"The model sees {was}, though the image shows {numbers['true']['name']}."
    unsure = ", but is sure of nothing" if after["probability"] < UNSURE else ""
    if numbers["outcome"] == "failed" and before["index"] == after["index"]:
        return f"The model saw {was} and still sees {now}."
    if numbers["outcome"] == "failed":
        return f"The model saw {was} and still does not see what it was to see, but {now}{unsure}."
    return f"The model saw {was} and now sees {now}{unsure}."


def _write_perturbation(numbers: dict[str, Any]) -> list[str]:
    delta = numbers["perturbation"]
    if delta["linf"] == 0:
        return []
    changed = percent(delta["l0"] / delta["pixels"])
    return [
        f"{changed} of the pixels changed, none by more than {255 * delta['linf']:.2f}/255 "
        f"(l2 {delta['l2']:.4g}, linf {delta['linf']:.4g}, l1 {delta['l1']:.4g}, l0 {delta['l0']})."
    ]


def _write_evidence(numbers: dict[str, Any]) -> list[str]:
    headline, wrong, true = numbers["headline"], numbers["wrong"]["name"], numbers["true"]["name"]
    where = (
        f"Half of the evidence for {wrong} against {true} lies on {percent(headline['pixels_with_half'])} of the pixels"
    )
    by = f"(by {headline['title'][0].lower()}{headline['title'][1:]})"
    if numbers["outcome"] == "already wrong":
        return [f"{where} {by}."]
    cosine = headline["cosine_clean_to_adversarial"]
    likeness = {cls: _write_likeness(value) for cls, value in cosine.items()}
    return [
        f"{where} {by}.",
        f"Compared with the clean image's, this evidence is {likeness['wrong']} (cosine {cosine['wrong']:.2f}), and "
        f"that for {true} against {wrong} is {likeness['true']} ({cosine['true']:.2f}).",
    ]


def _write_likeness(cosine: float) -> str:
    if cosine >= SAME:
        return "nearly the same"
    return "partly the same" if cosine >= ELSEWHERE else "in other places"


def _write_recovery(numbers: dict[str, Any]) -> list[str]:
    """Say what blackening the evidence does, over the whole curve: the best point of one is a lucky one.

    Where the true class is still seen, there is nothing to bring back.
    """
    if numbers["predictions"]["adversarial"][0]["index"] == numbers["true"]["index"]:
        return []
    evidence, chance = numbers["recovery"][0]["fills"]["zero"], numbers["recovery"][-1]["fills"]["zero"]
    wrong, true = numbers["wrong"]["name"], numbers["true"]["name"]
    shares = f"{100 * evidence['fraction'][0]:g} to {100 * evidence['fraction'][-1]:g} %"
    # Several random orders say how much of a difference is luck.
    luck = max(NOTICEABLE, sum(chance["probability_std"]) / len(chance["probability_std"]))
    difference = evidence["mean_probability"] - chance["mean_probability"]
    verdict = "about as well as" if abs(difference) <= luck else "better than" if difference > 0 else "worse than"
    points = len(evidence["fraction"])
    return [
        f"Blackening the pixels with the strongest evidence for {wrong} brings {true} back {verdict} blackening random "
        f"ones: over {shares} of the pixels its mean probability is {percent(evidence['mean_probability'])} (at random "
        f"{percent(chance['mean_probability'])}, give or take {percent(luck)} by the order), and it is predicted at "
        f"{evidence['mean'] * points:.0f} of {points} shares (at random {chance['mean'] * points:.1f})."
    ]
