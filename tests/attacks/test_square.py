"""Square: its geometry by hand, its count, and what it finds without a gradient."""

import pytest
import torch
from torch import nn

from tests.helpers.models import linear, small
from whyfooled import Classifier, Square, Targeted, Untargeted, count_passes, run_attack
from whyfooled.attacks import Problem
from whyfooled.attacks._windows import Frames
from whyfooled.attacks.square import find_share
from whyfooled.errors import ParameterError

SIDE = 16


def case(n=4, seed=7):
    classifier = small()
    images = torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return classifier, images, Untargeted(classifier.predict(images))


def frames(mask=None, n=1):
    classifier, images, goal = case(n)
    return Frames.of(Problem.of(classifier, images, goal, mask)), images


# Geometry


def test_squares_grow_smaller_as_in_the_paper():
    # For 10 000 queries: halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of them.
    for query, times in ((10, 0), (11, 1), (50, 1), (51, 2), (201, 3), (501, 4), (1001, 5), (2001, 6), (9999, 9)):
        assert find_share(0.8, query, 10_000) == 0.8 / 2**times
    assert find_share(0.8, 101, 5000) == 0.8 / 8


def test_windows_lie_anywhere_in_the_rectangle_of_what_may_change_and_nowhere_else():
    mask = torch.zeros(SIDE, SIDE)
    mask[3, 5] = mask[9, 12] = 1
    found, images = frames(mask)
    side = found.find_side(0.2)
    assert side.tolist() == [[[[round((0.2 * 7 * 8) ** 0.5)]]]]
    assert found.find_side(1.0).tolist() == [[[[7]]]]
    assert found.find_side(1e-9).tolist() == [[[[1]]]]
    covered = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    for down in (0.0, 0.3, 0.6, 0.999):
        for right in (0.0, 0.3, 0.6, 0.999):
            inside = found.place(torch.tensor([[down, right]]), side, images).inside
            assert inside.sum() == side.item() ** 2
            covered |= inside
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    expected[3:10, 5:13] = True
    assert torch.equal(covered[0, 0], expected)


def test_a_bump_is_two_hills_of_length_one():
    # Side 5: a hill of 2 rows and one of 3; 1, 1 + 1/4 and 1 + 1/4 + 1/9 from the outside in.
    found, images = frames()
    low, middle, high = 1 / 9, 1 / 4 + 1 / 9, 1 + 1 / 4 + 1 / 9
    up = [[low, middle, middle, middle, low], [low, middle, high, middle, low]]
    down = [[low, middle, middle, middle, low], [low, middle, high, middle, low], [low, middle, middle, middle, low]]
    expected = torch.tensor([*up, *(-torch.tensor(down)).tolist()])
    expected = expected / expected.norm()
    window = found.place(torch.tensor([[0.0, 0.0]]), torch.full((1, 1, 1, 1), 5), images)
    plain, turned = (window.bump(torch.tensor([flag]))[0, 0] for flag in (False, True))
    torch.testing.assert_close(plain[:5, :5], expected)
    torch.testing.assert_close(turned[:5, :5], expected.T)
    assert plain.count_nonzero() == turned.count_nonzero() == 25


# Steps


def test_it_begins_with_stripes_on_the_faces_of_the_ball():
    classifier, images, goal = case()
    images = 0.25 + images / 2
    found = Square(epsilon=0.1, queries=1).attempt(Problem.of(classifier, images, goal)).images - images
    torch.testing.assert_close(found.abs(), torch.full_like(found, 0.1))
    assert torch.equal(found.sign(), found.sign()[:, :, :1].expand_as(found))
    assert found.sign().flatten(1).unique(dim=0).shape[0] == len(images)


@pytest.mark.parametrize("queries", [1, 2, 40])
def test_a_perturbation_in_l2_spends_all_of_the_radius_where_the_box_does_not_bind(queries):
    classifier, images, goal = case()
    images = 0.45 + images / 10
    found = Square(epsilon=0.3, ball="l2", queries=queries).attempt(Problem.of(classifier, images, goal)).images
    torch.testing.assert_close((found - images).flatten(1).norm(dim=1), torch.full((4,), 0.3), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("ball", "epsilon"), [("linf", 0.1), ("l2", 2.0)])
