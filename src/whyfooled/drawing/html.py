"""What the pages have in common: their templates, pictures within the page, and a frame in notebooks."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence

import jinja2
from markupsafe import Markup
from PIL import Image as PILImage

from whyfooled.drawing.words import by_number, counted, percent, tied


def load_template(package: str, name: str, *, scripts: Sequence[str] = (), pictures: str = "") -> jinja2.Template:
    """Load a template of a package, whose own templates come before those that all pages share.

    The page that it makes runs the given scripts, and shows the pictures that are within it. Its content policy lets
    the browser run and load nothing else, whatever a class or a file is called.

    Parameters
    ----------
    package, name
        The package, and the template's name in it.
    scripts
        The names of the page's scripts, which lie beside the template; they run after the one that all pages share.
    pictures
        From where else it may load pictures: sources of a content policy.
    """
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("whyfooled.drawing")])
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=loader,
    )
    environment.filters["percent"] = percent
    environment.filters["tied"] = tied
    environment.filters["counted"] = counted
    environment.filters["by_number"] = by_number
    environment.filters["share"] = lambda value: "–" if value is None else percent(value)
    parts = [loader.get_source(environment, script)[0] for script in ("wide.js", *scripts)]
    script = "\n".join(['"use strict";', *parts])
    policy = _write_policy(script, pictures)
    return environment.get_template(name, globals={"script": Markup(script), "policy": policy})


def _write_policy(script: str, pictures: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src {f'data: {pictures}'.rstrip()}; base-uri 'none'; form-action 'none'"
    )


def write_data_uri(picture: PILImage.Image, *, lossless: bool = True) -> str:
    """Write a picture into a page, without loss unless it is only to be recognised."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=lossless, quality=60, method=1)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def wrap_for_notebook(page: str) -> str:
    """Wrap a page in a frame, so that its styles and a notebook's do not mix, and neither its script and a notebook."""
    source = html.escape(page, quote=True)
    style = "width:100%;height:900px;border:1px solid #8886"
    return f'<iframe sandbox="allow-scripts" srcdoc="{source}" style="{style}" title="whyfooled report"></iframe>'
