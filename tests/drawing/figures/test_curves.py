"""Curves stand side by side where their intervals would hide each other, and become differences where they are many."""

import pytest

from whyfooled.drawing.figures.curves import curves_figure, looks
from whyfooled.drawing.figures.differences import MOST_LINES
from whyfooled.tensors.statistics import Interval

PLACES = (0.1, 0.2)


def curve(*means):
    return [
        (place, Interval(mean, mean - 0.1, mean + 0.1, 9)) for place, mean in zip(PLACES, means, strict=True)
    ]  # fmt: skip


def panels(methods):
    curves = {f"Method {k}": curve(0.5, 0.5 + 0.01 * k) for k in range(methods)}
    return {"black": {**curves, "Random order": curve(0.4, 0.6)}}


def test_no_two_intervals_share_a_place():
    panel = curves_figure(panels(MOST_LINES - 1), x="share", y="right", references=["Random order"]).axes[0]
    whiskers = [line.get_xdata()[0] for line in panel.get_lines() if len(set(line.get_xdata())) == 1]
    assert len(whiskers) == 2 * MOST_LINES
    gaps = [after / before for before, after in zip(sorted(whiskers)[:-1], sorted(whiskers)[1:], strict=True)]
    assert min(gaps) > 1.02
    # And none has wandered to the next place.
    assert sorted(whiskers)[MOST_LINES - 1] < (PLACES[0] * PLACES[1]) ** 0.5 < sorted(whiskers)[MOST_LINES]


def test_more_than_eight_lines_become_differences_from_the_first_reference():
    figure = curves_figure(panels(MOST_LINES), x="share", y="right", references=["Random order"])
    panel = figure.axes[0]
    assert not panel.get_lines()
    shown = [int(text.get_text()) for text in panel.texts]
    assert shown == [difference for k in range(MOST_LINES) for difference in (10, k - 10)]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == [f"Method {k}" for k in range(MOST_LINES)]
    assert figure.get_suptitle() == "right, less that of random order, in percentage points"


@pytest.mark.parametrize("methods", [MOST_LINES, MOST_LINES + 3])
def test_without_a_reference_there_is_nothing_to_subtract(methods):
    assert curves_figure(panels(methods), x="share", y="right").axes[0].get_lines()


def test_all_references_and_all_others_look_different():
    names = ["a", "b", "chance", "each", "another"]
    assert len(set(looks(names, ["chance", "each", "another"]).values())) == 5
