"""Recovery on a page: its figures, and a table that puts each order beside its other numbers."""

from __future__ import annotations

from typing import Any

from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.report.recovery import write_whole
from whyfooled.explanations.report.recovery_figure import FILL_TITLES, draw_recovery
from whyfooled.saliency.recovery import VERDICT_FILL


def prepare_recovery(numbers: dict[str, Any]) -> dict[str, Any] | None:
    """Prepare what a page shows of recovery; None where none was measured."""
    if not numbers.get("recovery"):
        return None
    fills = list(numbers["recovery"][0]["fills"])
    figures = [
        {"title": f"pixels become {FILL_TITLES.get(fill, fill)}", "svg": as_svg(draw_recovery(numbers, fill, INK))}
        for fill in sorted(fills, key=lambda fill: (fill != VERDICT_FILL, fill))
    ]
    return {
        "figures": figures,
        "blurs": "blur" in fills,
        "points": len(numbers["recovery"][0]["fills"][VERDICT_FILL]["fraction"]),
        "rows": _list_rows(numbers),
    }


def _list_rows(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """List every order with its figures where pixels are made black, the controls last."""
    facts = {method["title"]: method for method in [numbers["headline"], *numbers["evidence"]]}
    rows = []
    for order in numbers["recovery"]:
        curve = order["fills"][VERDICT_FILL]
        counts = curve["shares_right"]
        rows.append(
            {
                "title": order["title"],
                "right": write_whole(sum(counts) / len(counts)),
                "probability": curve["mean_probability"],
                "facts": facts.get(order["title"]),
            }
        )
    return rows
