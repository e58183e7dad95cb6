"""What the pages have in common: their templates, pictures within the page, rows of maps on one scale."""

from __future__ import annotations

import base64
import html
import io
from importlib import resources
from typing import Any

import jinja2
import torch
from PIL import Image as PILImage

from whyfooled.evidence import Evidence
from whyfooled.report.pictures import Scale, map_picture
from whyfooled.report.words import percent

IMAGES = ("clean", "adversarial")
CLASSES = ("wrong", "true")


def template(name: str) -> jinja2.Template:
    """Load one of the pages' templates."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_source),
    )
    environment.filters["percent"] = percent
    environment.filters["share"] = lambda value: "–" if value is None else percent(value)
    return environment.get_template(name)


def _source(name: str) -> str:
    return resources.files("whyfooled.report").joinpath("templates", name).read_text("utf-8")


def data_uri(picture: PILImage.Image) -> str:
    """Write a picture into a page, without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=True, quality=60, method=3)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def notebook_frame(page: str) -> str:
    """Wrap a page in a frame, so that its styles and a notebook's do not mix."""
    source = html.escape(page, quote=True)
    style = "width:100%;height:900px;border:1px solid #8886"
    return f'<iframe srcdoc="{source}" style="{style}" title="whyfooled report"></iframe>'


def maps_row(evidence: Evidence, facts: dict[str, Any]) -> dict[str, Any]:
    """Prepare one method's four maps, on one scale."""
    scale = Scale(**facts["scale"])
    ramp = torch.linspace(-1 if scale.signed else 0, 1, 128).view(1, 1, -1) * scale.end
    return {
        "facts": facts,
        "maps": [
            {"image": image, "of": cls, "uri": data_uri(map_picture(evidence.maps[i, k], scale))}
            for i, image in enumerate(IMAGES)
            for k, cls in enumerate(CLASSES)
        ],
        "ramp": data_uri(map_picture(ramp, scale)),
        "low": f"{-scale.end:.2g}" if scale.signed else "0",
        "high": f"{scale.end:.2g}",
    }


def map_pictures(evidence: Evidence, facts: dict[str, Any]) -> dict[str, PILImage.Image]:
    """Draw one method's four maps, on one scale, by the names of their files."""
    scale = Scale(**facts["scale"])
    return {
        f"{file_name(evidence.method)}-{image}-{cls}": map_picture(evidence.maps[i, k], scale)
        for i, image in enumerate(IMAGES)
        for k, cls in enumerate(CLASSES)
    }


def file_name(method: str) -> str:
    """Turn a method's name with parameters into something every file system takes."""
    return "".join(c if c.isalnum() or c == "-" else "_" for c in method).strip("_")
