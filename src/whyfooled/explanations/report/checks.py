"""What a report says of whether maps pass sanity checks: numbers, a verdict for each method, sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from whyfooled.drawing.words import by_number, counted, finite, listed
from whyfooled.saliency.map_checks import MapCheck, MapChecks

STAYS = 0.5
"""Rank correlation under which a map is said to break. [ours]"""
SAME = 0.9
"""Rank correlation from which a map is said not to depend on a part of the model. [ours]"""
LEFT = 0.2
"""Rank correlation from which, if chance gives less, something of a map is left with random weights. [ours]"""

Standing = Literal["passes", "fragile", "ignores weights", "cannot tell"]

_HEADINGS = {
    "noise": "noise",
    "method seed": "its other seed",
    "attack seed": "the attack's other seed",
    "universal": "universal perturbation",
    "cascading": "all weights random",
    "independent": "one part random",
}
_BREAKS = {
    "noise": "noise of the attack's size",
    "method seed": "another seed of its own",
    "attack seed": "another seed of the attack",
    "universal": "the universal perturbation",
}
"""What should not change a map, as a sentence names it."""


def collect_check_numbers(checks: MapChecks) -> dict[str, Any]:
    """Collect what a report says of the checks in figures."""
    return {
        "l2": checks.l2,
        "thresholds": {"stays": STAYS, "same": SAME, "left": LEFT},
        "methods": [_collect_numbers(check) for check in checks.methods],
    }


def _collect_numbers(check: MapCheck) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "method": check.method,
        "title": check.title,
        "part": check.part,
        "likeness": {
            kind: {name: finite(getattr(measured, name)) for name in ("value", "chance", "highest")}
            for kind, measured in check.likeness.items()
        },
    }
    return {**numbers, "verdict": judge_check(numbers)}


def judge_check(numbers: Mapping[str, Any]) -> Standing:
    """Say in a word how a method's map does: it passes, or changes where it should not, or ignores random weights.

    That it ignores weights weighs more than that it is fragile.
    """
    likeness = numbers["likeness"]
    if any(measured["value"] is None or measured["chance"] is None for measured in likeness.values()):
        return "cannot tell"
    if _ignores_weights(numbers):
        return "ignores weights"
    return "fragile" if _list_breaking(numbers) else "passes"


def _ignores_weights(numbers: Mapping[str, Any]) -> bool:
    whole, part = numbers["likeness"]["cascading"], numbers["likeness"]["independent"]
    return _is_left(whole) or part["value"] >= SAME


def _is_left(whole: Mapping[str, float]) -> bool:
    return whole["value"] > whole["highest"] and whole["value"] >= LEFT


def _list_breaking(numbers: Mapping[str, Any]) -> list[str]:
    return [kind for kind in _BREAKS if kind in numbers["likeness"] and numbers["likeness"][kind]["value"] < STAYS]


def write_check_sentence(numbers: Mapping[str, Any]) -> str:
    """Say in a sentence what changes a method's map, and what it depends on."""
    likeness, verdict = numbers["likeness"], numbers["verdict"]
    if verdict == "cannot tell":
        under_same_weights = [
            one["value"] for kind, one in likeness.items() if kind not in ("cascading", "independent")
        ]
        if under_same_weights and None not in under_same_weights:
            return "With random weights the map is empty, so what it depends on cannot be said."
        return "The map is empty, so nothing can be said."
    breaking = [f"{_BREAKS[kind]} ({likeness[kind]['value']:.2f})" for kind in _list_breaking(numbers)]
    broken = f"{listed(breaking)} alone change{'s' if len(breaking) == 1 else ''} it" if breaking else ""
    if verdict == "ignores weights":
        left = (
            "Much of it is the same with all weights random: it shows the image more than the model"
            if _is_left(likeness["cascading"])
            else f"It is the same with random weights in {numbers['part']}: it does not show what those have learned"
        )
        return f"{left}{f'; and {broken}' if broken else ''}."
    if verdict == "fragile":
        return f"{broken[0].upper()}{broken[1:]}: do not read it pixel by pixel."
    return "It depends on the model's weights, and hardly changes under what should not matter."


def write_check_sentences(numbers: Mapping[str, Any]) -> list[str]:
    """Say which methods' maps pass, which are fragile, and which ignore weights."""
    return [
        f"{by_number(len(methods), 'The map', 'The maps')} of {listed([one['title'] for one in methods], _MOST)} "
        f"{by_number(len(methods), *_MEANS[verdict])}."
        for verdict, methods in _group(numbers).items()
    ]


def write_check_count(numbers: Mapping[str, Any]) -> str:
    """Say in few words which maps pass, and what the others do."""
    first, *others = (
        (len(methods), by_number(len(methods), *_SHORT[verdict]), listed([one["title"] for one in methods], _NAMED))
        for verdict, methods in _group(numbers).items()
    )
    count, verb, names = first
    start = f"{count} of {counted(len(numbers['methods']), 'map')} {verb}: {names}"
    return "; ".join([start, *(f"{count} {verb}: {names}" for count, verb, names in others)]) + "."


_SHORT: Mapping[Standing, tuple[str, str]] = {
    "passes": ("passes", "pass"),
    "fragile": ("is fragile", "are fragile"),
    "ignores weights": ("ignores weights", "ignore weights"),
    "cannot tell": ("cannot be judged", "cannot be judged"),
}
_MEANS: Mapping[Standing, tuple[str, str]] = {
    "passes": (
        "passes: it depends on the weights, and hardly changes under noise and other seeds",
        "pass: they depend on the weights, and hardly change under noise and other seeds",
    ),
    "fragile": (
        "is fragile: it changes under what should not matter",
        "are fragile: they change under what should not matter",
    ),
    "ignores weights": (
        "ignores weights: it does not depend on all that the model has learned",
        "ignore weights: they do not depend on all that the model has learned",
    ),
    "cannot tell": (
        "cannot be judged: it is empty, here or with random weights",
        "cannot be judged: they are empty, here or with random weights",
    ),
}
"""What each verdict says of one map and of several: in few words, and in whole."""
_NAMED = 2
"""How many methods are named where a page has little room."""
_MOST = 6
"""How many methods a sentence names."""


def _group(numbers: Mapping[str, Any]) -> dict[Standing, list[Mapping[str, Any]]]:
    """Group methods by their verdict, those that pass first."""
    groups = {verdict: [one for one in numbers["methods"] if one["verdict"] == verdict] for verdict in _SHORT}
    return {verdict: methods for verdict, methods in groups.items() if methods}


def prepare_checks(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare what a page shows of the checks."""
    kinds = [kind for kind in _HEADINGS if any(kind in method["likeness"] for method in numbers["methods"])]
    return {
        "numbers": numbers,
        "count": write_check_count(numbers),
        "passing": any(method["verdict"] == "passes" for method in numbers["methods"]),
        "headings": [_HEADINGS[kind] for kind in kinds],
        "cascading": kinds.index("cascading"),
        "rows": [
            {
                "facts": method,
                "cells": [method["likeness"].get(kind) for kind in kinds],
                "sentence": write_check_sentence(method),
            }
            for method in numbers["methods"]
        ],
    }
