"""The figure known from network dissection: how many units of each layer detect each concept."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from whyfooled.drawing.style import COLOURS, plain_panel, plain_text
from whyfooled.units.dissection.results import DissectedLayer, DissectionRecord
from whyfooled.units.dissection.summary import count_detectors_by_chance

MOST_LAYERS = 12
MOST_CONCEPTS = 40
"""How many layers, the last ones, and how many concepts of each, the most often detected, are drawn. [ours]"""

_CHANCE = "#868e96"
_LONGEST = 28
"""How many letters of a name are written."""


def choose_colours(categories: tuple[str, ...]) -> dict[str, str]:
    """Give each category a colour."""
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(categories)}


def _shorten(name: str) -> str:
    """Shorten a name that would leave its panel no room."""
    return plain_text(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…")


def draw_dissection(dissection: DissectionRecord, ink: str = "black") -> Figure:
    """Draw a row for each layer: its detectors beside chance's, and its units by the concept that they detect."""
    layers = dissection.layers[-MOST_LAYERS:]
    colours = choose_colours(dissection.categories)
    figure = Figure(figsize=(11.0, 2.7 * len(layers) + 0.5), layout="constrained")
    panels = figure.subplots(len(layers), 2, squeeze=False, width_ratios=[1, 7])
    for (left, right), dissected in zip(panels, layers, strict=True):
        _draw_chance(left, dissection, dissected, ink)
        _draw_concepts(right, dissection, dissected, colours, ink)
    used = {dissection.categories[of] for one in layers for of in _list_categories(dissection, one)}
    handles = [Patch(color=colour, label=_shorten(name)) for name, colour in colours.items() if name in used]
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=min(8, len(handles)), frameon=False,
                      fontsize=9, labelcolor=ink)  # fmt: skip
    return figure


def _list_categories(dissection: DissectionRecord, dissected: DissectedLayer) -> list[int]:
    return [dissection.category_of[index] for index in dissected.best[dissected.detectors(dissection.cutoff)].tolist()]


def _draw_chance(panel: Axes, dissection: DissectionRecord, dissected: DissectedLayer, ink: str) -> None:
    """Draw a bar for the layer's detectors and one for chance's, with their range."""
    chance = count_detectors_by_chance(dissected, dissection.cutoff)
    bars = [(float(chance.observed), f"{chance.observed}", ink)]
    if len(chance.counts):
        bars.append((chance.mean, f"{chance.mean:.1f}", _CHANCE))
        panel.plot([1, 1], [int(chance.counts.min()), int(chance.counts.max())], color=ink, linewidth=1.2)
    for place, (height, text, colour) in enumerate(bars):
        panel.bar(place, height, width=0.7, color=colour)
        top = max(height, int(chance.counts.max()) if place else 0)
        panel.annotate(text, (place, top), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8,
                       color=ink)  # fmt: skip
    plain_panel(panel, ink)
    panel.grid(visible=False, axis="x")
    panel.set_xticks(range(len(bars)), ["found", "by chance"][: len(bars)], fontsize=8)
    panel.set_xlim(-0.6, 1.6)
    panel.set_ylim(0, 1.15 * max(1, chance.observed, *chance.counts.tolist()))
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.set_title("detectors", fontsize=9, color=ink, loc="left")
    panel.tick_params(axis="y", labelsize=8)


def _draw_concepts(
    panel: Axes, dissection: DissectionRecord, dissected: DissectedLayer, colours: dict[str, str], ink: str
) -> None:
    """Draw a bar for each concept, the categories one after the other, each by how many units detect it."""
    concepts, counts = torch.unique(dissected.best[dissected.detectors(dissection.cutoff)], return_counts=True)
    by_count = sorted(zip(concepts.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])
    bars = sorted(by_count[:MOST_CONCEPTS], key=lambda pair: dissection.category_of[pair[0]])
    for place, (concept, count) in enumerate(bars):
        panel.bar(place, count, width=0.8, color=colours[dissection.categories[dissection.category_of[concept]]])
    plain_panel(panel, ink)
    panel.grid(visible=False, axis="x")
    names = [_shorten(dissection.concepts[concept]) for concept, _ in bars]
    panel.set_xticks(range(len(bars)), names, fontsize=8, rotation=90)
    # So that few bars are no wider than many.
    panel.set_xlim(-0.7, max(len(bars), 24) - 0.3)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.tick_params(axis="y", labelsize=8)
    panel.set_ylim(bottom=0, top=None if bars else 1)
    shown = f", the {len(bars)} most often detected" if len(by_count) > len(bars) else ""
    title = f"{dissected.layer.name}: units that detect each of {len(by_count)} concepts{shown}"
    panel.set_title(plain_text(title), fontsize=9, color=ink, loc="left")
