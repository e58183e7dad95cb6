"""The files of one explanation: a page that needs nothing else, pictures, numbers and tensors."""

from __future__ import annotations

import base64
import html
import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.explanation import Evidence, Explanation
from whyfooled.images import to_picture, write_tensors
from whyfooled.report.account import percent, sentences
from whyfooled.report.figure import recovery_png, recovery_svg
from whyfooled.report.numbers import numbers
from whyfooled.report.pictures import Scale, delta_picture, map_picture

_IMAGES = ("clean", "adversarial")
_CLASSES = ("wrong", "true")


def write_files(explanation: Explanation, folder: Path) -> None:
    """Write the report, its pictures, its numbers and its tensors into a folder that exists."""
    found = numbers(explanation)
    pictures = folder / "pictures"
    pictures.mkdir()
    for name, picture in _pictures(explanation, found).items():
        picture.save(pictures / f"{name}.png")
    (pictures / "recovery.png").write_bytes(recovery_png(found))
    (folder / "explanation.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(explanation, found), encoding="utf-8")
    about = {"model": explanation.parameters["model"], "whyfooled": explanation.parameters["versions"]["whyfooled"]}
    write_tensors(folder / "tensors.safetensors", tensors(explanation), about)


def tensors(explanation: Explanation) -> dict[str, Tensor]:
    """Return the images, the perturbation and every map, by the names that ``tensors.safetensors`` gives them."""
    found = {"clean": explanation.clean, "adversarial": explanation.adversarial, "delta": explanation.delta}
    for evidence in (explanation.headline, *explanation.evidence):
        for i, image in enumerate(_IMAGES):
            for k, cls in enumerate(_CLASSES):
                found[f"maps/{evidence.method}/{image}/{cls}"] = evidence.maps[i, k]
    return found


def page(explanation: Explanation, found: dict[str, Any]) -> str:
    """Write an explanation and its numbers as one HTML page without any reference to another file."""
    factor = found["perturbation"]["magnification"]
    rows = [_row(evidence, facts) for evidence, facts in _with_facts(explanation, found)]
    return _template().render(
        found=found,
        sentences=sentences(found),
        clean=_data_uri(to_picture(explanation.clean)),
        adversarial=_data_uri(to_picture(explanation.adversarial)),
        delta=_data_uri(delta_picture(explanation.delta, factor)),
        magnification=f"{factor:,.0f}".replace(",", "\u202f") if factor >= 10 else f"{factor:.2g}",
        headline=rows[0],
        rows=rows[1:],
        glance=_glance(found),
        curves=recovery_svg(found),
    )


def notebook_frame(explanation: Explanation) -> str:
    """Wrap the page in a frame, so that its styles and a notebook's do not mix."""
    source = html.escape(page(explanation, numbers(explanation)), quote=True)
    style = "width:100%;height:900px;border:1px solid #8886"
    return f'<iframe srcdoc="{source}" style="{style}" title="whyfooled report"></iframe>'


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    return environment.from_string(resources.files("whyfooled.report").joinpath("page.html.j2").read_text("utf-8"))


def _with_facts(explanation: Explanation, found: dict[str, Any]) -> list[tuple[Evidence, dict[str, Any]]]:
    """Pair every method's maps, the headline's first, with their figures."""
    maps = (explanation.headline, *explanation.evidence)
    return list(zip(maps, (found["headline"], *found["evidence"]), strict=True))


def _row(evidence: Evidence, facts: dict[str, Any]) -> dict[str, Any]:
    """Prepare one method's four maps, on one scale."""
    scale = Scale(**facts["scale"])
    ramp = torch.linspace(-1 if scale.signed else 0, 1, 128).view(1, 1, -1) * scale.end
    return {
        "facts": facts,
        "maps": [
            {"image": image, "of": cls, "uri": _data_uri(map_picture(evidence.maps[i, k], scale))}
            for i, image in enumerate(_IMAGES)
            for k, cls in enumerate(_CLASSES)
        ],
        "ramp": _data_uri(map_picture(ramp, scale)),
        "low": f"{-scale.end:.2g}" if scale.signed else "0",
        "high": f"{scale.end:.2g}",
    }


def _glance(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Put each method's recovery beside its other figures, the references last."""
    facts = {one["title"]: one for one in [found["headline"], *found["evidence"]]}
    return [
        {"title": one["title"], "fills": one["fills"], "facts": facts.get(one["title"])} for one in found["recovery"]
    ]


def _pictures(explanation: Explanation, found: dict[str, Any]) -> dict[str, PILImage.Image]:
    pictures = {
        "clean": to_picture(explanation.clean),
        "adversarial": to_picture(explanation.adversarial),
        "delta": delta_picture(explanation.delta, found["perturbation"]["magnification"]),
    }
    for evidence, facts in _with_facts(explanation, found):
        scale = Scale(**facts["scale"])
        for i, image in enumerate(_IMAGES):
            for k, cls in enumerate(_CLASSES):
                pictures[f"{file_name(evidence.method)}-{image}-{cls}"] = map_picture(evidence.maps[i, k], scale)
    return pictures


def file_name(method: str) -> str:
    """Turn a method's name with parameters into something every file system takes."""
    return "".join(c if c.isalnum() or c == "-" else "_" for c in method).strip("_")


def _data_uri(picture: PILImage.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=True, quality=60, method=3)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
