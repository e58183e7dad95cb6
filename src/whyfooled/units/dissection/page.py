"""The files of a dissection: a page to browse its units, tables, a summary, a figure, and what loading it needs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from whyfooled.drawing.html import load_template
from whyfooled.drawing.style import INK, as_png, as_svg
from whyfooled.drawing.summary import Summary
from whyfooled.drawing.words import percent
from whyfooled.types import Progress, silent
from whyfooled.units.dissection.figure import choose_colours, draw_dissection
from whyfooled.units.dissection.pictures import Pictures, draw_pictures
from whyfooled.units.dissection.results import DissectedLayer, DissectionRecord
from whyfooled.units.dissection.saved import write_dissection
from whyfooled.units.dissection.summary import TITLE, count_detectors_by_chance, dissection_summary

CONCEPTS_SHOWN = 3
"""How many of a unit's best concepts are shown. [ours]"""


def write_files(dissection: DissectionRecord, folder: Path, progress: Progress = silent) -> None:
    """Write everything into a folder that exists."""
    summary = dissection_summary(dissection)
    units = dissection.to_frame()
    units.to_parquet(folder / "units.parquet", index=False)
    units.to_csv(folder / "units.csv", index=False)
    dissection.overlaps().to_parquet(folder / "overlaps.parquet", index=False)
    _write_text(folder / "summary.md", write_summary(dissection, summary))
    _write_text(folder / "summary.tex", summary.latex("dissection", (_write_provenance(dissection),)))
    (folder / "figure.png").write_bytes(as_png(draw_dissection(dissection)))
    pictures = draw_pictures(dissection, folder / "pictures", progress)
    _write_text(folder / "index.html", write_page(dissection, summary, pictures))
    write_dissection(dissection, summary, folder)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_summary(dissection: DissectionRecord, summary: Summary) -> str:
    """Write the summary as Markdown, and at its end what it takes to do it again."""
    return f"{summary.markdown(TITLE)}\n{_write_provenance(dissection)}\n"


def _write_provenance(dissection: DissectionRecord) -> str:
    parameters = dict(dissection.parameters)
    version = parameters.pop("versions", {}).get("whyfooled", "of an unknown version")
    given = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in parameters.items())
    return f"whyfooled {version}, {given}, cutoff {dissection.cutoff:g}; {dissection.passes.forwards} forward passes."


def write_page(dissection: DissectionRecord, summary: Summary, pictures: Pictures) -> str:
    """Write the page: it names no file but the thumbnails."""
    parameters = dissection.parameters
    parts = [count_detectors_by_chance(one, dissection.cutoff) for one in dissection.layers]
    permutations = len(dissection.layers[0].null_iou)
    return load_template(
        "whyfooled.units.dissection", "dissection.html.j2", scripts=("dissection.js",), pictures="'self' file:"
    ).render(
        title=parameters.get("model", ""),
        layers=[one.layer.name for one in dissection.layers],
        summary=summary,
        has_pictures=bool(pictures.files),
        glance={
            "units": sum(one.layer.units for one in dissection.layers),
            "detectors": sum(one.observed for one in parts),
            "chance": f"{sum(one.mean for one in parts):.1f}" if permutations else None,
            "permutations": permutations,
            "images": len(dissection.images),
            "concepts": int((dissection.area > 0).sum()),
            "cutoff": f"{dissection.cutoff:g}",
            "share": percent(parameters["top"]) if "top" in parameters else None,
        },
        figure=as_svg(draw_dissection(dissection, ink=INK)),
        categories=choose_colours(dissection.categories),
        data=_embed(_collect_data(dissection, pictures)),
        numbers={
            "parameters": {"versions": {}, **parameters},
            "seconds": dissection.seconds,
            "passes": {},
            "seconds_in_all": sum(dissection.seconds.values()),
        },
        passes=dissection.passes,
    )


def _embed(data: dict[str, Any]) -> str:
    # No name may end the element that it is in.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _collect_data(dissection: DissectionRecord, pictures: Pictures) -> dict[str, Any]:
    """Collect what the page's script builds the units from; short keys, because there may be thousands."""
    colours = list(choose_colours(dissection.categories).items())
    return {
        "layers": [one.layer.name for one in dissection.layers],
        "categories": colours,
        "concepts": list(zip(dissection.concepts, dissection.category_of, strict=True)),
        "cutoff": dissection.cutoff,
        "permutations": len(dissection.layers[0].null_iou),
        "box": pictures.box,
        "total": len(dissection.images),
        "images": pictures.names,
        "files": pictures.files,
        "masks": pictures.masks,
        "units": [
            unit
            for number, dissected in enumerate(dissection.layers)
            for unit in _list_units(number, dissected, dissection.cutoff, pictures.outlines[number])
        ],
    }


def _list_units(
    number: int, dissected: DissectedLayer, cutoff: float, outlines: list[list[str]]
) -> list[dict[str, Any]]:
    iou, concepts = dissected.iou.sort(dim=1, descending=True, stable=True)
    best = [
        [[concept, _round(value)] for concept, value in zip(*pair, strict=True) if value > 0]
        for pair in zip(concepts[:, :CONCEPTS_SHOWN].tolist(), iou[:, :CONCEPTS_SHOWN].tolist(), strict=True)
    ]
    permuted = len(dissected.null_iou) > 0
    frame = pd.DataFrame(
        {
            "d": dissected.detectors(cutoff).int(),
            "n": dissected.null_iou.double().mean(0) if permuted else None,
            "q": dissected.p_value if permuted else None,
            "i": dissected.active_images,
            "o": dissected.in_one_image,
            "t": dissected.threshold,
            "a": dissected.above.double() / dissected.positions,
            "x": dissected.dead.int(),
        }
    )
    numbers = [{str(key): _round(value) for key, value in row.items()} for row in frame.to_dict("records")]
    # Of a small active region there may be no outline at the size of a picture.
    active = (dissected.top_values > dissected.threshold.unsqueeze(1)).int()
    tops = zip(dissected.top_images.tolist(), dissected.top_values.tolist(), outlines, active.tolist(), strict=True)
    return [
        {"l": number, "u": unit, "c": best_of_unit, **facts, "p": [] if facts["x"] else _list_tops(*top)}
        for unit, (best_of_unit, facts, top) in enumerate(zip(best, numbers, tops, strict=True))
    ]


def _list_tops(images: list[int], values: list[float], paths: list[str], active: list[int]) -> list[list[Any]]:
    return [
        [image, _round(value), path, is_active]
        for image, value, path, is_active in zip(images, values, paths, active, strict=True)
        if image >= 0
    ]


def _round(value: float | None) -> float | None:
    """Keep four digits, which a page needs; what is not there stays so."""
    return None if value is None or math.isnan(value) else float(f"{value:.4g}")
