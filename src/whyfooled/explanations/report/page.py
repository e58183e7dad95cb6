"""A report's page, which needs nothing else: the verdicts first, then the sections that an explanation has."""

from __future__ import annotations

from typing import Any

from whyfooled.drawing.html import load_template, write_data_uri
from whyfooled.drawing.pictures import draw_delta
from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.explained import Explained
from whyfooled.explanations.report.account import write_perturbation
from whyfooled.explanations.report.checks import prepare_checks
from whyfooled.explanations.report.detection import QUESTION, write_detection_sentences
from whyfooled.explanations.report.effect_view import prepare_effect
from whyfooled.explanations.report.evidence import write_evidence_sentences
from whyfooled.explanations.report.evidence_view import prepare_evidence
from whyfooled.explanations.report.forgery_view import prepare_forgery
from whyfooled.explanations.report.named import write_named_sentences
from whyfooled.explanations.report.named_view import draw_named
from whyfooled.explanations.report.recovery_view import prepare_recovery
from whyfooled.explanations.report.trust_view import prepare_trust
from whyfooled.explanations.report.units_account import write_unit_sentences
from whyfooled.explanations.report.units_view import prepare_units
from whyfooled.explanations.report.verdict import (
    is_off_target,
    list_next_steps,
    name_first_class,
    write_happened,
    write_trusted,
)
from whyfooled.images import to_picture
from whyfooled.perturbation.named_effect import NamedEffect

SMALL = 100
"""Side in pixels under which pictures are enlarged without smoothing, so that pixels stay pixels. [ours]"""


def write_page(explained: Explained, numbers: dict[str, Any]) -> str:
    """Write what is explained and its numbers as one HTML page without any reference to another file."""
    factor = numbers["perturbation"]["magnification"]
    effect, units, trust, forgery = explained.effect, explained.units, explained.trust, explained.forgery
    rows = prepare_evidence(explained, numbers)
    names = (numbers["true"]["name"], numbers["wrong"]["name"])
    return load_template("whyfooled.explanations.report", "report.html.j2", scripts=("report.js",)).render(
        numbers=numbers,
        small=min(explained.clean.shape[1:]) < SMALL,
        verdicts=[verdict for verdict in (write_happened(numbers), write_trusted(numbers)) if verdict is not None],
        off_target=is_off_target(numbers),
        steps=list_next_steps(numbers),
        first_class=name_first_class(numbers),
        added=write_perturbation(numbers),
        clean=write_data_uri(to_picture(explained.clean)),
        adversarial=write_data_uri(to_picture(explained.adversarial)),
        delta=write_data_uri(draw_delta(explained.delta, factor)),
        magnification=f"{factor:,.0f}".replace(",", "\u202f") if factor >= 10 else f"{factor:.2g}",
        headline=rows[0] if rows else None,
        rows=rows[1:],
        evidence=write_evidence_sentences(numbers) if rows else [],
        effect=None if effect is None else prepare_effect(effect, numbers, explained.clean, explained.delta),
        units=None if units is None else prepare_units(units, numbers["units"], explained.clean.shape[1:]),
        unit_sentences=[] if units is None else write_unit_sentences(numbers["units"], *names),
        named=None if explained.named is None else _prepare_named(explained, explained.named, numbers),
        trust=None if trust is None else prepare_trust(trust, explained.clean, numbers["trust"]),
        checks=prepare_checks(numbers["checks"]) if "checks" in numbers else None,
        forgery=None if forgery is None else prepare_forgery(forgery, numbers["forgery"]),
        detection=_prepare_detection(numbers),
        recovery=prepare_recovery(numbers),
    )


def _prepare_detection(numbers: dict[str, Any]) -> dict[str, Any] | None:
    """Prepare what a page shows of a detector."""
    if "detection" not in numbers:
        return None
    return {
        "question": QUESTION,
        "sentences": write_detection_sentences(numbers["detection"], numbers["wrong"]["name"]),
    }


def _prepare_named(explained: Explained, named: NamedEffect, numbers: dict[str, Any]) -> dict[str, Any]:
    """Prepare what a page shows of regions with names."""
    return {
        "sentences": write_named_sentences(numbers["named"], numbers["true"]),
        "figure": {"title": "the named regions", "svg": as_svg(draw_named(named, explained.clean, INK))},
    }
