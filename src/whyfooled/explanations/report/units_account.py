"""What an account says of hidden units: how much of what happened goes through units that detect something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whyfooled.explanations.report.units import CLASSES

MOST_OF_IT = 0.5
"""Share of what all detectors carry above which one concept is said to be most of it. [ours]"""


def write_unit_sentences(numbers: Mapping[str, Any], true: str, wrong: str) -> list[str]:
    """Say how much of two logits' change detectors carry, in the layer where that is most, and what changes by chance.

    What detectors carry is the sum of all their effects, whichever way these go. In which layer it is most, and which
    concepts carry most of it, goes by the change of the wrong class's logit less the true one's. [ours]
    """
    change = numbers["logit_change"]
    detecting = [one for one in numbers["layers"] if one["concepts"]]
    if not detecting:
        names = " or ".join(one["layer"] for one in numbers["layers"])
        return [f"No hidden unit of {names} detects a concept.", _write_changed_units(numbers["layers"][-1])]
    layer = max(detecting, key=lambda one: _towards(one["carried"], change))
    return [
        f"{_write_carried(layer, change, {'true': true, 'wrong': wrong})}, {_write_most(layer, change)}.",
        _write_changed_units(layer),
    ]


def _towards(effect: Mapping[str, float], change: Mapping[str, float]) -> float:
    """Return how far effects on the two logits go the way that these logits went."""
    towards = effect["wrong"] - effect["true"]
    return towards if change["wrong"] >= change["true"] else -towards


def _write_carried(layer: Mapping[str, Any], change: Mapping[str, float], names: Mapping[str, str]) -> str:
    """Say how many units are detectors, and how much of both logits' change they carry together."""
    count, share = layer["detectors"], layer["detectors"] / layer["units"]
    detect, carry, their = ("detects", "carries", "its") if count == 1 else ("detect", "carry", "their")
    parts = []
    for cls in CLASSES:
        part = f"{layer['carried'][cls]:+.2f} of {change[cls]:+.2f} in the logit of {names[cls]}"
        if change[cls]:
            carried = layer["carried"][cls] / change[cls]
            less = f", less than {their} share" if round(100 * carried) < round(100 * share) else ""
            part += f" ({_write_percent(carried)}{less})"
        parts.append(part)
    return (
        f"In {layer['layer']} the {count} of {layer['units']} units ({_write_percent(share)}) that {detect} a concept "
        f"{carry} {parts[0]} and {parts[1]}"
    )


def _write_most(layer: Mapping[str, Any], change: Mapping[str, float]) -> str:
    """Name the one or two concepts whose detectors carry most."""
    concepts = [({"true": one["true_effect"], "wrong": one["wrong_effect"]}, one) for one in layer["concepts"]]
    concepts.sort(key=lambda pair: -abs(_towards(pair[0], change)))
    named = [f"{one['concept']} ({own['true']:+.2f} and {own['wrong']:+.2f})" for own, one in concepts[:2]]
    if len(named) == 1:
        return f"all of it {concepts[0][1]['concept']}"
    all_, first = _towards(layer["carried"], change), _towards(concepts[0][0], change)
    # One that carries more than all together counts too: the others take some of it back.
    if first * all_ > 0 and abs(first) > MOST_OF_IT * abs(all_):
        return f"most of it {named[0]}"
    return f"the largest parts {named[0]} and {named[1]}"


def _write_changed_units(layer: Mapping[str, Any]) -> str:
    """Say how many units change, and how many of them more than by chance."""
    beyond = layer["beyond_chance"]
    if not beyond["moving"]:
        return f"No unit of {layer['layer']} changes at all, under the attack or under random perturbations."
    moving, draws = beyond["moving"], beyond["draws"]
    more = round(beyond["share"] * moving)
    changing = f"units of {layer['layer']}{'' if moving == layer['units'] else ' that change at all'}"
    which = f"{more} of the {moving} {changing} change"
    if more == moving:
        which = f"Every one of the {moving} {changing} changes"
    return (
        f"{which} more under the attack than under any of {draws} random perturbations of the same length; by chance "
        f"{moving * beyond['chance']:.0f} of them would."
    )


def _write_percent(share: float) -> str:
    return f"{round(100 * share)} %"
