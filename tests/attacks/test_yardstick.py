"""What margins are measured by: values by hand, and what a scale and a shift of the logits leave as it is."""

import pytest
import torch

from whyfooled import Targeted, Untargeted
from whyfooled.attacks._yardstick import Yardstick, find_safe_margin

CLEAN = torch.tensor([[4.0, 1.0, 2.0], [0.0, -3.0, -1.0]])
LATER = torch.tensor([[2.0, 1.5, 2.5], [0.5, 0.0, -1.0]])
FIRST = torch.tensor([0, 0])


def test_the_clean_margin_is_the_unit():
    yardstick = Yardstick.of(Untargeted(FIRST), CLEAN, 0.0, 0.0)
    assert yardstick.unit.tolist() == [2, 1]
    assert yardstick.passed.tolist() == pytest.approx([1e-3, 1e-3])
    assert yardstick.needed.tolist() == pytest.approx([1.001, 1.001])
    # -0.5 of 2, and 0.5 of 1.
    assert yardstick.missing(Untargeted(FIRST), LATER).tolist() == pytest.approx([-0.249, 0.501])


def test_a_target_is_measured_by_what_it_lacks():
    goal = Targeted(torch.tensor([1, 1]))
    yardstick = Yardstick.of(goal, CLEAN, 0.0, 0.0)
    assert yardstick.unit.tolist() == [3, 3]
    assert yardstick.missing(goal, LATER).tolist() == pytest.approx([1 / 3 + 1e-3, 0.5 / 3 + 1e-3])


def test_confidence_is_in_logits():
    yardstick = Yardstick.of(Untargeted(FIRST), CLEAN, 0.5, 0.0)
    assert yardstick.passed.tolist() == [0.25, 0.5]
    assert yardstick.safe.tolist() == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize("goal", [Untargeted(FIRST), Targeted(torch.tensor([1, 1]))])
def test_softened_it_is_the_logarithm_of_a_sum_over_the_others(goal):
    yardstick = Yardstick.of(goal, CLEAN, 0.0, 0.0)
    aimed = isinstance(goal, Targeted)
    for row in range(2):
        unit, others = float(yardstick.unit[row]), [0, 2] if aimed else [1, 2]
        mixed = sum(torch.exp(LATER[row, other].double() / (0.1 * unit)) for other in others).log() * 0.1 * unit
        margin = mixed - LATER[row, 1] if aimed else LATER[row, 0] - mixed
        expected = float(margin) / unit + 1e-3
        assert float(yardstick.softened(goal, LATER)[row]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e6, 1e30])
def test_a_scale_of_the_logits_changes_nothing(factor):
    goal = Untargeted(FIRST)
    usual, scaled = Yardstick.of(goal, CLEAN, 0.0, 0.0), Yardstick.of(goal, factor * CLEAN, 0.0, 0.0)
    torch.testing.assert_close(scaled.passed, usual.passed)
    torch.testing.assert_close(scaled.missing(goal, factor * LATER), usual.missing(goal, LATER))
    torch.testing.assert_close(scaled.softened(goal, factor * LATER), usual.softened(goal, LATER))
    torch.testing.assert_close(scaled.unit, factor * usual.unit)


def test_what_rounding_could_undo_is_not_believed():
    # Of logits near 1024 single precision keeps the fourth decimal, so that a thousandth of the margin is no sign.
    logits = 1024 + torch.tensor([[0.0, 0.01]])
    safe = float(find_safe_margin(torch.tensor([0.01]), logits))
    assert safe == pytest.approx(16 * 2**-23 * 1024.01)
    assert find_safe_margin(torch.tensor([5.0]), logits).tolist() == pytest.approx([5e-3])


def test_logits_that_are_all_equal_give_a_unit_too():
    for logits in (torch.zeros(1, 3), torch.full((1, 3), 7.0)):
        yardstick = Yardstick.of(Untargeted(torch.tensor([0])), logits, 0.0, 0.0)
        assert yardstick.missing(Untargeted(torch.tensor([0])), logits).isfinite().all()
