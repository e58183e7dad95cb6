"""What all figures have in common: their colours, plain panels, and PNG or SVG as text around it is coloured."""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the colour of the page's text, and is replaced by it."""

COLOURS = ("#d9480f", "#1c7ed6", "#2f9e44", "#ae3ec9", "#e8a600", "#0c8599", "#c2255c", "#5c940d")
DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (5, 1)))


PANEL_SIZE = (3.6, 2.7)
"""Width and height, in inches, of a panel that stands alone: in a fold on a phone its text is as large as around it."""
TEXT_SIZE = 10
"""Size, in points, of the smallest text of a panel of that width."""


def plain_text(name: str) -> str:
    """Keep what stands between two dollar signs from being read as mathematics."""
    return name.replace("$", r"\$")


def wrap_text(text: str, longest: int) -> str:
    """Break a text, or a name of a single word, into lines of so many characters at most, and keep dollar signs."""
    return plain_text("\n".join(textwrap.wrap(text, longest)))


def plain_panel(panel: Axes, ink: str) -> None:
    """Leave a panel two axes and a faint grid, in one colour, on no background."""
    panel.tick_params(colors=ink)
    panel.patch.set_alpha(0)
    panel.grid(alpha=0.25)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)


def as_png(figure: Figure) -> bytes:
    """Draw a figure as PNG, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


def as_file(figure: Figure, suffix: str) -> bytes:
    """Draw a figure as a file for a paper, on white, with text that stays text; the same bytes for the same figure."""
    buffer = io.BytesIO()
    dates: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix, {})
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "whyfooled"}):
        figure.savefig(buffer, format=suffix, dpi=300, facecolor="white", metadata=dates)
    return buffer.getvalue()


def as_svg(figure: Figure) -> str:
    """Draw a figure in `INK` as an SVG element whose text and lines have the colour of the text around it."""
    figure.patch.set_alpha(0)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "whyfooled"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawing = _METADATA.sub("", buffer.getvalue())
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    # Several drawings stand in one page, where no two elements may have one name.
    prefix = hashlib.blake2b(drawing.encode(), digest_size=4).hexdigest()
    return _NAMES.sub(rf"\g<before>i{prefix}-", drawing)


_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", flags=re.DOTALL)
_NAMES = re.compile(r"""(?P<before>\bid="|href="#|url\(#)""")


KIND_COLOURS = {"suppression": "#1c7ed6", "promotion": "#d9480f", "balanced": "#e8a600", "inert": "#868e96"}
