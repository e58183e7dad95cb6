"""The report's own figures, by hand."""

import pytest
import torch

from whyfooled.drawing.words import percent
from whyfooled.explanations.report.numbers import _energy_in_top, _pixels_with_half


def test_half_of_the_evidence_is_counted_from_the_strongest_pixel_down():
    maps = torch.zeros(1, 2, 2, 5)
    maps[0, 0] = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0], [0.0, -9.0, 0.0, 0.0, 0.0]])
    # 4 of 10 is too little; 4 + 3 is enough: 2 of 10 pixels. What speaks against the class does not count.
    assert _pixels_with_half(maps) == 0.2
    assert _pixels_with_half(maps + torch.zeros_like(maps)) == 0.2
    assert _pixels_with_half(-maps.clamp_min(0)) == 0


def test_even_evidence_lies_on_half_of_the_pixels():
    assert _pixels_with_half(torch.ones(1, 1, 4, 5)) == 0.5


def test_the_share_of_the_perturbation_on_the_strongest_pixels_is_of_its_square():
    delta = torch.zeros(3, 2, 5)
    delta[:, 0, 0] = torch.tensor([0.0, 3.0, 0.0])
    delta[:, 1, 4] = torch.tensor([4.0, 0.0, 0.0])
    maps = torch.zeros(1, 1, 2, 5)
    maps[0, 0, 1, 4] = 1
    assert _energy_in_top(delta, maps, 0.1) == pytest.approx(16 / 25)
    assert _energy_in_top(torch.zeros(3, 2, 5), maps, 0.1) == 0


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0 %"), (0.0004, "<0.1 %"), (0.1234, "12.3 %"), (0.9995, ">99.9 %"), (1.0, "100.0 %")],
)
def test_shares_keep_the_digits_that_matter(share, text):
    assert percent(share) == text
