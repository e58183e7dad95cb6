"""The search for the smallest perturbation, driven by a descent that follows a script."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.helpers.models import linear
from whyfooled import Untargeted, count_passes
from whyfooled.attacks import Problem
from whyfooled.attacks._best import Best, shorten
from whyfooled.attacks._search import Rounds, minimise
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.types import silent

SIDE = 8
LEVEL, COST = (0, 0, 0), (0, 0, 1)
"""The first value decides the margin; the second only tells one example from another of its level."""


def problem(n):
    """Make black images whose margin is 0.5 less their first value: above 0.5 the goal is reached.

    In clean margins the slope is -2 at the first value, and -1/1000 is what must be passed: 0.5005.
    """
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
    """What the search asked for: one entry for each step, for all images."""

    starts: list[Tensor]
    reaches: list[Tensor]
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


def search(levels, *, steps, costs=0.0, confidence=0.0, progress=silent):
    """Run the search on levels (rounds, n, steps), with the squared level as the penalty."""
    levels = torch.tensor(levels, dtype=torch.float32)
    rounds, n, _ = levels.shape
    costs = torch.as_tensor(costs).expand_as(levels)
    log = Log([], [], [], [])
    here = problem(n)

    def begin(start):
        assert torch.equal(start.problem.images, here.images)
        log.starts.append(start.point.clone())
        log.reaches.append(start.reach.flatten())
        number = len(log.starts) - 1
        return Scripted(levels[number], costs[number], log)

    with count_passes(here.classifier) as passes:
        attempt = minimise(
            here,
            Rounds(rounds, steps, confidence, 0.0),
            begin=begin,
            growth=lambda delta: 2 * delta[:, *LEVEL].square(),
            size=lambda delta: delta[:, *LEVEL].square(),
            progress=progress,
        )
    assert (passes.forwards, passes.backwards) == (int(attempt.forwards.sum()), int(attempt.backwards.sum()))
    return attempt, log


def level(images):
    return images[:, *LEVEL].tolist()


BISECTED = 15 / 16 + 1 / 1024
"""What is left of an example far past the boundary: six halvings of the last sixteenth, all of them enough."""


def test_the_weight_is_twice_the_one_under_which_the_best_example_is_a_minimum():
    # A level v is a minimum where 2v = 2c, so the weight is 2v; at first for the linearised boundary, at 0.5005. The
    # first of the two steps is always short of the goal, so that its slope is minus twice the weight.
    levels = {
        (0.3, 0.3, 0.3): [1.001, 3.003, 9.009],  # none
        (0.7, 0.6, 0.9): [1.001, 1.4, 1.2],
        (0.7, 0.9, 0.6): [1.001, 1.4, 1.4],  # the best so far, not the last
        (0.3, 0.7, 0.6): [1.001, 3.003, 1.4],
        (0.7, 0.3, 0.3): [1.001, 1.4, 4.2],  # the round that found nothing had too small a weight
    }
    script = [[[0.2, rounds[number]] for rounds in levels] for number in range(3)]
    _, log = search(script, steps=2)
    weights = -torch.stack(log.slopes[0::2]).T / 2
    torch.testing.assert_close(weights, torch.tensor(list(levels.values())), rtol=1e-5, atol=0)
    assert log.numbers == [1, 2] * 3


def test_all_classes_pull_in_the_first_round_and_the_nearest_alone_afterwards():
    # Two other classes, which the first and the second value raise; the clean margin is 0.5, so that τ is 0.05.
    weight = torch.zeros(3, 3 * SIDE * SIDE)
    weight[1, 0] = weight[2, 1] = 1
    classifier = linear(weight, torch.tensor([0.5, 0.0, -0.05]), side=SIDE)
    here = Problem.of(classifier, torch.zeros(1, 3, SIDE, SIDE), Untargeted(torch.tensor([0])))
    log = Log([], [], [], [])
    seen = []

    @dataclass(frozen=True)
    class Still(Scripted):
        def advance(self, slope, number):
            seen.append(slope.flatten()[:2] / slope.sum())
            return self

    attempt = minimise(
        here,
        Rounds(2, 1, 0.0, 0.0),
        begin=lambda start: Still(torch.zeros(1, 1), torch.zeros(1, 1), log),
        growth=lambda delta: delta.flatten(1).square().sum(1),
        size=lambda delta: delta.flatten(1).square().sum(1),
    )
    assert attempt.forwards.tolist() == [3]
    share = 1 / (1 + torch.exp(torch.tensor(-0.05 / 0.05)))
    torch.testing.assert_close(seen[0], torch.stack([share, 1 - share]))
    torch.testing.assert_close(seen[1], torch.tensor([1.0, 0.0]))


def test_a_value_at_its_bound_is_held_by_the_bound():
    # White is as far as the level goes: there the weight says nothing, and the last one stays.
    _, log = search([[[0.2, 1.0]], [[0.2, 0.3]]], steps=2)
    torch.testing.assert_close(-torch.cat(log.slopes[0::2]) / 2, torch.tensor([1.001, 1.001]))


def test_the_goals_term_has_no_slope_once_the_goal_is_passed():
    _, log = search([[[0.2, 0.4, 0.7, 0.3]]], steps=4)
    assert torch.cat(log.slopes).tolist() == pytest.approx([-2.002, -2.002, 0, -2.002])


def test_a_round_succeeds_at_any_of_its_steps():
    _, log = search([[[0.2, 0.7, 0.3]], [[0.2, 0.3, 0.3]]], steps=3)
    torch.testing.assert_close(-log.slopes[3] / 2, torch.tensor([1.4]))


def test_every_round_takes_all_its_steps_and_the_end_is_bisected():
    attempt, log = search([[[0.2] * 12, [0.2] * 11 + [0.6]]] * 2, steps=12)
    # One pass to take the measure; six to bisect what was found.
    assert attempt.forwards.tolist() == [25, 31]
    assert attempt.backwards.tolist() == [25, 25]
    assert log.numbers == list(range(1, 13)) * 2


def test_an_image_without_a_gradient_costs_one_pass_and_stays():
    classifier = linear(torch.zeros(2, 3 * SIDE * SIDE), torch.tensor([0.5, 0.0]), side=SIDE)
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    here = Problem.of(classifier, images, Untargeted(torch.zeros(2, dtype=torch.int64)))

    def begin(start):
        raise AssertionError

    attempt = minimise(here, Rounds(3, 60, 0.0, 0.0), begin=begin, growth=torch.sum, size=torch.sum)
    assert torch.equal(attempt.images, images)
    assert attempt.forwards.tolist() == attempt.backwards.tolist() == [1, 1]


def test_the_smallest_example_of_all_rounds_is_kept():
    levels = [
        [[0.2, 0.8, 0.7, 0.9], [0.2, 0.6, 0.8, 0.3]],
        [[0.2, 0.6, 0.3, 0.65], [0.2, 0.9, 0.7, 0.8]],
        [[0.2, 0.9, 0.7, 0.3], [0.1, 0.2, 0.3, 0.4]],
    ]
    costs = [0.1, 0.2, 0.3, 0.4]
    attempt, _ = search(levels, steps=4, costs=costs)
    # The whole image is kept, not only what the size sees; and then all of it is made smaller.
    torch.testing.assert_close(attempt.images, pictures([0.6, 0.6], [0.2, 0.2]) * BISECTED)


def test_nothing_found_gives_the_images_themselves():
    attempt, _ = search([[[0.2, 0.4], [0.45, 0.1]]] * 2, steps=2)
    assert torch.equal(attempt.images, torch.zeros(2, 3, SIDE, SIDE))


@pytest.mark.parametrize(
    ("confidence", "short", "enough"), [(0.0, 0.5004, 0.5006), (1e-4, 0.5004, 0.5006), (0.1, 0.599, 0.601)]
)
def test_an_example_counts_only_with_the_margin(confidence, short, enough):
    # Both are past the boundary at 0.5; the first image's examples are not far enough past it.
    levels = [[[0.2, short], [0.2, enough]], [[0.2, short], [0.2, 0.3]]]
    attempt, log = search(levels, steps=2, confidence=confidence)
    assert level(attempt.images) == pytest.approx([0, max(0.5 + confidence, 0.5005)], rel=1 / 16 / 64)
    assert min(0.5 - value for value in level(attempt.images)[1:]) <= -max(confidence, 5e-4) * (1 - 1e-4)
    first = 2 * max(0.5 + confidence, 0.5005)
    torch.testing.assert_close(-log.slopes[2] / 2, torch.tensor([3 * first, 2 * enough]))


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


def test_a_round_reaches_as_far_as_the_best_example_and_half_as_far_in_each_further_one():
    levels = [[[0.2, 0.7], [0.2, 0.4]], [[0.2, 0.8], [0.2, 0.6]], [[0.2, 0.7], [0.2, 0.6]]]
    _, log = search(levels, steps=2)
    # 192 values may change. Where nothing was found, as far as the boundary seems to be.
    reaches = torch.stack(log.reaches) * 192**0.5
    torch.testing.assert_close(reaches, torch.tensor([[0.5005, 0.5005], [0.35, 0.5005], [0.175, 0.3]]))


def test_where_nothing_was_found_a_round_reaches_as_far_as_the_last_one_went():
    levels = [[[0.2, 0.4]], [[0.2, 0.4]]]
    _, log = search(levels, steps=2, costs=[0.0, 0.8])
    assert float(log.reaches[1]) * 192**0.5 == pytest.approx(0.8**0.5)


def test_progress_only_rises_and_ends_at_the_whole():
    seen = []
    search([[[0.2] * 12]] * 2, steps=12, progress=lambda done, total, doing: seen.append((done, total)))
    assert [total for _, total in seen] == [24] * len(seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0][0] == 1
    assert seen[-1][0] == 24


@pytest.mark.parametrize("far", [0.501, 0.51, 0.53])
def test_the_last_sixteenth_of_the_way_is_bisected(far):
    here = problem(2)
    yardstick = Yardstick.of(here.goal, here.classifier.logits(here.images), 0.0, 0.0)
    best = Best.none(here.images)
    best.offer(torch.tensor([1]), pictures([far], [0.8]), torch.tensor([far]), torch.tensor([True]))
    with count_passes(here.classifier) as passes:
        forwards = shorten(here, yardstick, best, lambda delta: delta[:, *LEVEL], 6)
    assert forwards.tolist() == [0, 6]
    assert (passes.forwards, passes.backwards) == (6, 0)
    # Nothing was found for the first image; the second keeps its direction.
    assert torch.equal(best.images[0], here.images[0])
    share = float(best.size[1]) / far
    torch.testing.assert_close(best.images[1:], pictures([far], [0.8]) * share)
    assert 0.5005 * (1 - 1e-6) <= float(best.size[1]) <= 0.5005 + far / 16 / 64


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
