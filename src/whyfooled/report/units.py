"""What a report says of what an attack does to hidden units: its numbers, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from whyfooled.report.words import finite, listed
from whyfooled.units.changes import ConceptChange, LayerChanges, UnitChanges

TOP_UNITS = 10
"""How many of the units that moved most are listed, for each layer. [ours]"""

TOP_DETECTORS = 5
"""How many of the detectors that moved most are listed, for each layer: most of what moves detects nothing. [ours]"""

CLASSES = ("true", "wrong")


def unit_numbers(changes: UnitChanges) -> dict[str, Any]:
    """Collect what a report says of the units in figures; infinite values and those that are not known are None."""
    dissection = changes.dissection
    return {
        "dissection": {
            "concepts": dissection.parameters.get("concepts"),
            "images": len(dissection.images),
            "top": dissection.parameters.get("top"),
            "cutoff": dissection.cutoff,
        },
        "l2": changes.l2,
        "logit_change": _pair(changes.logit_change),
        "layers": [_layer(changes, one) for one in changes.layers],
    }


def _pair(values: Tensor) -> dict[str, float | None]:
    return {cls: finite(float(value)) for cls, value in zip(CLASSES, values, strict=True)}


def _layer(changes: UnitChanges, one: LayerChanges) -> dict[str, Any]:
    ranked, draws = one.ranked, len(one.chance)
    detectors = one.dissected.detectors(changes.dissection.cutoff)
    return {
        "layer": one.name,
        "units": len(one.distance),
        "detectors": int(detectors.sum()),
        "accounted": _pair(one.accounted),
        "completeness": _pair(changes.completeness(one)),
        "nonlinearity": _pair(one.nonlinearity),
        "beyond_chance": {"units": float(one.beyond.double().mean()), "chance": 1 / (1 + draws), "draws": draws},
        "not_ranked": len(one.distance) - len(ranked),
        "top": [_unit(changes, one, unit) for unit in ranked[:TOP_UNITS].tolist()],
        "top_detectors": [_unit(changes, one, unit) for unit in ranked[detectors[ranked]][:TOP_DETECTORS].tolist()],
        "concepts": [_concept(own) for own in one.concepts],
    }


def _unit(changes: UnitChanges, one: LayerChanges, unit: int) -> dict[str, Any]:
    dissection, best = changes.dissection, int(one.dissected.best[unit])
    chance = one.relative_chance[:, unit]
    return {
        "unit": unit,
        "concept": dissection.concepts[best] if best >= 0 else None,
        "category": dissection.categories[dissection.category_of[best]] if best >= 0 else None,
        "iou": float(one.dissected.best_iou[unit]),
        "detector": bool(one.dissected.detectors(dissection.cutoff)[unit]),
        "relative": float(one.relative[unit]),
        "chance": {"mean": float(chance.mean()), "low": float(chance.min()), "high": float(chance.max())},
        "mean_change": float(one.mean_change[unit]),
        "active": {"clean": float(one.active[0, unit]), "adversarial": float(one.active[1, unit])},
        "effect": _pair(one.effect[:, unit]),
    }


def _concept(one: ConceptChange) -> dict[str, Any]:
    return {**asdict(one), "mean_change": finite(one.mean_change), "falls": one.falls, "rises": one.rises}


def falling(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the concepts of the true class that fall, the largest effect on its logit first."""
    return sorted((one for one in layer["concepts"] if one["falls"]), key=lambda one: one["true_effect"])


def rising(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the concepts that lift the wrong class, the largest effect on its logit first."""
    return sorted((one for one in layer["concepts"] if one["rises"]), key=lambda one: -one["wrong_effect"])


def unit_sentences(found: Mapping[str, Any], true: str, wrong: str) -> list[str]:
    """Say which concepts of the true class fall and which lift the wrong one, in the last layer that detects any."""
    layers = found["layers"]
    layer = next((one for one in reversed(layers) if one["concepts"]), layers[-1])
    beyond, change = layer["beyond_chance"], found["logit_change"]
    moved = (
        f"{100 * beyond['units']:.0f} % of its units moved further than under any of {beyond['draws']} random "
        f"perturbations of equal length (by chance {100 * beyond['chance']:.0f} %)"
    )
    if not layer["concepts"]:
        return [f"No hidden unit of {layer['layer']} detects a concept; {moved}."]
    down, up = falling(layer), rising(layer)
    falls = f"no concept that held {true} up falls"
    if down:
        falls = f"detectors of {_names(down)}, which held {true} up, fall ({_share(down, 'true', change)})"
    rises = f"none lift {wrong}"
    if up:
        rises = f"{'those' if down else 'detectors'} of {_names(up)} lift {wrong} ({_share(up, 'wrong', change)})"
    return [f"In {layer['layer']}, {falls}, and {rises}; {moved}."]


def _names(concepts: Sequence[Mapping[str, Any]]) -> str:
    return listed([one["concept"] for one in concepts])


def _share(concepts: Sequence[Mapping[str, Any]], cls: str, change: Mapping[str, float]) -> str:
    """Say how much of a logit's change the detectors of some concepts make together."""
    return f"{sum(one[f'{cls}_effect'] for one in concepts):+.2f} of {change[cls]:+.2f} in its logit"
