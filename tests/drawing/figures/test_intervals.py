"""Means with intervals as marks on lines."""

import pytest

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.tensors.statistics import Interval


@pytest.mark.parametrize("name", ["bim", "bim(epsilon=0.00196078431372549, steps=10) fooled (n = 25)"])
def test_a_legend_of_long_names_is_not_cut(name):
    marks = {f"{name} {number}": Interval(0.5, 0.4, 0.6, 9) for number in range(4)}
    figure = intervals_figure({"one": {"a": marks}, "other": {"a": marks}}, x="x")
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
