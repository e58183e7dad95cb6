"""Steps to planes, by hand."""

import pytest
import torch

from whyfooled.tensors.balls import nearest_plane


def planes(*slopes):
    return torch.tensor(slopes).view(1, len(slopes), 1, 1, 2)


@pytest.mark.parametrize(("ball", "step"), [("l2", [-0.6, -0.8]), ("linf", [-5 / 7, -5 / 7])])
def test_the_step_ends_on_the_plane_along_the_way_that_the_ball_measures(ball, step):
    # 3x + 4y + 5 = 0 is 1 away in l2, and 5/7 in l-infinity.
    found = nearest_plane(torch.tensor([[5.0]]), planes([3.0, 4.0]), ball)
    torch.testing.assert_close(found.flatten(), torch.tensor(step))


def test_which_plane_is_nearest_depends_on_the_ball():
    # In l2 the first is 1.5 / sqrt(2) = 1.06 away, the second 1.2.
    gaps, slopes = torch.tensor([[1.5, 1.2]]), planes([1.0, 1.0], [1.0, 0.0])
    assert nearest_plane(gaps, slopes, "l2").flatten().tolist() == pytest.approx([-0.75, -0.75])
    # 1.27 and 1.2 in l2, but 0.9 and 1.2 in l-infinity.
    gaps = torch.tensor([[1.8, 1.2]])
    assert nearest_plane(gaps, slopes, "l2").flatten().tolist() == pytest.approx([-1.2, 0])
    assert nearest_plane(gaps, slopes, "linf").flatten().tolist() == pytest.approx([-0.9, -0.9])


def test_a_function_without_a_slope_is_never_reached():
    gaps = torch.tensor([[0.1, 5.0]])
    assert nearest_plane(gaps, planes([0.0, 0.0], [3.0, 4.0]), "l2").flatten().tolist() == pytest.approx([-0.6, -0.8])
    assert nearest_plane(gaps[:, :1], planes([0.0, 0.0]), "l2").flatten().tolist() == [0, 0]
