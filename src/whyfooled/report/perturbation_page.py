"""The files of one perturbation's explanation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whyfooled.explaining_perturbation import PerturbationExplanation
from whyfooled.report.account import happened
from whyfooled.report.common import common_pictures, common_tensors, common_view, write_folder
from whyfooled.report.html import template


def write_files(explanation: PerturbationExplanation, folder: Path) -> None:
    """Write the report, its pictures, its numbers and its tensors into a folder that exists."""
    found = explanation.to_dict()
    write_folder(
        explanation,
        folder,
        found=found,
        numbers_file="perturbation.json",
        page=page(explanation, found),
        pictures=common_pictures(explanation, found),
        tensors=common_tensors(explanation),
    )


def page(explanation: PerturbationExplanation, found: dict[str, Any]) -> str:
    """Write an explanation and its numbers as one HTML page without any reference to another file."""
    view = common_view(explanation, found)
    return template("perturbation.html.j2").render(**view, sentences=happened(found))
