"""Maps of the evidence: four of every method on one scale."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as PILImage

from whyfooled.drawing.html import write_data_uri
from whyfooled.drawing.pictures import Scale, draw_map
from whyfooled.explanations.explained import Explained
from whyfooled.saliency.evidence import Evidence

IMAGES = ("clean", "adversarial")
CLASSES = ("wrong", "true")


def prepare_maps(evidence: Evidence, facts: dict[str, Any]) -> dict[str, Any]:
    """Prepare one method's four maps, on one scale."""
    scale = Scale(**facts["scale"])
    ramp = torch.linspace(-1 if scale.signed else 0, 1, 128).view(1, 1, -1) * scale.end
    return {
        "facts": facts,
        "maps": [
            {"image": image, "of": cls, "uri": write_data_uri(draw_map(evidence.maps[i, k], scale))}
            for i, image in enumerate(IMAGES)
            for k, cls in enumerate(CLASSES)
        ],
        "ramp": write_data_uri(draw_map(ramp, scale)),
        "low": f"{-scale.end:.2g}" if scale.signed else "0",
        "high": f"{scale.end:.2g}",
    }


def draw_maps(evidence: Evidence, facts: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw one method's four maps, on one scale, by the names of their files."""
    scale = Scale(**facts["scale"])
    return {
        f"{make_file_name(evidence.method)}-{image}-{cls}": draw_map(evidence.maps[i, k], scale)
        for i, image in enumerate(IMAGES)
        for k, cls in enumerate(CLASSES)
    }


def make_file_name(method: str) -> str:
    """Turn a method's name with parameters into something every file system takes."""
    return "".join(c if c.isalnum() or c == "-" else "_" for c in method).strip("_")


def prepare_evidence(explained: Explained, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Prepare every method's four maps, the headline's first."""
    return [prepare_maps(evidence, facts) for evidence, facts in _pair_with_numbers(explained, numbers)]


def draw_evidence(explained: Explained, numbers: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw every method's four maps, by the names of their files."""
    return {
        name: picture
        for evidence, facts in _pair_with_numbers(explained, numbers)
        for name, picture in draw_maps(evidence, facts).items()
    }


def list_evidence(explained: Explained) -> tuple[Evidence, ...]:
    """Return every method's maps, the headline's first; none if there are none."""
    return () if explained.headline is None else (explained.headline, *explained.evidence)


def _pair_with_numbers(explained: Explained, numbers: dict[str, Any]) -> list[tuple[Evidence, dict[str, Any]]]:
    """Pair every method's maps with their figures."""
    facts = [numbers["headline"], *numbers["evidence"]] if "headline" in numbers else []
    return list(zip(list_evidence(explained), facts, strict=True))


def prepare_glance(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Put each method's recovery beside its other figures, the references last."""
    if "headline" not in numbers:
        return []
    facts = {method["title"]: method for method in [numbers["headline"], *numbers["evidence"]]}
    return [
        {"title": order["title"], "fills": order["fills"], "facts": facts.get(order["title"])}
        for order in numbers["recovery"]
    ]
