"""Grids of pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image as PILImage


@dataclass(frozen=True)
class Line:
    """A row of pictures in a grid: what it is, at its left, and each picture with the heading of its column."""

    label: str
    tiles: Sequence[tuple[str, PILImage.Image]]


def tiles_figure(blocks: Sequence[tuple[str, Sequence[Line]]]) -> Figure:
    """Draw titled blocks of rows of pictures, one below the other; the labels have a column of their own."""
    columns = max(len(line.tiles) for _, block in blocks for line in block)
    rows = sum(len(block) for _, block in blocks)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(1.5 * columns + 1.4, 1.55 * rows + 0.7 * len(blocks)), layout=layout)
    parts = figure.subfigures(len(blocks), 1, height_ratios=[len(block) for _, block in blocks], squeeze=False)[:, 0]
    for part, (title, block) in zip(parts, blocks, strict=True):
        part.suptitle(f"{title}\n", fontsize=9, x=0.01, ha="left", parse_math=False)
        axes = part.subplots(len(block), columns + 1, squeeze=False, width_ratios=[0.9, *[1] * columns])
        for (beside, *panels), line in zip(axes, block, strict=True):
            for panel in (beside, *panels):
                panel.set_axis_off()
            label = "\n".join(textwrap.fill(text, 18) for text in line.label.split("\n") if text)
            beside.text(
                0.95, 0.5, label, transform=beside.transAxes, ha="right", va="center", fontsize=7, parse_math=False
            )
            for panel, (heading, picture) in zip(panels, line.tiles, strict=False):
                panel.imshow(picture)
                if line is block[0]:
                    panel.set_title(textwrap.fill(heading, 20), fontsize=7, parse_math=False)
    return figure
