"""Maps of the evidence: for each class the clean image's, the adversarial one's and their difference, on one scale."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.drawing.html import write_data_uri
from whyfooled.drawing.pictures import Scale, draw_map, draw_signed_layer
from whyfooled.explanations.explained import Explained, list_evidence
from whyfooled.explanations.report.evidence import write_blindness, write_likeness
from whyfooled.saliency.evidence import Evidence

IMAGES = ("clean", "adversarial")
CLASSES = ("wrong", "true")
"""The order of the maps of an `Evidence`."""

_ROWS = ("true", "wrong")
"""The order of a page's rows."""

_RAMP = torch.linspace(-1, 1, 128).expand(8, -1)


def prepare_maps(evidence: Evidence, facts: dict[str, Any]) -> dict[str, Any]:
    """Prepare one method's maps, on one scale: a row for each class, with the difference if there is one."""
    scale, changed = Scale(**facts["scale"]), _differs(evidence)
    return {
        "facts": facts,
        "rows": [
            {
                "of": cls,
                "tiles": _prepare_tiles(evidence, CLASSES.index(cls), scale, changed),
                "cosine": facts["cosine_clean_to_adversarial"][cls],
                "likeness": write_likeness(facts["cosine_clean_to_adversarial"][cls]),
            }
            for cls in _ROWS
        ],
        "changed": changed,
        "blindness": write_blindness(facts) if changed else "",
        "end": f"{scale.end:.2g}",
        "signed": scale.signed,
        "signed_ramp": write_data_uri(draw_signed_layer(_RAMP, 1.0)),
        "ramp": write_data_uri(draw_map(_RAMP[:, 64:].unsqueeze(0), Scale(1.0, False))),
    }


def _differs(evidence: Evidence) -> bool:
    """Tell whether there are two images: where there is one alone, nothing is compared."""
    return not torch.equal(evidence.maps[0], evidence.maps[1])


def _prepare_tiles(evidence: Evidence, column: int, scale: Scale, changed: bool) -> list[dict[str, str]]:
    clean, adversarial = evidence.maps[:, column].sum(1)
    tiles = [{"what": "clean", "uri": write_data_uri(_draw_tile(clean, scale))}]
    if not changed:
        return tiles
    tiles.append({"what": "adversarial", "uri": write_data_uri(_draw_tile(adversarial, scale))})
    tiles.append({"what": "difference", "uri": write_data_uri(draw_signed_layer(adversarial - clean, scale.end))})
    return tiles


def _draw_tile(saliency: Tensor, scale: Scale) -> PILImage.Image:
    return draw_signed_layer(saliency, scale.end) if scale.signed else draw_map(saliency.unsqueeze(0), scale)


def draw_maps(evidence: Evidence, facts: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw one method's four maps and both differences, on one scale and on white, by the names of their files."""
    scale, name = Scale(**facts["scale"]), make_file_name(evidence.method)
    drawn = {
        f"{name}-{image}-{cls}": draw_map(evidence.maps[i, k], scale)
        for i, image in enumerate(IMAGES)
        for k, cls in enumerate(CLASSES)
    }
    if not _differs(evidence):
        return drawn
    differences = evidence.maps[1] - evidence.maps[0]
    return drawn | {
        f"{name}-difference-{cls}": draw_map(differences[k], Scale(scale.end, True)) for k, cls in enumerate(CLASSES)
    }


def list_map_scales(evidence: Evidence, facts: dict[str, Any]) -> dict[str, Scale]:
    """List the scales of the maps that `draw_maps` draws, by the names of their files."""
    scale, name = Scale(**facts["scale"]), make_file_name(evidence.method)
    scales = {f"{name}-{image}-{cls}": scale for image in IMAGES for cls in CLASSES}
    return scales | {f"{name}-difference-{cls}": Scale(scale.end, True) for cls in CLASSES}


def make_file_name(method: str) -> str:
    """Turn a method's name with parameters into something every file system takes."""
    return "".join(c if c.isalnum() or c == "-" else "_" for c in method).strip("_")


def prepare_evidence(explained: Explained, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Prepare every method's maps, the headline's first."""
    return [prepare_maps(evidence, facts) for evidence, facts in _pair_with_numbers(explained, numbers)]


def draw_evidence(explained: Explained, numbers: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw every method's maps, by the names of their files."""
    return {
        name: picture
        for evidence, facts in _pair_with_numbers(explained, numbers)
        for name, picture in draw_maps(evidence, facts).items()
    }


def list_scales(explained: Explained, numbers: dict[str, Any]) -> dict[str, Scale]:
    """List the scales of all methods' maps, class activation maps included, by the names of their files."""
    pairs = _pair_with_numbers(explained, numbers)
    if explained.effect is not None and explained.effect.cams is not None:
        pairs.append((explained.effect.cams, numbers["effect"]["cam"]))
    return {name: scale for pair in pairs for name, scale in list_map_scales(*pair).items()}


def _pair_with_numbers(explained: Explained, numbers: dict[str, Any]) -> list[tuple[Evidence, dict[str, Any]]]:
    """Pair every method's maps with their figures."""
    facts = [numbers["headline"], *numbers["evidence"]] if "headline" in numbers else []
    return list(zip(list_evidence(explained), facts, strict=True))
