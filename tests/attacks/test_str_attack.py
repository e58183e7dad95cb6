"""StrAttack: its grid against slow loops, its search and its refinement against closed forms."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import pytest
import torch
from torch import Tensor

from tests.helpers.models import linear, small
from whyfooled import StrAttack, Targeted, Untargeted, run_attack
from whyfooled.attacks.str_attack import _Grid
from whyfooled.errors import ParameterError

SIDE = 16


def starts(side, size, stride):
    """List where cells begin along one side: until the image is covered."""
    found = [0]
    while found[-1] + size < side:
        found.append(found[-1] + stride)
    return found


def cells_of(images, size, stride):
    """Cut out the cells one by one: row by row, cut off at the edge."""
    rows, columns = (starts(side, size, stride) for side in images.shape[2:])
    return [images[:, :, top : top + size, left : left + size] for top, left in itertools.product(rows, columns)]


def loop_norms(delta, size, stride):
    return torch.stack([cell.square().sum((1, 2, 3)).sqrt() for cell in cells_of(delta, size, stride)], 1)


def loop_support(delta, size, stride):
    kept, zeroed = torch.zeros_like(delta, dtype=torch.bool), torch.zeros_like(delta, dtype=torch.bool)
    pairs = zip(cells_of(kept, size, stride), cells_of(zeroed, size, stride), strict=True)
    for cell, (in_kept, in_zeroed) in zip(cells_of(delta, size, stride), pairs, strict=True):
        nonzero = (cell != 0).flatten(1).any(1)
        in_kept[nonzero] = True
        in_zeroed[~nonzero] = True
    return kept & ~zeroed


GRIDS = pytest.mark.parametrize(
    ("size", "stride", "height", "width"),
    [
        (4, 4, 8, 8),
        (4, 4, 9, 11),
        (5, 5, 3, 4),
        (13, 13, 8, 20),
        (1, 1, 3, 5),
        (5, 3, 8, 8),
        (4, 2, 9, 7),
        (4, 1, 6, 5),
        (3, 5, 8, 9),
        (2, 3, 7, 7),
    ],
)


def noise(n, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, height, width, generator=generator, dtype=torch.float64)


@GRIDS
def test_putting_cells_back_is_the_adjoint_of_cutting_them(size, stride, height, width):
    grid, images = _Grid(size, stride), noise(2, height, width)
    cut = grid.cut(images)
    cells = torch.randn(cut.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close((cut * cells).sum(), (images * grid.sum(cells, images)).sum())


@GRIDS
def test_every_pixel_comes_back_once_for_each_cell_that_it_is_in(size, stride, height, width):
    grid, images = _Grid(size, stride), noise(2, height, width)
    times = torch.zeros_like(images)
    for cell in cells_of(times, size, stride):
        cell += 1
    if size == stride:
        assert (times == 1).all()
        assert torch.equal(grid.sum(grid.cut(images), images), images)
    torch.testing.assert_close(grid.sum(grid.cut(images), images), images * times)


@GRIDS
def test_cells_and_norms_are_those_of_a_slow_loop(size, stride, height, width):
    grid = _Grid(size, stride)
    delta = noise(6, height, width)
    # Few pixels, so that some cells are zero; one image without any, one with all of them.
    delta[1:] *= torch.rand(5, 1, height, width, generator=torch.Generator().manual_seed(2)) < 0.06
    delta[1] = 0
    expected = loop_norms(delta, size, stride)
    assert grid.cut(delta).shape == (6, 3 * size * size, expected.shape[1])
    torch.testing.assert_close(grid.norms(delta), expected)


def test_a_cell_holds_its_channels_and_pixels_in_order():
    images = torch.arange(3 * 4 * 6, dtype=torch.float64).view(1, 3, 4, 6)
    cells = _Grid(2, 2).cut(images)
    assert torch.equal(cells[0, :, 4], images[0, :, 2:4, 2:4].flatten())


# On linear classifiers


def strong_cells(n=4, seed=1):
    """Make a linear classifier whose cells of 4 x 4 pixels differ in strength, and images far from the bounds.

    Returns it, the images, their labels, the weights (n,3,16,16) towards the other class, and the margins (n,).
    """
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(4, 4, generator=generator).repeat_interleave(4, 0).repeat_interleave(4, 1)
    weight = torch.randn(2, 3, SIDE, SIDE, generator=generator) * strength
    images = 0.5 + 0.05 * torch.randn(n, 3, SIDE, SIDE, generator=generator)
    gap = images.flatten(1) @ (weight[0] - weight[1]).flatten()
    # All of the first class, by a margin that takes several groups.
    classifier = linear(weight.flatten(1), torch.tensor([float(12 - gap.mean()), 0.0]), side=SIDE)
    logits = classifier.logits(images)
    labels = torch.zeros(n, dtype=torch.int64)
    assert torch.equal(logits.argmax(1), labels)
    return classifier, images, labels, (weight[1] - weight[0]).expand(n, -1, -1, -1), logits[:, 0] - logits[:, 1]


def optimum(towards: Tensor, need: Tensor, tau: float, gamma: float = 1.0) -> tuple[Tensor, Tensor]:
    """Solve ``min τ Σ ‖δ_g‖ + γ ‖δ‖²`` for a gain of `need`, for cells of 4 x 4 pixels that do not overlap.

    Each group goes along its weights, ``‖δ_g‖ = max(t · ‖w_g‖ − τ, 0) / 2γ``; the multiplier `t` is bisected. Returns
    the least objective (n,) and how many times its threshold each group's norm is (n,16).
    """
    norms = loop_norms(towards.double(), 4, 4)
    low = torch.zeros(len(norms), 1, dtype=torch.float64)
    high = torch.full_like(low, 1e6)

    def sizes(t):
        return (t * norms - tau).clamp_min(0) / (2 * gamma)

    for _ in range(100):
        middle = (low + high) / 2
        short = (sizes(middle) * norms).sum(1, keepdim=True) < need.unsqueeze(1)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    best = sizes(high)
    return tau * best.sum(1) + gamma * best.square().sum(1), high * norms / tau


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("tau", [0.5, 2.0, 8.0])
def test_the_search_is_within_5_percent_of_the_sparsest_optimum(tau, aimed):
    classifier, images, labels, towards, need = strong_cells(seed=2)
    attack = StrAttack(group_size=4, tau=tau, steps=100, rounds=8, refine=False)
    result = run_attack(attack, classifier, images, Targeted(1 - labels) if aimed else Untargeted(labels))
    assert result.success.all()
    least, strength = optimum(towards, need, tau)
    norms = loop_norms(result.delta, 4, 4)
    ratio = (tau * norms.sum(1) + norms.square().sum(1)) / least
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 1.05
    # Groups far below their threshold are left alone, and those far above it are used.
    assert (strength < 0.85).any(1).all()
    assert (norms[strength < 0.85] == 0).all()
    assert (norms[strength > 1.2] > 0).all()


@pytest.mark.parametrize("refine", [False, True])
def test_only_the_cell_that_matters_changes(refine):
    generator = torch.Generator().manual_seed(5)
    weight = 0.01 * torch.randn(2, 3, SIDE, SIDE, generator=generator)
    weight[1, :, 4:8, 8:12] += 1
    images = 0.5 + 0.05 * torch.randn(3, 3, SIDE, SIDE, generator=generator)
    classifier = linear(weight.flatten(1), torch.tensor([0.0, -30.0]), side=SIDE)
    labels = classifier.predict(images)
    assert labels.tolist() == [0, 0, 0]
    attack = StrAttack(group_size=4, tau=2.0, steps=30, rounds=3, refine=refine)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert result.success.all()
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[4:8, 8:12] = True
    assert torch.equal(result.adversarial[:, :, ~inside], images[:, :, ~inside])
    assert (result.delta[:, :, inside] != 0).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_refinement_is_within_2_percent_of_the_shortest_on_its_groups(seed):
    classifier, images, labels, towards, need = strong_cells(seed=seed)
    found, refined = both(classifier, images, labels, StrAttack(4, tau=2.0, steps=30, rounds=3))
    assert refined.success.all()
    support = loop_support(found.delta, 4, 4)
    shortest = need / (towards * support).flatten(1).norm(dim=1)
    assert (refined.l2 / shortest).min() >= 1 - 1e-5
    assert (refined.l2 / shortest).max() <= 1.02


GRID = pytest.mark.parametrize(("size", "stride"), [(4, None), (5, None), (4, 3), (4, 2), (3, 5)])


@functools.cache
def unrefined_and_refined(size, stride):
    """Run the attack with and without refinement; return the images, too."""
    classifier, images, labels, *_ = strong_cells(n=8, seed=4)
    return images, *both(classifier, images, labels, StrAttack(size, stride, tau=2.0, steps=30, rounds=3))


def both(classifier, images, labels, attack):
    attacks = [dataclasses.replace(attack, refine=refine) for refine in (False, True)]
    return [run_attack(attack, classifier, images, Untargeted(labels)) for attack in attacks]


@GRID
def test_refinement_loses_nothing_and_adds_no_group(size, stride):
    _, found, refined = unrefined_and_refined(size, stride)
    assert found.success.all()
    assert refined.success.all()
    assert (refined.l2 <= found.l2 * (1 + 1e-6)).all()
    assert (refined.l2 < 0.99 * found.l2).any()
    before, after = (loop_norms(result.delta, size, stride or size) for result in (found, refined))
    assert (after[before == 0] == 0).all()
    assert (refined.forwards > found.forwards).all()


@GRID
def test_refinement_keeps_to_the_pixels_of_the_groups_found(size, stride):
    # Also where cells overlap: a pixel that the sparse search left alone is in a group that it left out.
    images, found, refined = unrefined_and_refined(size, stride)
    alone = (found.delta == 0).all(1, keepdim=True).expand_as(images)
    assert alone.flatten(1).any(1).all()
    assert torch.equal(refined.adversarial[alone], images[alone])


def test_refinement_loses_nothing_on_a_network():
    classifier = small()
    images = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    attack = StrAttack(5, tau=2.0, steps=20, rounds=3)
    found, refined = both(classifier, images, classifier.predict(images), attack)
    assert found.success.all()
    assert refined.success.all()
    assert (refined.l2 <= found.l2 * (1 + 1e-6)).all()
    assert (refined.l2 < 0.99 * found.l2).any()


def test_a_larger_tau_gives_no_more_groups():
    classifier, images, labels, *_ = strong_cells(seed=2)
    groups = []
    for tau in (0.1, 2.0, 30.0):
        attack = StrAttack(group_size=4, tau=tau, steps=60, rounds=6, refine=False)
        result = run_attack(attack, classifier, images, Untargeted(labels))
        assert result.success.all()
        groups.append((loop_norms(result.delta, 4, 4) > 0).sum(1))
    assert all((fewer <= more).all() for more, fewer in itertools.pairwise(groups))
    assert (groups[-1] < groups[0]).all()
    assert (groups[-1] >= 1).all()


@pytest.mark.parametrize(
    ("size", "stride", "height", "width"),
    [(4, None, 9, 11), (13, None, 8, 8), (5, None, 3, 4), (4, 3, 9, 11), (3, 5, 9, 11), (2, 4, 8, 8)],
)
@pytest.mark.parametrize("refine", [False, True])
def test_any_size_will_do_and_pixels_in_no_cell_stay(size, stride, height, width, refine):
    generator = torch.Generator().manual_seed(9)
    weight = torch.randn(2, 3 * height * width, generator=generator)
    images = 0.5 + 0.05 * torch.randn(4, 3, height, width, generator=generator)
    classifier = linear(weight)
    labels = classifier.predict(images)
    attack = StrAttack(size, stride, tau=0.1, steps=20, rounds=2, refine=refine)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert result.success.all()
    covered = torch.zeros_like(images, dtype=torch.bool)
    for cell in cells_of(covered, size, stride or size):
        cell[:] = True
    assert torch.equal(result.attempted[~covered], images[~covered])
    assert covered.all() == (stride is None or stride <= size)


def test_confidence_is_kept_through_the_refinement():
    classifier, images, labels, *_ = strong_cells()
    attack = StrAttack(group_size=4, confidence=2.0, steps=30, rounds=3)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert result.success.all()
    assert Untargeted(labels).margin(result.logits).max() <= -2 + 1e-4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"group_size": 0}, "`group_size` must be at least 1; got 0"),
        ({"stride": 0}, "`stride` must be at least 1; got 0"),
        ({"tau": 0.0}, "`tau` must be a finite number above 0; got 0.0"),
        ({"gamma": -1.0}, "`gamma` must be a finite number above 0; got -1.0"),
        ({"rho": float("inf")}, "`rho` must be a finite number above 0; got inf"),
        ({"eta": float("nan")}, "`eta` must be a finite number above 0; got nan"),
        ({"steps": 0}, "`steps` must be at least 1; got 0"),
        ({"rounds": 0}, "`rounds` must be at least 1; got 0"),
        ({"confidence": -0.5}, "`confidence` must be at least 0; got -0.5"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ParameterError, match=message):
        StrAttack(**parameters)
