"""What the benchmark of minimal-norm attacks says of an attack is what its best setting found."""

import pytest
import torch

from benchmarks import optimality
from benchmarks.optimality import Contestant, find_optimality


@pytest.mark.parametrize("budgets", [[300], [50, 300], [50]])
def test_what_counts_is_the_best_setting_at_the_evaluations_asked_for(monkeypatch, budgets):
    norms = {"long": 3.0, "short": 1.0, "none": float("inf")}
    monkeypatch.setattr(optimality, "_measure", lambda attack, *rest: torch.tensor([attack, 1.0]))
    contestant = Contestant("ours", {name: lambda budget, norm=norm: norm for name, norm in norms.items()})
    outcomes = list(optimality._compete(contestant, None, None, None, 1, budgets, 300))
    chosen = [(each.setting, each.budget) for each in outcomes if each.chosen]
    assert chosen == [("short", budget) for budget in sorted({300, *budgets}, reverse=True)]
    assert {each.setting for each in outcomes if each.budget == 300} == set(norms)


def test_optimality_is_the_area_under_the_best_curve():
    best = torch.tensor([1.0, 2.0, 3.0])
    assert find_optimality(best, best) == 1
    # Clipped at 3: mean (2 + 3 + 3) / 3, best mean 2, of 3 - 2.
    assert find_optimality(torch.tensor([2.0, 3.0, float("inf")]), best) == pytest.approx(1 - 2 / 3)
