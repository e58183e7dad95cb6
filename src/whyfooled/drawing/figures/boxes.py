"""Box plots: how values spread over images, with controls beside each box and its chance level drawn through them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from whyfooled.drawing.figures.curves import GREY
from whyfooled.drawing.style import COLOURS, plain_text


@dataclass(frozen=True, eq=False)
class Box:
    """The values of a box, those of its controls by their names, and what chance would give on average."""

    values: np.ndarray
    controls: Mapping[str, np.ndarray]
    chance: float


Boxes = Mapping[str, Mapping[str, Mapping[str, Box]]]
"""For each panel, for each group on its axis, a box for each name; a name has one colour throughout."""


def boxes_figure(panels: Boxes, *, y: str, chance: str) -> Figure:
    """Draw groups of boxes from 0 to 1 (quartiles; whiskers at 5 % and 95 %), a panel below another for each entry.

    Parameters
    ----------
    panels
        For each title, the groups and their boxes.
    y
        What the values are.
    chance
        What the line through a box and its controls is.
    """
    names = list(dict.fromkeys(name for groups in panels.values() for boxes in groups.values() for name in boxes))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    controls = dict.fromkeys(
        name
        for groups in panels.values()
        for boxes in groups.values()
        for box in boxes.values()
        for name in box.controls
    )
    groups = list(dict.fromkeys(group for of_panel in panels.values() for group in of_panel))
    width = max(6.0, 1.2 + len(groups) * (0.5 + 0.55 * len(names)))
    figure = Figure(figsize=(width, 3.0 * len(panels) + 0.6), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    step = 0.86 / len(names)
    for panel, (heading, boxes) in zip(axes, panels.items(), strict=True):
        for place, group in enumerate(groups):
            for number, name in enumerate(names):
                if name in boxes.get(group, {}):
                    _box(panel, place + step * (number - (len(names) - 1) / 2), step, boxes[group][name], colours[name])
        panel.set_title(plain_text(heading), fontsize=10)
        panel.set_ylabel(y, fontsize=9)
        panel.set_ylim(-0.02, 1.02)
        panel.grid(axis="y", alpha=0.25)
    axes[-1].set_xlim(-0.5, len(groups) - 0.5)
    axes[-1].set_xticks(range(len(groups)), [plain_text(textwrap.fill(group, 28)) for group in groups], fontsize=8)
    handles = [
        *(Patch(facecolor=colours[name], alpha=0.75, label=plain_text(name)) for name in names),
        *(Patch(facecolor=grey, alpha=0.75, label=name) for name, grey in zip(controls, _GREYS, strict=False)),
        Line2D([], [], color="black", linewidth=0.8, label=chance),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), frameon=False, fontsize=8)
    return figure


_GREYS = (GREY, "#343a40")


def _box(panel: Axes, place: float, step: float, box: Box, colour: str) -> None:
    parts = [(box.values, place - 0.18 * step, 0.44 * step, colour)]
    for number, (values, grey) in enumerate(zip(box.controls.values(), _GREYS, strict=False)):
        parts.append((values, place + (0.16 + 0.2 * number) * step, 0.14 * step, grey))
    for values, centre, width, fill in parts:
        panel.boxplot(
            [values],
            positions=[centre],
            widths=[width],
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": fill, "alpha": 0.75, "linewidth": 0.6},
            medianprops={"color": "white", "linewidth": 1.2},
            whiskerprops={"color": fill, "linewidth": 1.0},
            capprops={"color": fill, "linewidth": 1.0},
        )
    panel.plot([place - 0.45 * step, place + 0.45 * step], [box.chance] * 2, color="black", linewidth=0.8, zorder=1)
