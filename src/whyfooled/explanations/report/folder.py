"""The files of a report: the page, pictures, numbers, tables and tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.drawing.pictures import draw_delta
from whyfooled.drawing.style import as_file, as_png
from whyfooled.explanations.explained import Explained, list_evidence
from whyfooled.explanations.report.effect_view import draw_effect_figures
from whyfooled.explanations.report.evidence_view import (
    CLASSES,
    IMAGES,
    draw_evidence,
    draw_maps,
    list_scales,
    make_file_name,
)
from whyfooled.explanations.report.forgery_view import draw_forgery_pictures
from whyfooled.explanations.report.named_view import draw_named
from whyfooled.explanations.report.page import write_page
from whyfooled.explanations.report.recovery_figure import draw_recovery
from whyfooled.explanations.report.region_picture import picture_figure
from whyfooled.explanations.report.trust_view import draw_trust_pictures
from whyfooled.explanations.report.units_view import draw_unit_pictures
from whyfooled.images import to_picture, write_tensors
from whyfooled.perturbation.effect import name_effect_tensors
from whyfooled.saliency.evidence import Evidence
from whyfooled.units.changes import name_unit_tensors
from whyfooled.universal.trust import name_trust_tensors


def write_files(explained: Explained, numbers: dict[str, Any], folder: Path, figures: str | None = None) -> None:
    """Write the report, its pictures, its numbers and its tensors into a folder that exists.

    Parameters
    ----------
    explained
        What is explained.
    numbers
        Every number of its report.
    folder
        Where to write.
    figures
        The format, ``"pdf"``, ``"svg"`` or ``"png"``, in which every picture and panel is written once more, one a
        file, as a paper needs it.
    """
    _write_pictures(explained, numbers, folder / "pictures")
    if figures is not None:
        _write_figures(explained, numbers, folder / "figures", figures)
    if explained.effect is not None:
        table = explained.effect.sensitivity.to_frame().drop(columns="image")
        (folder / "regions.csv").write_text(table.to_csv(index=False), encoding="utf-8")
    if explained.named is not None:
        (folder / "named.csv").write_text(explained.named.to_frame().to_csv(index=False), encoding="utf-8")
    if explained.units is not None:
        (folder / "units.csv").write_text(explained.units.to_frame().to_csv(index=False), encoding="utf-8")
    text = json.dumps(numbers, indent=2, ensure_ascii=False)
    (folder / f"{explained.kind}.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "report.html").write_text(write_page(explained, numbers), encoding="utf-8")
    about = {"model": explained.parameters["model"], "whyfooled": explained.parameters["versions"]["whyfooled"]}
    write_tensors(folder / "tensors.safetensors", collect_tensors(explained), about)


def _write_pictures(explained: Explained, numbers: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    for name, picture in draw_pictures(explained, numbers).items():
        picture.save(folder / f"{name}.png")
    for name, figure in draw_figures(explained, numbers).items():
        (folder / f"{name}.png").write_bytes(as_png(figure))


def _write_figures(explained: Explained, numbers: dict[str, Any], folder: Path, suffix: str) -> None:
    folder.mkdir()
    scales = list_scales(explained, numbers)
    pictures = {
        name: picture_figure(picture, scales.get(name)) for name, picture in draw_pictures(explained, numbers).items()
    }
    for name, figure in {**pictures, **draw_figures(explained, numbers)}.items():
        (folder / f"{name}.{suffix}").write_bytes(as_file(figure, suffix))


def draw_pictures(explained: Explained, numbers: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw the images, the perturbation and every section's pictures, by the names of their files."""
    images = {"clean": explained.clean, "adversarial": explained.adversarial}
    drawn = {name: to_picture(image) for name, image in images.items()}
    drawn["delta"] = draw_delta(explained.delta, numbers["perturbation"]["magnification"])
    if explained.effect is not None and explained.effect.cams is not None:
        drawn |= draw_maps(explained.effect.cams, numbers["effect"]["cam"])
    if explained.units is not None:
        drawn |= draw_unit_pictures(explained.units, numbers["units"], images)
    if explained.trust is not None:
        drawn |= draw_trust_pictures(explained.trust, numbers["trust"])
    if explained.forgery is not None:
        drawn |= draw_forgery_pictures(explained.forgery, numbers["forgery"])
    return drawn | draw_evidence(explained, numbers)


def draw_figures(explained: Explained, numbers: dict[str, Any]) -> dict[str, Figure]:
    """Draw what is made of lines and letters, one panel each, by the names of their files."""
    drawn: dict[str, Figure] = {}
    if explained.effect is not None:
        drawn |= draw_effect_figures(explained.effect, numbers, explained.clean, explained.delta)
    if explained.named is not None:
        drawn["named"] = draw_named(explained.named, explained.clean)
    fills = numbers["recovery"][0]["fills"] if explained.recovery else ()
    return drawn | {f"recovery-{make_file_name(fill)}": draw_recovery(numbers, fill) for fill in fills}


def collect_tensors(explained: Explained) -> dict[str, Tensor]:
    """Return images, perturbation and every section's tensors, by the names that ``tensors.safetensors`` gives them."""
    named = {"clean": explained.clean, "adversarial": explained.adversarial, "delta": explained.delta}
    effect = explained.effect
    if effect is not None:
        named |= name_effect_tensors(effect)
        named |= {} if effect.cams is None else _name_map_tensors(effect.cams)
    if explained.named is not None:
        named["named/labels"] = explained.named.labels
    if explained.units is not None:
        named |= name_unit_tensors(explained.units)
    if explained.forgery is not None:
        named |= {"forgery": explained.forgery.image, "forgery/maps": explained.forgery.maps}
    for evidence in list_evidence(explained):
        named |= _name_map_tensors(evidence)
    return named if explained.trust is None else named | dict(name_trust_tensors(explained.trust))


def _name_map_tensors(evidence: Evidence) -> dict[str, Tensor]:
    """Return one method's four maps, by their names."""
    return {
        f"maps/{evidence.method}/{image}/{cls}": evidence.maps[i, k]
        for i, image in enumerate(IMAGES)
        for k, cls in enumerate(CLASSES)
    }
