"""What the page shows beside its form: how a job stands, a run's report by parts, its pictures, and the runs so far."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from whyfooled.app.desk import Look
from whyfooled.app.jobs import Job
from whyfooled.app.parts import PARTS, VERDICT, find_parts
from whyfooled.app.request import name_by_labels
from whyfooled.app.runs import PAGE, Run, find_file
from whyfooled.drawing.html import load_template

MOST_SHOWN = 60
"""Runs that the gallery shows, the newest: as many pictures as a phone loads in a moment. [ours]"""


@functools.cache
def _template(name: str) -> jinja2.Template:
    return load_template("whyfooled.app", f"{name}.html.j2")


def _render(template: str, **values: Any) -> str:
    return _template(template).render(**values)


def show_header(output: Path) -> str:
    """Write what stands above everything."""
    return _render("header", output=output)


def show_job(job: Job, before: int) -> str:
    """Write how a job stands, `before` others of which come first."""
    said = {"error": name_by_labels(job.error), "warnings": [name_by_labels(warning) for warning in job.warnings]}
    return _render("job", job=job, before=before, **said)


def show_mistake(sentence: str) -> str:
    """Write why nothing was begun."""
    return _render("mistake", sentence=name_by_labels(sentence))


def show_about(sentence: str) -> str:
    """Write what goes into a field that cannot say it itself."""
    return _render("about", sentence=sentence)


def show_classes(names: Sequence[str]) -> str:
    """Write the names that are suggested where a class is asked for."""
    return _render("classes", names=names)


def show_welcome() -> str:
    """Write what stands where a report will be."""
    return _render("welcome")


def show_photograph(look: Look) -> str:
    """Write a picture of what was dropped, and what is to be said of it."""
    return _render("photograph", look=look)


def show_heading(run: Run) -> str:
    """Write a run's name, when it was, and where all its files are."""
    return _render("heading", run=run, page=PAGE, when=_write_time(run.written))


def show_parts(output: Path, run: Run) -> list[str]:
    """Write each part of a run's report, in the order of `PARTS`."""
    has = find_parts(find_file(output, run.name, PAGE).read_text(encoding="utf-8", errors="replace"))
    return [
        _render("part", run=run, page=PAGE, part=part, whole=not has, is_there=part.name in (has or {VERDICT}))
        for part in PARTS
    ]


_CAPTIONS = {
    "clean": "before",
    "adversarial": "after",
    "delta": "the perturbation, magnified",
    "perturbation-size": "size of the perturbation",
    "effect": "what each region does",
    "ratio": "how much each region lifts, over how much it holds down",
    "regions-colour-blind": "regions, colour-blind safe",
    "regions-paper": "regions, as in the paper",
    "recovery-zero": "recovery, black pixels",
    "recovery-mean": "recovery, the mean colour",
    "recovery-noise": "recovery, noise",
    "recovery-blur": "recovery, blurred pixels",
}
"""What the pictures of a run show; maps are named by `_MAP`, and others as their files are."""
_MAP = re.compile(r"(.+)-(clean|adversarial|difference)-(true|wrong)")


def write_caption(name: str) -> str:
    """Say what a picture shows, by the name of its file."""
    stem = name.removesuffix(".png")
    if named := _MAP.fullmatch(stem):
        method, image, cls = named.groups()
        return f"{method.replace('-', ' ')}, {cls} class, {image}"
    return _CAPTIONS.get(stem, stem.replace("-", " "))


def show_pictures(run: Run) -> str:
    """Write all pictures of a run, each with a link that saves it."""
    # Before and after come first, then the perturbation, then maps.
    first = [f"{stem}.png" for stem in _CAPTIONS]
    names = sorted(run.pictures, key=lambda name: first.index(name) if name in first else len(first))
    return _render("pictures", run=run, captions={name: write_caption(name) for name in names})


def show_runs(runs: Sequence[Run], output: Path, shown: str | None = None) -> str:
    """Write the gallery of runs, of which one may be shown above."""
    cards = [(run, _write_time(run.written)) for run in runs[:MOST_SHOWN]]
    return _render("runs", cards=cards, more=max(0, len(runs) - MOST_SHOWN), output=output, shown=shown)


def _write_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
