"""What the reports of all explanations have in common: numbers, pictures, tensors, and the files of a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.attacks._result import l0
from whyfooled.effect import effect_tensors
from whyfooled.evidence import Evidence
from whyfooled.explaining_perturbation import PerturbationExplanation
from whyfooled.explaining_units import UnitsExplanation
from whyfooled.explanation import Explanation
from whyfooled.images import to_picture, write_tensors
from whyfooled.report.effect import effect_numbers
from whyfooled.report.effect_view import effect_pictures, effect_png, effect_view
from whyfooled.report.html import CLASSES, IMAGES, data_uri
from whyfooled.report.pictures import delta_picture, magnification
from whyfooled.report.units import unit_numbers
from whyfooled.report.units_view import unit_pictures, unit_view
from whyfooled.types import Image
from whyfooled.units.changes import unit_tensors

Explained = Explanation | PerturbationExplanation | UnitsExplanation

TOP = 5
"""How many classes are listed for each image."""


def common_numbers(explained: Explained) -> dict[str, Any]:
    """Collect what every report says in figures: classes, predictions, the perturbation, its effect, the units."""
    delta = explained.adversarial - explained.clean
    effect, units = explained.effect, explained.units
    logits = torch.stack([explained.clean_logits, explained.logits])
    return {
        "outcome": explained.outcome,
        "true": _class(explained, explained.true),
        "wrong": _class(explained, explained.wrong),
        "predictions": {
            "clean": _top(explained, explained.clean_logits),
            "adversarial": _top(explained, explained.logits),
        },
        "perturbation": _perturbation(delta),
        "effect": None if effect is None else effect_numbers(effect, delta, logits, explained.true, explained.wrong),
        **({} if units is None else {"units": unit_numbers(units)}),
        "notes": list(explained.notes),
        "parameters": dict(explained.parameters),
        "seconds": {stage: round(seconds, 3) for stage, seconds in explained.seconds.items()},
        "seconds_in_all": round(sum(explained.seconds.values()), 3),
        "passes": {stage: asdict(passes) for stage, passes in explained.passes.items()},
    }


def _class(explained: Explained, index: int) -> dict[str, Any]:
    clean, adversarial = explained.clean_logits, explained.logits
    return {
        "index": index,
        "name": explained.names[index],
        "logit": {"clean": float(clean[index]), "adversarial": float(adversarial[index])},
        "probability": {"clean": float(clean.softmax(0)[index]), "adversarial": float(adversarial.softmax(0)[index])},
    }


def _top(explained: Explained, logits: Tensor) -> list[dict[str, Any]]:
    """List the classes with the largest logits, and the two that the explanation is about wherever they are."""
    probabilities = logits.softmax(0)
    strongest = logits.topk(min(TOP, len(logits))).indices.tolist()
    about = sorted({explained.true, explained.wrong} - set(strongest), key=lambda index: -float(logits[index]))
    return [
        {
            "index": index,
            "name": explained.names[index],
            "probability": float(probabilities[index]),
            "logit": float(logits[index]),
        }
        for index in [*strongest, *about]
    ]


def _perturbation(delta: Tensor) -> dict[str, Any]:
    return {
        "l0": int(l0(delta.unsqueeze(0))),
        "l1": float(delta.abs().sum()),
        "l2": float(delta.norm()),
        "linf": float(delta.abs().max()),
        "pixels": delta[0].numel(),
        "magnification": magnification(delta),
    }


def common_view(explained: Explained, found: dict[str, Any]) -> dict[str, Any]:
    """Prepare what every page shows."""
    factor = found["perturbation"]["magnification"]
    effect, units = explained.effect, explained.units
    return {
        "found": found,
        "clean": data_uri(to_picture(explained.clean)),
        "adversarial": data_uri(to_picture(explained.adversarial)),
        "delta": data_uri(delta_picture(explained.adversarial - explained.clean, factor)),
        "magnification": f"{factor:,.0f}".replace(",", "\u202f") if factor >= 10 else f"{factor:.2g}",
        "effect": None if effect is None else effect_view(effect, found, _images(explained)),
        "units": None if units is None else unit_view(units, found["units"], explained.clean.shape[1:]),
    }


def common_pictures(explained: Explained, found: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw the images, the perturbation, its effect and the units, by the names of their files."""
    pictures = {
        "clean": to_picture(explained.clean),
        "adversarial": to_picture(explained.adversarial),
        "delta": delta_picture(explained.adversarial - explained.clean, found["perturbation"]["magnification"]),
    }
    if explained.effect is not None:
        pictures |= effect_pictures(explained.effect, found["effect"], _images(explained))
    if explained.units is not None:
        pictures |= unit_pictures(explained.units, found["units"], _images(explained))
    return pictures


def common_tensors(explained: Explained) -> dict[str, Tensor]:
    """Return images, perturbation, its effect and the units, by the names that ``tensors.safetensors`` gives them."""
    found = {
        "clean": explained.clean,
        "adversarial": explained.adversarial,
        "delta": explained.adversarial - explained.clean,
    }
    effect, units = explained.effect, explained.units
    if effect is not None:
        found |= effect_tensors(effect)
        found |= map_tensors(effect.cams) if effect.cams is not None else {}
    return found if units is None else found | dict(unit_tensors(units))


def map_tensors(evidence: Evidence) -> dict[str, Tensor]:
    """Return one method's four maps, by their names."""
    return {
        f"maps/{evidence.method}/{image}/{cls}": evidence.maps[i, k]
        for i, image in enumerate(IMAGES)
        for k, cls in enumerate(CLASSES)
    }


def write_folder(
    explained: Explained,
    folder: Path,
    *,
    found: dict[str, Any],
    numbers_file: str,
    page: str,
    pictures: dict[str, PILImage.Image],
    tensors: dict[str, Tensor],
) -> None:
    """Write a report's files into a folder that exists."""
    place = folder / "pictures"
    place.mkdir()
    for name, picture in pictures.items():
        picture.save(place / f"{name}.png")
    if explained.effect is not None:
        (place / "regions.png").write_bytes(effect_png(explained.effect, found))
        table = explained.effect.sensitivity.to_frame().drop(columns="image")
        (folder / "regions.csv").write_text(table.to_csv(index=False), encoding="utf-8")
    if explained.units is not None:
        (folder / "units.csv").write_text(explained.units.to_frame().to_csv(index=False), encoding="utf-8")
    text = json.dumps(found, indent=2, ensure_ascii=False)
    (folder / numbers_file).write_text(f"{text}\n", encoding="utf-8")
    (folder / "report.html").write_text(page, encoding="utf-8")
    about = {"model": explained.parameters["model"], "whyfooled": explained.parameters["versions"]["whyfooled"]}
    write_tensors(folder / "tensors.safetensors", tensors, about)


def _images(explained: Explained) -> dict[str, Image]:
    return {"clean": explained.clean, "adversarial": explained.adversarial}
