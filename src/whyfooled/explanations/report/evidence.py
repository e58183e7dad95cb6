"""What a report says of maps: how much an attack changes them, and whether that says anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whyfooled.drawing.words import percent
from whyfooled.saliency.evidence import Evidence

SAME = 0.9
"""Cosine similarity from which two maps are called nearly the same. [ours]"""

ELSEWHERE = 0.5
"""Cosine similarity under which two maps are said to lie elsewhere. [ours]"""


def write_likeness(cosine: float) -> str:
    """Say in words how like two maps are."""
    if cosine >= SAME:
        return "nearly the same"
    return "partly the same" if cosine >= ELSEWHERE else "in other places"


def measure_similarities(evidence: Evidence) -> dict[str, Any]:
    """Compare a method's maps: of each class before and after, and of the two classes in each image."""
    wrong, true = evidence.similarity()
    clean, adversarial = evidence.class_similarity()
    return {
        "cosine_clean_to_adversarial": {"wrong": wrong, "true": true},
        "cosine_between_classes": {"clean": clean, "adversarial": adversarial},
    }


def find_blindness(facts: Mapping[str, Any]) -> float | None:
    """Return the cosine between a method's maps of the two classes where it is too high for the map to tell them apart.

    Such a method shows the image, whatever the model makes of it: that its maps stay says nothing for them. Of the two
    images the one counts whose maps differ more.
    """
    least = min(facts["cosine_between_classes"].values())
    return least if least >= SAME else None


def write_blindness(facts: Mapping[str, Any]) -> str:
    """Say of a method that its maps hardly depend on the class, or nothing."""
    blind = find_blindness(facts)
    if blind is None:
        return ""
    return (
        f"Its maps of the two classes are nearly the same (cosine similarity {blind:.2f}), so it means nothing that "
        "the attack hardly changes them."
    )


def write_evidence_sentences(numbers: Mapping[str, Any]) -> list[str]:
    """Say on how few pixels half of the evidence lies, and what the attack changed of it."""
    headline, wrong, true = numbers["headline"], numbers["wrong"]["name"], numbers["true"]["name"]
    by = f"{headline['title'][0].lower()}{headline['title'][1:]}"
    where = (
        f"Half of the evidence for {wrong} against {true} lies on {percent(headline['pixels_with_half'])} of the "
        f"pixels (by {by})."
    )
    if not numbers["perturbation"]["linf"]:
        return [where]
    cosine = headline["cosine_clean_to_adversarial"]
    likeness = {cls: write_likeness(value) for cls, value in cosine.items()}
    changed = (
        f"Compared with the clean image's, this evidence is {likeness['wrong']} (cosine similarity "
        f"{cosine['wrong']:.2f}), and that for {true} against {wrong} is {likeness['true']} ({cosine['true']:.2f})."
    )
    return list(filter(None, [where, changed, write_blindness(headline)]))
