"""The figure of a recovery in a page."""

from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.report.recovery_figure import draw_recovery


def test_the_figure_takes_on_the_colour_of_the_text_around_it():
    curve = {"fraction": [0.1, 0.2], "probability": [0.2, 0.6], "probability_std": [0.1, 0.1], "recovered": [0.0, 1.0]}
    fills = dict.fromkeys(("zero", "mean", "noise", "blur"), curve)
    found = {
        "true": {"name": "oak $1 & <2> $_", "probability": {"adversarial": 0.1}},
        "recovery": [
            {"title": "Gradient", "orders": 1, "fills": fills},
            {"title": "Random", "orders": 5, "fills": fills},
        ],
    }
    drawing = as_svg(draw_recovery(found, ink=INK))
    assert drawing.startswith("<svg")
    assert "currentColor" in drawing
    assert "#010203" not in drawing
    assert drawing == as_svg(draw_recovery(found, ink=INK))
