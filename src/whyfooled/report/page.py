"""The files of one explanation: a page that needs nothing else, pictures, numbers and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from whyfooled.evidence import Evidence
from whyfooled.explanation import Explanation
from whyfooled.report.account import sentences
from whyfooled.report.common import common_pictures, common_tensors, common_view, map_tensors, write_folder
from whyfooled.report.drawing import INK, as_png, as_svg
from whyfooled.report.html import map_pictures, maps_row, template
from whyfooled.report.numbers import numbers
from whyfooled.report.recovery_figure import recovery_figure
from whyfooled.report.trust_view import trust_pictures, trust_view
from whyfooled.trust import trust_tensors


def write_files(explanation: Explanation, folder: Path) -> None:
    """Write the report, its pictures, its numbers and its tensors into a folder that exists."""
    found = numbers(explanation)
    pictures = common_pictures(explanation, found)
    for evidence, facts in _with_facts(explanation, found):
        pictures |= map_pictures(evidence, facts)
    if explanation.trust is not None:
        pictures |= trust_pictures(explanation.trust, found["trust"])
    write_folder(
        explanation,
        folder,
        found=found,
        numbers_file="explanation.json",
        page=page(explanation, found),
        pictures=pictures,
        tensors=tensors(explanation),
    )
    (folder / "pictures" / "recovery.png").write_bytes(as_png(recovery_figure(found)))


def tensors(explanation: Explanation) -> dict[str, Tensor]:
    """Return the images, the perturbation and every map, by the names that ``tensors.safetensors`` gives them."""
    found = common_tensors(explanation)
    for evidence in (explanation.headline, *explanation.evidence):
        found |= map_tensors(evidence)
    return found if explanation.trust is None else found | dict(trust_tensors(explanation.trust))


def page(explanation: Explanation, found: dict[str, Any]) -> str:
    """Write an explanation and its numbers as one HTML page without any reference to another file."""
    rows = [maps_row(evidence, facts) for evidence, facts in _with_facts(explanation, found)]
    trust = explanation.trust
    return template("explanation.html.j2").render(
        **common_view(explanation, found),
        sentences=sentences(found),
        headline=rows[0],
        rows=rows[1:],
        trust=None if trust is None else trust_view(trust, explanation.clean, found["trust"]),
        glance=_glance(found),
        curves=as_svg(recovery_figure(found, ink=INK)),
    )


def _with_facts(explanation: Explanation, found: dict[str, Any]) -> list[tuple[Evidence, dict[str, Any]]]:
    """Pair every method's maps, the headline's first, with their figures."""
    maps = (explanation.headline, *explanation.evidence)
    return list(zip(maps, (found["headline"], *found["evidence"]), strict=True))


def _glance(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Put each method's recovery beside its other figures, the references last."""
    facts = {one["title"]: one for one in [found["headline"], *found["evidence"]]}
    return [
        {"title": one["title"], "fills": one["fills"], "facts": facts.get(one["title"])} for one in found["recovery"]
    ]
