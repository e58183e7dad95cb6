"""A report's page, which needs nothing else: the sections that an explanation has."""

from __future__ import annotations

from typing import Any

from whyfooled.drawing.html import load_template, write_data_uri
from whyfooled.drawing.pictures import draw_delta
from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.explained import Explained
from whyfooled.explanations.report.account import write_sentences
from whyfooled.explanations.report.effect_view import prepare_effect
from whyfooled.explanations.report.evidence_view import prepare_evidence, prepare_glance
from whyfooled.explanations.report.recovery_figure import draw_recovery
from whyfooled.explanations.report.trust_view import prepare_trust
from whyfooled.explanations.report.units_view import prepare_units
from whyfooled.images import to_picture


def write_page(explained: Explained, numbers: dict[str, Any]) -> str:
    """Write what is explained and its numbers as one HTML page without any reference to another file."""
    factor = numbers["perturbation"]["magnification"]
    effect, units, trust = explained.effect, explained.units, explained.trust
    images = {"clean": explained.clean, "adversarial": explained.adversarial}
    rows = prepare_evidence(explained, numbers)
    return load_template("whyfooled.explanations.report", "report.html.j2").render(
        numbers=numbers,
        sentences=write_sentences(numbers),
        clean=write_data_uri(to_picture(explained.clean)),
        adversarial=write_data_uri(to_picture(explained.adversarial)),
        delta=write_data_uri(draw_delta(explained.delta, factor)),
        magnification=f"{factor:,.0f}".replace(",", "\u202f") if factor >= 10 else f"{factor:.2g}",
        headline=rows[0] if rows else None,
        rows=rows[1:],
        effect=None if effect is None else prepare_effect(effect, numbers, images),
        units=None if units is None else prepare_units(units, numbers["units"], explained.clean.shape[1:]),
        trust=None if trust is None else prepare_trust(trust, explained.clean, numbers["trust"]),
        glance=prepare_glance(numbers),
        curves=as_svg(draw_recovery(numbers, ink=INK)) if rows else None,
    )
