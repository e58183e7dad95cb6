"""What the pages have in common: their templates, pictures within the page, and a frame in notebooks."""

from __future__ import annotations

import base64
import html
import io

import jinja2
from PIL import Image as PILImage

from whyfooled.drawing.words import percent


def load_template(package: str, name: str) -> jinja2.Template:
    """Load a template of a package, whose own templates come before those that all pages share."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("whyfooled.drawing")]),
    )
    environment.filters["percent"] = percent
    environment.filters["share"] = lambda value: "–" if value is None else percent(value)
    return environment.get_template(name)


def write_data_uri(picture: PILImage.Image) -> str:
    """Write a picture into a page, without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=True, quality=60, method=3)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def wrap_for_notebook(page: str) -> str:
    """Wrap a page in a frame, so that its styles and a notebook's do not mix."""
    source = html.escape(page, quote=True)
    style = "width:100%;height:900px;border:1px solid #8886"
    return f'<iframe srcdoc="{source}" style="{style}" title="whyfooled report"></iframe>'
