"""What a report says of what an attack does to hidden units: its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from whyfooled.drawing.words import finite
from whyfooled.units.changes import AMISS, BENT, LayerChanges, UnitChanges
from whyfooled.units.concept_changes import ConceptChange

TOP_UNITS = 10
"""How many of the units that changed most are listed, for each layer. [ours]"""

TOP_DETECTORS = 5
"""How many of the detectors that changed most are listed, for each layer: most of what does detects nothing. [ours]"""

CLASSES = ("true", "wrong")


def collect_unit_numbers(changes: UnitChanges) -> dict[str, Any]:
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
        "rule": {"nonlinearity": BENT, "amiss": AMISS},
        "logit_change": _by_class(changes.logit_change),
        "layers": [_collect_layer(changes, one) for one in changes.layers],
    }


def _by_class(values: Tensor) -> dict[str, float | None]:
    return {cls: finite(float(value)) for cls, value in zip(CLASSES, values, strict=True)}


def _collect_layer(changes: UnitChanges, layer: LayerChanges) -> dict[str, Any]:
    ranked, draws = layer.ranked, len(layer.chance)
    detectors = layer.dissected.detectors(changes.dissection.cutoff)
    return {
        "layer": layer.name,
        "units": len(layer.distance),
        "detectors": int(detectors.sum()),
        "accounted": _by_class(layer.accounted),
        "completeness": _by_class(changes.completeness(layer)),
        "nonlinearity": _by_class(layer.nonlinearity),
        "rough": dict(zip(CLASSES, changes.rough(layer).tolist(), strict=True)),
        "carried": _by_class(layer.effect[:, detectors].sum(1)),
        "beyond_chance": {
            "moving": int(layer.moving.sum()),
            "share": finite(layer.beyond_share),
            "chance": 1 / (1 + draws),
            "draws": draws,
        },
        "not_ranked": len(layer.distance) - len(ranked),
        "not_ranked_moving": int((layer.moving & (layer.std == 0)).sum()),
        "top": [_collect_unit(changes, layer, unit) for unit in ranked[:TOP_UNITS].tolist()],
        "top_detectors": [
            _collect_unit(changes, layer, unit) for unit in ranked[detectors[ranked]][:TOP_DETECTORS].tolist()
        ],
        "concepts": [_collect_concept(own) for own in layer.concepts],
    }


def _collect_unit(changes: UnitChanges, layer: LayerChanges, unit: int) -> dict[str, Any]:
    dissection, best = changes.dissection, int(layer.dissected.best[unit])
    chance = layer.relative_chance[:, unit]
    return {
        "unit": unit,
        "concept": dissection.concepts[best] if best >= 0 else None,
        "category": dissection.categories[dissection.category_of[best]] if best >= 0 else None,
        "iou": float(layer.dissected.best_iou[unit]),
        "detector": bool(layer.dissected.detectors(dissection.cutoff)[unit]),
        "relative": float(layer.relative[unit]),
        "chance": {"mean": float(chance.mean()), "low": float(chance.min()), "high": float(chance.max())},
        "mean_change": float(layer.mean_change[unit]),
        "active": {"clean": float(layer.active[0, unit]), "adversarial": float(layer.active[1, unit])},
        "effect": _by_class(layer.effect[:, unit]),
    }


def _collect_concept(concept: ConceptChange) -> dict[str, Any]:
    return {
        **asdict(concept),
        "mean_change": finite(concept.mean_change),
        "falls": concept.falls,
        "rises": concept.rises,
    }


def list_falling(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the concepts whose contribution to the true class falls, the largest effect on its logit first."""
    return sorted((one for one in layer["concepts"] if one["falls"]), key=lambda one: one["true_effect"])


def list_rising(layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the concepts whose contribution to the wrong class rises, the largest effect on its logit first."""
    return sorted((one for one in layer["concepts"] if one["rises"]), key=lambda one: -one["wrong_effect"])