def test_it_stays_in_its_ball(ball, epsilon):
    classifier, images, goal = case()
    found = Square(epsilon=epsilon, ball=ball, queries=60).attempt(Problem.of(classifier, images, goal)).images - images
    size = found.abs().amax((1, 2, 3)) if ball == "linf" else found.flatten(1).norm(dim=1)
    assert size.max() <= epsilon * (1 + 1e-5)


def test_more_queries_never_make_the_loss_larger():
    # The share of the pixels goes by the number of queries, so the two runs differ in all but their beginning.
    classifier, images, goal = case(8)
    problem = Problem.of(classifier, images, goal)
    few, many = (
        goal.margin(classifier.logits(Square(epsilon=0.02, queries=queries).attempt(problem).images))
        for queries in (1, 200)
    )
    assert (many < few).all()


def test_on_a_linear_classifier_it_comes_near_the_best_there_is():
    # Weights of one sign in each half of each channel: the best perturbation is made of large squares.
    weight = torch.zeros(2, 3, 8, 8)
    weight[1, :, :, :4], weight[1, :, :, 4:] = 1.0, -1.0
    classifier = linear(weight.flatten(1), torch.tensor([0.0, 0.0]))
    images = torch.full((2, 3, 8, 8), 0.5)
    images[:, :, :, :4] -= 0.04
    margin = float(Untargeted(torch.tensor([0, 0])).margin(classifier.logits(images))[0])
    nearest = margin / 192
    for share, expected in ((0.99, False), (1.1, True)):
        attack = Square(epsilon=share * nearest, queries=2000)
        result = run_attack(attack, classifier, images, Untargeted(torch.tensor([0, 0])))
        assert result.success.tolist() == [expected] * 2


def test_its_queries_are_all_the_passes_there_are():
    hopeless = linear(torch.zeros(3, 192), torch.tensor([0.0, 1.0, 0.5]))
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with count_passes(hopeless) as passes:
        attempt = Square(queries=17).attempt(Problem.of(hopeless, images, Untargeted(torch.ones(3).long())))
    assert attempt.forwards.tolist() == [17] * 3
    assert attempt.backwards.tolist() == [0] * 3
    assert (passes.forwards, passes.backwards) == (51, 0)


class Opaque(nn.Module):
    """A small network in NumPy's hands: no gradient leads through it."""

    def __init__(self):
        super().__init__()
        self.net = small().module

    def forward(self, x):
        return torch.from_numpy(self.net(x.detach()).detach().numpy().copy())


@pytest.mark.parametrize("aimed", [False, True])
def test_a_model_without_gradients_is_attacked_like_any_other(aimed):
    _, images, untargeted = case()
    goal = Targeted((untargeted.labels + 1) % 5) if aimed else untargeted
    opaque = Classifier(Opaque().eval(), (0.5,) * 3, (0.25,) * 3, (SIDE, SIDE))
    attack = Square(epsilon=0.5, queries=300)
    result = run_attack(attack, opaque, images, goal)
    assert result.success.any()
    assert torch.equal(result.attempted, run_attack(attack, small(), images, goal).attempted)


def test_the_seed_decides():
    classifier, images, goal = case()
    first, second, again = (Square(epsilon=0.01, queries=5, seed=s)(classifier, images, goal) for s in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("ball", "epsilon"), [("linf", 0.08), ("l2", 1.5)])
def test_it_is_as_strong_as_torchattacks(ball, epsilon):
    torchattacks = pytest.importorskip("torchattacks")
    classifier, images, goal = case(24, seed=3)
    theirs = torchattacks.Square(
        classifier, norm={"linf": "Linf", "l2": "L2"}[ball], eps=epsilon, n_queries=100, seed=0
    )
    fooled = run_attack(theirs, classifier, images, goal).success.sum()
    ours = run_attack(Square(epsilon=epsilon, ball=ball, queries=100), classifier, images, goal).success.sum()
    assert 0 < fooled < 24
    assert ours >= fooled


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 4.0}, "Did you mean 4/255"),
        ({"queries": 0}, "`queries` must be at least 1; got 0"),
        ({"share": 0.0}, "`share` must be above 0 and at most 1; got 0.0"),
        ({"share": 1.5}, "`share` must be above 0 and at most 1; got 1.5"),
    ],
)
def test_bad_parameters_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        Square(**wrong)
