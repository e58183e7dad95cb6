"""The search for the smallest perturbation, driven by a descent that follows a script."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.helpers.models import linear
from whyfooled import Untargeted, count_passes
from whyfooled.attacks import Problem
from whyfooled.attacks._search import Best, Rounds, minimise
from whyfooled.types import silent

SIDE = 8
LEVEL, COST = (0, 0, 0), (0, 0, 1)
"""The first value decides the margin; the second is what the penalty sees."""


def problem(n):
    """Make black images whose margin is 0.5 less their first value: above 0.5 the goal is reached."""
    weight = torch.zeros(2, 3 * SIDE * SIDE)
    weight[1, 0] = 1
    classifier = linear(weight, torch.tensor([0.5, 0.0]), side=SIDE)
    return Problem.of(classifier, torch.zeros(n, 3, SIDE, SIDE), Untargeted(torch.zeros(n, dtype=torch.int64)))


def pictures(levels, costs=None):
    made = torch.zeros(len(levels), 3, SIDE, SIDE)
    made[:, *LEVEL] = torch.tensor(levels)
    if costs is not None:
        made[:, *COST] = torch.tensor(costs)
    return made


@dataclass
class Log:
    """What the search asked for: one entry for each step, for the images that were still there."""

    starts: list[Tensor]
    slopes: list[Tensor]
    numbers: list[int]


@dataclass(frozen=True)
class Scripted:
    """Goes through levels (n, steps + 1) and costs (n, steps + 1), whatever the slope."""

    levels: Tensor
    costs: Tensor
    log: Log
    step: int = 0

    @property
    def point(self) -> Tensor:
        return pictures(self.levels[:, self.step].tolist(), self.costs[:, self.step].tolist())

    def advance(self, slope: Tensor, number: int) -> Scripted:
        self.log.slopes.append(slope[:, *LEVEL].clone())
        self.log.numbers.append(number)
        return replace(self, step=min(self.step + 1, self.levels.shape[1] - 1))

    def select(self, keep: Tensor) -> Scripted:
        return replace(self, levels=self.levels[keep], costs=self.costs[keep])


def falling(n, steps):
    """Costs that never stall."""
    return torch.linspace(0.9, 0.1, steps).expand(n, steps)


def search(levels, *, steps, costs=None, constant=1.0, confidence=0.0, progress=silent):
    """Run the search on levels (rounds, n, steps)."""
    levels = torch.tensor(levels, dtype=torch.float32)
    rounds, n, _ = levels.shape
    costs = falling(n, levels.shape[2]).expand(levels.shape) if costs is None else torch.tensor(costs).expand_as(levels)
    log = Log([], [], [])
    here = problem(n)

    def begin(given, start):
        assert given is here
        log.starts.append(start.clone())
        number = len(log.starts) - 1
        return Scripted(levels[number], costs[number], log)

    attempt = minimise(
        here,
        Rounds(rounds, steps, constant, confidence),
        begin=begin,
        penalty=lambda delta: delta[:, *COST],
        size=lambda delta: delta[:, *LEVEL],
        progress=progress,
    )
    return attempt, log


def level(images):
    return images[:, *LEVEL].tolist()


def test_each_images_weight_is_bisected_on_its_own():
    # One image for each pattern of rounds that succeed; the first of the two steps is always short of the goal, so that
    # its slope is minus the weight.
    patterns = {
        "FFFFF": [1, 10, 100, 1000, 10000],
        "FSSFS": [1, 10, 5.5, 3.25, 4.375],
        "SSFSF": [1, 0.5, 0.25, 0.375, 0.3125],
        "FFSFF": [1, 10, 100, 55, 77.5],
        "SFFFF": [1, 0.5, 0.75, 0.875, 0.9375],
    }
    levels = [[[0.2, 0.7 if pattern[number] == "S" else 0.3] for pattern in patterns] for number in range(5)]
    _, log = search(levels, steps=2)
    weights = -torch.stack(log.slopes[0::2]).T
    torch.testing.assert_close(weights, torch.tensor(list(patterns.values())))
    assert log.numbers == [1, 2] * 5


def test_the_first_weight_is_the_one_given():
    _, log = search([[[0.2]], [[0.2]], [[0.2]]], steps=1, constant=0.03)
    torch.testing.assert_close(-torch.cat(log.slopes), torch.tensor([0.03, 0.3, 3.0]))


def test_the_goals_term_has_no_slope_once_the_goal_is_passed():
    _, log = search([[[0.2, 0.4, 0.7, 0.3]]], steps=4, constant=2.0)
    assert torch.cat(log.slopes).tolist() == [-2, -2, 0, -2]


def test_a_round_succeeds_at_any_of_its_steps():
    _, log = search([[[0.2, 0.7, 0.3]], [[0.2, 0.3, 0.3]]], steps=3)
    torch.testing.assert_close(-log.slopes[3], torch.tensor([0.5]))


def test_stalled_images_leave_the_round():
    # Twelve steps are checked at every second one.
    moves, stays = torch.linspace(0.9, 0.1, 12), torch.full((12,), 0.5)
    late = torch.cat([moves[:6], stays.clone().fill_(moves[5].item())[:6]])
    crawls = torch.linspace(0.5, 0.4999, 12)
    costs = torch.stack([moves, stays, late, crawls, stays.flip(0)]).tolist()
    attempt, log = search([[[0.2] * 12] * 5], steps=12, costs=costs)
    assert attempt.forwards.tolist() == [12, 4, 8, 4, 4]
    assert attempt.backwards.tolist() == [12, 4, 8, 4, 4]
    assert [len(slope) for slope in log.slopes] == [5] * 4 + [2] * 4 + [1] * 4


def test_what_stalls_is_the_penalty_and_the_goals_term_together():
    nears, stays = torch.linspace(0.1, 0.45, 12).tolist(), [0.2] * 12
    attempt, _ = search([[nears, stays]], steps=12, costs=[[0.5] * 12] * 2)
    assert attempt.forwards.tolist() == [12, 4]
    # With a small weight the goal's term is too small a share of the whole.
    attempt, _ = search([[nears, stays]], steps=12, costs=[[0.5] * 12] * 2, constant=1e-4)
    assert attempt.forwards.tolist() == [4, 4]


def test_the_round_ends_when_all_images_have_stalled():
    attempt, log = search([[[0.2] * 12] * 2] * 3, steps=12, costs=[[0.5] * 12] * 2)
    assert attempt.forwards.tolist() == [12, 12]
    assert log.numbers == [1, 2, 3, 4] * 3


def test_images_that_stay_keep_their_own_script():
    # The middle image stalls at step 4; the others find their examples at steps 9 and 11.
    levels = [[0.2] * 12 for _ in range(3)]
    levels[0][8], levels[1][8], levels[2][10] = 0.6, 0.7, 0.8
    costs = torch.linspace(0.9, 0.1, 12).repeat(3, 1)
    costs[1] = 0.5
    attempt, _ = search([levels], steps=12, costs=costs.tolist())
    assert level(attempt.images) == pytest.approx([0.6, 0, 0.8])
    assert attempt.forwards.tolist() == [12, 4, 12]


def test_the_evaluations_are_the_ones_that_the_classifier_saw():
    levels = torch.full((2, 3, 12), 0.2)
    costs = torch.linspace(0.9, 0.1, 12).repeat(2, 3, 1)
    costs[0, 1], costs[1, 2] = 0.5, 0.5
    log = Log([], [], [])
    here = problem(3)

    def begin(given, start):
        log.starts.append(start)
        return Scripted(levels[0], costs[len(log.starts) - 1], log)

    with count_passes(here.classifier) as passes:
        attempt = minimise(
            here,
            Rounds(2, 12, 1.0, 0.0),
            begin=begin,
            penalty=lambda delta: delta[:, *COST],
            size=lambda delta: delta[:, *LEVEL],
        )
    assert attempt.forwards.tolist() == [24, 16, 16]
    assert (passes.forwards, passes.backwards) == (56, 56)


def test_the_smallest_example_of_all_rounds_is_kept():
    levels = [
        [[0.2, 0.8, 0.7, 0.9], [0.2, 0.6, 0.8, 0.3]],
        [[0.2, 0.6, 0.3, 0.65], [0.2, 0.9, 0.7, 0.8]],
        [[0.2, 0.9, 0.7, 0.3], [0.1, 0.2, 0.3, 0.4]],
    ]
    attempt, _ = search(levels, steps=4)
    assert level(attempt.images) == pytest.approx([0.6, 0.6])
    # The whole image is kept, not only what the size sees.
    kept = pictures([0.6, 0.6], falling(2, 4)[:, 1].tolist())
    torch.testing.assert_close(attempt.images, kept)


def test_nothing_found_gives_the_images_themselves():
    attempt, _ = search([[[0.2, 0.4], [0.45, 0.1]]] * 2, steps=2)
    assert torch.equal(attempt.images, torch.zeros(2, 3, SIDE, SIDE))


@pytest.mark.parametrize(
    ("confidence", "short", "enough"), [(0.0, 0.5005, 0.5015), (1e-4, 0.5005, 0.5015), (0.1, 0.599, 0.601)]
)
def test_an_example_counts_only_with_the_margin(confidence, short, enough):
    # Both are past the boundary at 0.5; the first image's examples are not far enough past it.
    levels = [[[0.2, short], [0.2, enough]], [[0.2, short], [0.2, 0.3]]]
    attempt, log = search(levels, steps=2, confidence=confidence)
    assert level(attempt.images) == pytest.approx([0, enough])
    torch.testing.assert_close(log.slopes[2], torch.tensor([-10.0, -0.5]))


def test_a_round_starts_at_the_best_example_or_where_the_last_one_ended():
    levels = [
        [[0.2, 0.7, 0.3], [0.2, 0.3, 0.4]],
        [[0.2, 0.9, 0.4], [0.1, 0.6, 0.2]],
        [[0.2, 0.3, 0.1], [0.1, 0.2, 0.1]],
    ]
    _, log = search(levels, steps=3)
    assert [level(start) for start in log.starts] == [
        [0, 0],
        pytest.approx([0.7, 0.4]),
        pytest.approx([0.7, 0.6]),
    ]


def test_an_image_that_stalled_starts_again_where_it_stalled():
    levels = [[[0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2, 0.21, 0.22]]] * 2
    # The goal's term falls by a hundredth of the weight a step; the penalty rises by as much from step 3 on.
    costs = [[0.9, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]]
    attempt, log = search(levels, steps=12, costs=costs)
    assert attempt.forwards.tolist() == [8]
    assert level(log.starts[1]) == pytest.approx([0.14])


def test_the_image_in_the_next_round_takes_part_again():
    costs = torch.linspace(0.9, 0.1, 12).repeat(2, 2, 1)
    costs[0, 0] = 0.5
    attempt, log = search([[[0.2] * 12] * 2] * 2, steps=12, costs=costs.tolist())
    assert attempt.forwards.tolist() == [16, 24]
    assert len(log.slopes[12]) == 2


def test_progress_only_rises_and_ends_at_the_whole():
    seen = []
    search(
        [[[0.2] * 12]] * 2, steps=12, costs=[[0.5] * 12], progress=lambda done, total, doing: seen.append((done, total))
    )
    assert [total for _, total in seen] == [24] * len(seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0][0] == 1
    assert seen[-1][0] == 24


def test_an_example_of_the_same_size_does_not_replace_the_first():
    images = torch.zeros(2, 3, SIDE, SIDE)
    best = Best.none(images)
    assert best.found.tolist() == [False, False]
    first, second = pictures([0.3], [0.1]), pictures([0.3], [0.2])
    for example in (first, second):
        best.offer(torch.tensor([1]), example, torch.tensor([0.3]), torch.tensor([True]))
    assert torch.equal(best.images[1:], first)
    best.offer(torch.tensor([1]), second, torch.tensor([0.2]), torch.tensor([False]))
    assert torch.equal(best.images[1:], first)
    best.offer(torch.tensor([1]), second, torch.tensor([0.2]), torch.tensor([True]))
    assert torch.equal(best.images, torch.cat([images[:1], second]))
    assert best.found.tolist() == [False, True]
