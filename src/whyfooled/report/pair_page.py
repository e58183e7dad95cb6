"""The files of the explanation of one pair of images: of its perturbation, or of its units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whyfooled.explaining_perturbation import PerturbationExplanation
from whyfooled.explaining_units import UnitsExplanation
from whyfooled.report.account import happened
from whyfooled.report.common import common_pictures, common_tensors, common_view, write_folder
from whyfooled.report.html import template

OfPair = PerturbationExplanation | UnitsExplanation


def write_files(explanation: OfPair, folder: Path) -> None:
    """Write the report, its pictures, its numbers and its tensors into a folder that exists."""
    found = explanation.to_dict()
    write_folder(
        explanation,
        folder,
        found=found,
        numbers_file=f"{explanation.kind}.json",
        page=page(explanation, found),
        pictures=common_pictures(explanation, found),
        tensors=common_tensors(explanation),
    )


def page(explanation: OfPair, found: dict[str, Any]) -> str:
    """Write an explanation and its numbers as one HTML page without any reference to another file."""
    view = common_view(explanation, found)
    return template("pair.html.j2").render(**view, sentences=happened(found))
