"""The figure of a recovery: lines, or a cell for each difference where they would be too many."""

import re

import numpy as np
import pytest

from tests.helpers.figures import assert_read_on_a_phone
from whyfooled.drawing.figures.differences import MOST_LINES
from whyfooled.drawing.style import INK, as_file, as_svg
from whyfooled.explanations.report.recovery_figure import draw_recovery
from whyfooled.saliency.recovery import RANDOM


def curve(*probability, orders=1):
    return {
        "orders": orders,
        "fraction": [0.1, 0.2],
        "probability": list(probability),
        "probability_std": [0.1, 0.1],
        "shares_right": [1] * orders,
    }


def numbers(methods=1):
    fills = ("zero", "mean", "noise", "blur")
    own = [
        {"title": f"Method {k}", "control": False, "fills": {fill: curve(0.2 + 0.05 * k, 0.6) for fill in fills}}
        for k in range(methods)
    ]
    random = {"title": RANDOM, "control": True, "fills": {fill: curve(0.3, 0.5, orders=5) for fill in fills}}
    return {"true": {"name": "oak $1 & <2> $_", "probability": {"adversarial": 0.1}}, "recovery": [*own, random]}


@pytest.mark.parametrize("methods", [1, MOST_LINES])
def test_the_figure_takes_on_the_colour_of_the_text_around_it(methods):
    drawing = as_svg(draw_recovery(numbers(methods), "zero", ink=INK))
    assert drawing.startswith("<svg")
    assert "currentColor" in drawing
    assert "#010203" not in drawing
    assert drawing == as_svg(draw_recovery(numbers(methods), "zero", ink=INK))


def test_two_drawings_in_one_page_share_no_names():
    drawings = [as_svg(draw_recovery(numbers(), fill, ink=INK)) for fill in ("zero", "blur")]
    names = [re.findall(r'\bid="([^"]+)"', drawing) for drawing in drawings]
    assert len(set(names[0])) == len(names[0]) > 5
    assert not set(names[0]) & set(names[1])
    for drawing, own in zip(drawings, names, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawing)) <= set(own)
        assert "<metadata" not in drawing


def test_there_are_eight_lines_at_most_and_then_differences_from_random_orders():
    lines = draw_recovery(numbers(MOST_LINES - 1), "zero").axes[0].get_lines()
    assert len(lines) == MOST_LINES
    assert [line.get_label() for line in lines][::7] == [
        "Method 0: 1",
        "Control: random order, 5\u00a0times\n(±\u00a01\u00a0σ): 1",
    ]
    figure = draw_recovery(numbers(MOST_LINES), "zero")
    panel = figure.axes[0]
    assert not panel.get_lines()
    shown = np.array([float(text.get_text()) for text in panel.texts]).reshape(MOST_LINES, 2)
    # In percentage points: 20 + 5 k less 30, and 60 less 50.
    assert shown[:, 0].tolist() == [5 * k - 10 for k in range(MOST_LINES)]
    assert shown[:, 1].tolist() == [10] * MOST_LINES
    assert "5 random orders" in figure.get_suptitle()


@pytest.mark.parametrize(("suffix", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_file_for_a_paper_is_the_same_each_time(suffix, start):
    figure = draw_recovery(numbers(), "zero")
    written = as_file(figure, suffix)
    assert written.startswith(start)
    assert written == as_file(draw_recovery(numbers(), "zero"), suffix)
    if suffix == "svg":
        # Letters, not their outlines: a journal's editor wants to change the font.
        assert b"Method 0" in written


def test_the_legend_says_what_it_counts_beside_what_the_axis_measures():
    figure = draw_recovery(numbers(), "zero")
    assert figure.axes[0].get_ylabel().startswith("probability of\noak")
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "and at how many of 2 shares\nit is the likeliest class:"


def test_tiny_probabilities_are_seen():
    small = numbers()
    small["true"]["probability"]["adversarial"] = 0.001
    for order in small["recovery"]:
        for of_fill in order["fills"].values():
            of_fill["probability"] = [0.002, 0.004]
    low, high = draw_recovery(small, "zero").axes[0].get_ylim()
    assert high == pytest.approx(1.02 * 1.1 * 0.004)
    assert low < 0
    assert draw_recovery(numbers(), "zero").axes[0].get_ylim() == (-0.02, 1.02)


@pytest.mark.parametrize("methods", [1, MOST_LINES - 1, MOST_LINES])
def test_on_a_phone_a_figure_s_text_is_read_and_whole(methods):
    data = numbers(methods)
    data["true"]["name"] = "a class with a name that is very long"
    data["recovery"][0]["title"] = "Enhanced guided backpropagation (norm=channel)"
    figure = draw_recovery(data, "zero")
    assert_read_on_a_phone(figure)


def test_a_tick_whose_label_would_run_into_another_has_none():
    data = numbers()
    for order in data["recovery"]:
        for one in order["fills"].values():
            one["fraction"] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
            one["probability"] = one["probability_std"] = [0.1] * 7
    labels = [label.get_text() for label in draw_recovery(data, "zero").axes[0].get_xticklabels()]
    assert labels == ["0", "0.5 %", "", "2 %", "", "10 %", "", "30 %"]
