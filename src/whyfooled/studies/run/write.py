"""The files of a finished study, all made from its table."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from whyfooled.errors import ImageError
from whyfooled.images import is_file, write_whole
from whyfooled.registry import available
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    is_count,
    is_text,
    list_of,
    maybe,
    read_record,
    write_record,
)
from whyfooled.studies.study import Study
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import NARROW

STUDY_FILE, TABLE_FILE = "study.json", "table.parquet"

STUDY = FileKind(
    "study",
    2,
    "whyfooled study",
    {"study": is_text, "version": is_text, "model": is_text, "seed": is_count, "attacked_with": maybe(is_text)},
)
_FINISHED = FileKind(
    STUDY.what,
    STUDY.version,
    STUDY.command,
    {
        **STUDY.fields,
        **dict.fromkeys(("images_measured", "images_given", "images_in_source"), is_count),
        **dict.fromkeys(("forwards", "backwards", "failures"), is_count),
        **dict.fromkeys(("source", "true_classes"), is_text),
        **dict.fromkeys(("failed", "notes"), list_of(is_text)),
    },
)


def write_results(study: type[Study], table: Table, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Write ``summary.md``, ``summary.tex``, ``figure.png``, ``figure.pdf`` and, last, ``study.json``; return that."""
    summary = study.summarise(table, about["seed"])
    figure = study.draw(table, about["seed"])
    origin = _say_origin(study, about)
    lines = "".join(f"{line}  \n" for line in origin)
    _write_text(folder / "summary.md", f"{summary.markdown(study.card.title)}\n{lines}")
    _write_text(folder / "summary.tex", summary.latex(study.card.name, origin))
    for suffix in ("png", "pdf"):
        write_whole(folder / f"figure.{suffix}", _render(figure, suffix))
    whole = {**about, "findings": list(summary.sentences), "results": summary.plain()}
    write_record(folder / STUDY_FILE, STUDY, whole)
    return whole


def _write_text(path: Path, text: str) -> None:
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def redraw(folder: str | Path) -> Path:
    """Write a finished study up again, from its table alone; return the figure's file.

    Raises
    ------
    ImageError
        If the folder holds no finished study, or a damaged one.
    """
    folder = Path(folder)
    about, study, table = read_study(folder)
    write_results(study, table, folder, about)
    return folder / "figure.png"


def read_study(folder: Path) -> tuple[dict[str, Any], type[Study], Table]:
    """Read what a finished study came to, which study it is, and its table; raise `ImageError` if there is none."""
    path, table = folder / STUDY_FILE, Table(folder / TABLE_FILE)
    try:
        about = read_record(path, STUDY)
        finished = "images_measured" in about and is_file(table.path)
        about = _FINISHED.check(path, about) if finished else about
    except (OSError, ValueError, DamagedError):
        raise ImageError(
            f"{folder} holds no study: it has no readable {STUDY_FILE}. Make one: whyfooled study."
        ) from None
    if not finished:
        raise ImageError(f"The study in {folder} is not finished. Run the same command again: it goes on where it was.")
    name = about["study"].partition("(")[0]
    studies = available("studies")
    if name not in studies:
        raise ImageError(f"{folder} holds the study {name}, which is not installed here.")
    missing = sorted(set(studies[name].columns) - table.columns)
    if missing:
        raise ImageError(f"{table.path} is not the table of the study {name}: it has no column {missing[0]}.")
    return about, studies[name], table


def _say_origin(study: type[Study], about: dict[str, Any]) -> list[str]:
    """Say in lines what a reader must know to do it again."""
    images = f"{about['images_measured']} of {about['images_given']} images measured"
    if about["images_given"] < about["images_in_source"]:
        images += f", drawn at random from {about['images_in_source']}"
    lines = [
        f"{about['study']}, whyfooled {about['version']}, model {about['model']}, seed {about['seed']}.",
        f"{images}; source: {about['source']}; true classes: {about['true_classes']}.",
        f"{about['forwards']} forward and {about['backwards']} backward passes, of one image each.",
    ]
    if about["attacked_with"] is not None:
        then = "those that are known here can be run again" if study.attacks_again else "no attack was run"
        lines.insert(1, f"The images are saved adversarial ones, made with {about['attacked_with']}; {then}.")
    if about["images_measured"] < NARROW:
        lines.append(f"Intervals of means over fewer than {NARROW} images are too narrow.")
    if about["failures"]:
        lines.append(f"{about['failures']} failures, such as: {about['failed'][0]}")
    return [*lines, *(f"Note: {note}" for note in about["notes"])]


def _render(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    # No dates, so that equal tables give equal figures; text in a PDF as text.
    without_date = {"CreationDate": None} if suffix == "pdf" else {}
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format=suffix, dpi=150, facecolor="white", metadata=without_date)
    return buffer.getvalue()
