"""What the benchmark of minimal-norm attacks says of an attack is what its best setting found."""

import pytest
import torch

from benchmarks.optimality import Contestant, _compete, find_optimality

NORMS = {"long": 3.0, "short": 1.0, "none": float("inf")}


@pytest.mark.parametrize("budgets", [[300], [50, 300], [50]])
def test_what_counts_is_the_best_setting_at_the_evaluations_asked_for(tmp_path, budgets):
    contestant = Contestant("ours", {name: lambda budget, norm=norm: norm for name, norm in NORMS.items()})
    outcomes = list(_compete(contestant, lambda norm, _: torch.tensor([norm, 1.0]), tmp_path, budgets, 300))
    chosen = [(each.setting, each.budget) for each in outcomes if each.chosen]
    assert chosen == [("short", budget) for budget in sorted({300, *budgets}, reverse=True)]
    assert {each.setting for each in outcomes if each.budget == 300} == set(NORMS)


def test_what_was_found_is_not_looked_for_again(tmp_path):
    contestant = Contestant("ours", {name: lambda budget, norm=norm: norm for name, norm in NORMS.items()})
    measured = []

    def measure(norm, evaluations):
        measured.append((norm, evaluations))
        return torch.tensor([norm, 0.1])

    for budgets in ([300], [300, 50], [300, 50]):
        outcomes = list(_compete(contestant, measure, tmp_path, budgets, 300))
    assert measured == [*((norm, 300) for norm in NORMS.values()), (NORMS["short"], 50)]
    assert torch.equal(outcomes[0].norms, torch.tensor([NORMS[outcomes[0].setting], 0.1]))


def test_optimality_is_the_area_under_the_best_curve():
    best = torch.tensor([1.0, 2.0, 3.0])
    assert find_optimality(best, best) == 1
    # Clipped at 3: mean (2 + 3 + 3) / 3, best mean 2, of 3 - 2.
    assert find_optimality(torch.tensor([2.0, 3.0, float("inf")]), best) == pytest.approx(1 - 2 / 3)
