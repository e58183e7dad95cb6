"""A report's page, which needs nothing else: the sections that an explanation has."""

from __future__ import annotations

from typing import Any

from whyfooled.drawing.html import data_uri, template
from whyfooled.drawing.pictures import delta_picture
from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.explained import Explained
from whyfooled.explanations.report.account import sentences
from whyfooled.explanations.report.effect_view import effect_view
from whyfooled.explanations.report.evidence_view import evidence_view, glance
from whyfooled.explanations.report.recovery_figure import recovery_figure
from whyfooled.explanations.report.trust_view import trust_view
from whyfooled.explanations.report.units_view import unit_view
from whyfooled.images import to_picture


def page(explained: Explained, numbers: dict[str, Any]) -> str:
    """Write what is explained and its numbers as one HTML page without any reference to another file."""
    factor = numbers["perturbation"]["magnification"]
    effect, units, trust = explained.effect, explained.units, explained.trust
    images = {"clean": explained.clean, "adversarial": explained.adversarial}
    rows = evidence_view(explained, numbers)
    return template("whyfooled.explanations.report", "report.html.j2").render(
        numbers=numbers,
        sentences=sentences(numbers),
        clean=data_uri(to_picture(explained.clean)),
        adversarial=data_uri(to_picture(explained.adversarial)),
        delta=data_uri(delta_picture(explained.delta, factor)),
        magnification=f"{factor:,.0f}".replace(",", "\u202f") if factor >= 10 else f"{factor:.2g}",
        headline=rows[0] if rows else None,
        rows=rows[1:],
        effect=None if effect is None else effect_view(effect, numbers, images),
        units=None if units is None else unit_view(units, numbers["units"], explained.clean.shape[1:]),
        trust=None if trust is None else trust_view(trust, explained.clean, numbers["trust"]),
        glance=glance(numbers),
        curves=as_svg(recovery_figure(numbers, ink=INK)) if rows else None,
    )
