"""A perturbation's effect in pictures: for a page, and for a folder."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from whyfooled.drawing.html import write_data_uri
from whyfooled.drawing.pictures import draw_heat
from whyfooled.drawing.shapes import place_labels, write_path
from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.report.effect import KIND_WORDS, write_overlap_with_maps, write_place_sentences
from whyfooled.explanations.report.effect_figure import draw_effects, draw_ratios
from whyfooled.explanations.report.evidence_view import prepare_maps
from whyfooled.explanations.report.region_picture import (
    DRAWN_KINDS,
    PALETTES,
    DrawnRegion,
    draw_grey,
    draw_heat_ramp,
    draw_regions,
    draw_sizes,
    end_of_sizes,
    list_drawn_regions,
    measure_sizes,
    trace_kinds,
    write_end_of_sizes,
)
from whyfooled.perturbation import Sensitivity
from whyfooled.perturbation.effect import Effect
from whyfooled.types import Image

TABLED = 10
"""How many of the strongest regions a page lists, and numbers on the picture."""


def prepare_effect(effect: Effect, numbers: dict[str, Any], clean: Image, delta: Image) -> dict[str, Any]:
    """Prepare what a page shows of an effect.

    Parameters
    ----------
    effect
        What the perturbation does.
    numbers
        The numbers of the page, the effect's among them.
    clean, delta
        (c,h,w) The image before, and what was added.
    """
    facts = numbers["effect"]
    names = (numbers["true"]["name"], numbers["wrong"]["name"])
    sensitivity, sizes = effect.sensitivity, measure_sizes(delta)
    drawn = list_drawn_regions(sensitivity)
    shown_already = {one["method"] for one in [numbers.get("headline"), *numbers.get("evidence", [])] if one}
    return {
        "sentences": write_place_sentences(facts, *names),
        "overlap": write_overlap_with_maps(facts["cam"], *names),
        "height": clean.shape[1],
        "width": clean.shape[2],
        "grey": write_data_uri(draw_grey(clean)),
        "heat": write_data_uri(draw_heat(sizes, end_of_sizes(sizes), clean)),
        "heat_ramp": write_data_uri(draw_heat_ramp()),
        "heat_end": write_end_of_sizes(sizes),
        "shapes": [
            {"path": write_path(region.loops), "kind": region.kind, "opacity": f"{region.opacity:.2f}", "says": says}
            for region, says in zip(drawn, _describe_regions(drawn, sensitivity, names), strict=True)
        ],
        "labels": _place_numbers(drawn[:TABLED], sensitivity, clean),
        "outlines": {kind: write_path(loops) for kind, loops in trace_kinds(sensitivity).items()},
        "words": KIND_WORDS,
        "strongest": [
            _list_numbers(one.region, sensitivity) | {"kind": KIND_WORDS[one.kind]} for one in drawn[:TABLED]
        ],
        "palettes": [
            {"name": name, "kinds": [(kind, *getattr(palette, kind)) for kind in DRAWN_KINDS]}
            for name, palette in PALETTES.items()
        ],
        "figures": [
            {"title": "what each region does to the two logits", "svg": as_svg(draw_effects(sensitivity, *names, INK))},
            {
                "title": "how much each region lifts, over how much it holds down",
                "svg": as_svg(draw_ratios(sensitivity, INK)),
            },
        ],
        "row": None
        if effect.cams is None or effect.cams.method in shown_already
        else prepare_maps(effect.cams, facts["cam"]),
    }


def _describe_regions(drawn: list[DrawnRegion], sensitivity: Sensitivity, names: tuple[str, str]) -> list[str]:
    """Say each drawn region's numbers in a line."""
    lines = []
    for rank, region in enumerate(drawn, start=1):
        facts = _list_numbers(region.region, sensitivity)
        lines.append(
            f"Region {region.region}, number {rank} of {len(drawn)} by effect, {KIND_WORDS[region.kind]}: {names[0]} "
            f"{facts['true']:+.3f}, {names[1]} {facts['wrong']:+.3f} (logits); perturbation ℓ2 {facts['l2']:.3g}, "
            f"ℓ∞ {255 * facts['linf']:.2f}/255"
        )
    return lines


def _place_numbers(drawn: list[DrawnRegion], sensitivity: Sensitivity, clean: Image) -> list[dict[str, Any]]:
    """Say where the listed regions' numbers stand on the picture, and how large they are written."""
    regions, longer = [region.region for region in drawn], max(clean.shape[1:])
    places = place_labels(sensitivity.labels[0].cpu().numpy(), regions)
    labels = []
    for region, (x, y) in zip(drawn, places, strict=True):
        across = [corner[0] for loop in region.loops for corner in loop]
        fitting = (max(across) - min(across)) / (_DIGIT * len(str(region.region)))
        size = min(max(fitting, _SMALLEST * longer), _LARGEST * longer)
        labels.append({"region": region.region, "x": f"{x:.2f}", "y": f"{y + 0.36 * size:.2f}", "size": f"{size:.2f}"})
    return labels


_DIGIT = 0.8
"""How wide a digit is beside its height, with some room between the numbers of neighbours."""
_SMALLEST, _LARGEST = 0.025, 0.042
"""How high a region's number is, of the picture's longer side: what a phone shows in nine pixels, and in fourteen."""


def _list_numbers(region: int, sensitivity: Sensitivity) -> dict[str, Any]:
    return {
        "region": region,
        "true": float(sensitivity.true_change[0, region]),
        "wrong": float(sensitivity.target_change[0, region]),
        "l2": float(sensitivity.l2[0, region]),
        "linf": float(sensitivity.linf[0, region]),
    }


def draw_effect_figures(effect: Effect, numbers: dict[str, Any], clean: Image, delta: Image) -> dict[str, Figure]:
    """Draw the regions in every palette, the size of the perturbation and both panels, by the names of their files."""
    names = (numbers["true"]["name"], numbers["wrong"]["name"])
    return {
        **{f"regions-{name}": draw_regions(effect.sensitivity, clean, palette) for name, palette in PALETTES.items()},
        "perturbation-size": draw_sizes(delta, clean),
        "effect": draw_effects(effect.sensitivity, *names),
        "ratio": draw_ratios(effect.sensitivity),
    }
