"""What a report says of how far an image's maps can be trusted: its numbers, and a sentence for each method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from whyfooled.drawing.pictures import scale_of
from whyfooled.drawing.words import counted, finite, percent
from whyfooled.universal import Altered
from whyfooled.universal.evaluation import MEASURES, TOP
from whyfooled.universal.trust import MapTrust, Trust

FEW = 0.5
"""Share of the top pixels below which a map is said to be broken. [ours]"""

SHOWN = ("dissimilarity", "top_overlap", "rank_correlation", "structural_similarity")
"""The measures that the page lists."""


def collect_trust_numbers(trust: Trust, names: Sequence[str], blind: Collection[str] = ()) -> dict[str, Any]:
    """Collect everything that a report says of a universal perturbation in figures.

    Parameters
    ----------
    trust
        How much the maps change.
    names
        The names of all classes.
    blind
        The methods whose maps of different classes are nearly the same.
    """
    made = trust.perturbation
    before, after = trust.clean_logits.softmax(0), trust.logits.softmax(0)
    now = int(trust.logits.argmax())
    return {
        "perturbation": {
            "method": made.method,
            "saliency": made.saliency,
            "model": made.model,
            "l2": made.l2,
            "linf": made.linf,
            "altered": None if made.altered is None else _collect_altered_numbers(made.altered),
        },
        "clipped": {"l2": float(trust.delta.norm()), "linf": float(trust.delta.abs().max())},
        "class": {
            "index": trust.seen,
            "name": names[trust.seen],
            "probability": {"clean": float(before[trust.seen]), "universal": float(after[trust.seen])},
        },
        "contrast": {"index": trust.contrast, "name": names[trust.contrast]},
        "prediction": {"index": now, "name": names[now], "probability": float(after[now])},
        "stays": now == trust.seen,
        "random": {"draws": len(trust.stays), "stay": int(trust.stays.sum())},
        "methods": [{**_collect_method_numbers(one), "class_blind": one.method in blind} for one in trust.methods],
    }


def _collect_altered_numbers(altered: Altered) -> dict[str, Any]:
    """Collect on what share of other images it alters the maps."""
    return {
        **{name: finite(getattr(altered, name)) for name in ("share", "low", "high", "chance")},
        **{name: getattr(altered, name) for name in ("images", "saliency", "model")},
    }


def _collect_method_numbers(map_trust: MapTrust) -> dict[str, Any]:
    return {
        "method": map_trust.method,
        "title": map_trust.title,
        "contrastive": map_trust.contrastive,
        "universal": {name: finite(value) for name, value in map_trust.universal.items()},
        "random": {name: _summarise(values) for name, values in map_trust.random.items()},
        "scale": asdict(scale_of(map_trust.maps.unsqueeze(1))),
    }


def _summarise(values: Tensor) -> dict[str, float | None]:
    there = values[~values.isnan()].double()
    if not len(there):
        return {"mean": None, "low": None, "high": None}
    return {"mean": float(there.mean()), "low": float(there.min()), "high": float(there.max())}


def write_trust_sentences(numbers: Mapping[str, Any]) -> list[str]:
    """Say what becomes of the prediction, and how much of each method's map stays."""
    return [
        f"{_write_prediction(numbers)} {_write_altered(numbers['perturbation']['altered'])}".strip(),
        *(f"{one['title']}: {write_verdict(one, numbers)}" for one in numbers["methods"]),
    ]


def _write_prediction(numbers: Mapping[str, Any]) -> str:
    cls, now, random = numbers["class"], numbers["prediction"], numbers["random"]
    was = percent(cls["probability"]["clean"])
    what = f"the prediction stays {cls['name']} ({was}, then {percent(now['probability'])})"
    if not numbers["stays"]:
        what = (
            f"the prediction changes, from {cls['name']} ({was}) to {now['name']} ({percent(now['probability'])}), so "
            "the maps may well change too"
        )
    return (
        f"Under the universal perturbation (ℓ2 {numbers['perturbation']['l2']:.4g}) {what}; it stays under "
        f"{random['stay']} of {counted(random['draws'], 'random direction')} of the same norm."
    )


def _write_altered(altered: Mapping[str, Any] | None) -> str:
    """Say on what share of other images the perturbation alters the maps; nothing where that was never measured."""
    if altered is None:
        return ""
    if altered["share"] is None:
        return f"What share of other images it alters is not known: the maps of all {altered['images']} were empty."
    spread = f"{100 * altered['low']:.0f} to {_write_percent(altered['high'])}" if altered["low"] is not None else ""
    interval = f" ({spread} with 95 % confidence)" if spread else ""
    chance = "" if altered["chance"] is None else f"; one random direction does on {_write_percent(altered['chance'])}"
    return (
        f"Of {counted(altered['images'], 'other image')} it alters {_write_percent(altered['share'])}{interval}: their "
        f"maps of {altered['saliency']}, on {altered['model']}, move further than 95 % of random directions would move "
        f"them{chance}."
    )


def write_verdict(method: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """Say in a sentence how much of a method's map stays, and what follows.

    A share is called smaller than by chance if it is smaller than under every random direction.

    Parameters
    ----------
    method
        The numbers of the method.
    numbers
        The numbers that it is among.
    """
    kept, chance = method["universal"]["top_overlap"], method["random"]["top_overlap"]
    if kept is None or chance["mean"] is None:
        return "the map is empty before or after, so nothing can be said."
    beyond, few = kept < chance["low"], kept < FEW
    spread = f"{100 * chance['low']:.0f} to {_write_percent(chance['high'])}"
    by_chance = f"under random noise of equal size {_write_percent(chance['mean'])}, {spread} from draw to draw"
    if not numbers["stays"] and few:
        end = ", but the prediction changes, so this alone says nothing against the map"
    elif not numbers["stays"]:
        end = ", though the prediction changes: most of what it shows remains"
    elif few and beyond:
        end = ", fewer than under any noise, though the prediction stays: do not read it pixel by pixel"
        end += "; random noise alone breaks it too" if chance["mean"] < FEW else ""
    elif few:
        end = ", within what noise of this size does: any such noise changes it, so do not read it pixel by pixel"
    elif beyond:
        end = ", fewer than under any noise, but most of what it shows remains"
    else:
        end = ": most of what it shows remains, and the universal perturbation does no more than chance"
    # What shows the image, whatever the class, is not to be praised for staying.
    blind = (
        " This method's maps hardly depend on the class, so that they hardly change says nothing."
        if method["class_blind"] and not few
        else ""
    )
    return f"the map keeps {_write_percent(kept)} of its top pixels ({by_chance}){end}.{blind}"


def _write_percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def list_trust_headings() -> list[str]:
    """Name the measures that the page lists."""
    return [MEASURES[name] for name in SHOWN]


TOP_TEXT = f"{100 * TOP:.0f} %"
"""How many pixels are a map's top ones."""
