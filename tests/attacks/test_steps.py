"""FGSM, BIM and PGD: by hand on a linear model, inside their balls, and against Foolbox."""

import foolbox
import pytest
import torch

from tests.helpers.models import linear, small
from whyfooled import BIM, FGSM, PGD, Targeted, Untargeted, run_attack
from whyfooled.attacks import Problem
from whyfooled.attacks._starts import draw_start
from whyfooled.errors import ParameterError
from whyfooled.tensors.randomness import image_generators


@pytest.fixture
def weight():
    return torch.randn(2, 192, generator=torch.Generator().manual_seed(0))


def test_fgsm_is_one_signed_step(weight):
    images = torch.full((1, 3, 8, 8), 0.5)
    classifier = linear(weight)
    label = classifier.predict(images)
    towards = (weight[1 - label] - weight[label]).sign().view(1, 3, 8, 8)
    for goal in (Untargeted(label), Targeted(1 - label)):
        torch.testing.assert_close(FGSM(epsilon=0.25)(classifier, images, goal), images + 0.25 * towards)


def test_fgsm_stops_at_black_and_white(weight):
    images = torch.full((1, 3, 8, 8), 0.9)
    classifier = linear(weight)
    found = FGSM(epsilon=0.5)(classifier, images, Untargeted(classifier.predict(images)))
    assert found.max() == 1


def test_steps_add_up_and_stop_at_the_ball(weight):
    # Far from the other class, so that no image is done early.
    classifier = linear(weight, torch.tensor([100.0, 0.0]))
    images = torch.full((1, 3, 8, 8), 0.5)
    towards = (weight[1] - weight[0]).sign().view(1, 3, 8, 8)
    goal = Untargeted(torch.tensor([0]))
    two = BIM(epsilon=0.2, step_size=0.05, steps=2)(classifier, images, goal)
    torch.testing.assert_close(two, images + 0.1 * towards)
    many = BIM(epsilon=0.2, step_size=0.05, steps=9)(classifier, images, goal)
    torch.testing.assert_close(many, images + 0.2 * towards)


def test_pgd_in_the_l2_ball_finds_the_nearest_side(weight):
    classifier = linear(weight, torch.tensor([100.0, 0.0]))
    images = torch.full((1, 3, 8, 8), 0.5)
    found = PGD(epsilon=0.3, ball="l2", step_size=0.05, steps=100)(classifier, images, Untargeted(torch.tensor([0])))
    w = (weight[1] - weight[0]).view(1, 3, 8, 8)
    torch.testing.assert_close(found - images, 0.3 * w / w.norm(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("ball", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.01, 0.5])
def test_pgd_stays_in_its_ball_and_starts_anywhere_in_it(ball, epsilon):
    attack = PGD(epsilon=epsilon, ball=ball, steps=5, restarts=2)
    images = torch.rand(6, 3, 16, 16)
    classifier = small()
    found = attack(classifier, images, Untargeted(classifier.predict(images)))
    delta = (found - images).flatten(1)
    size = delta.abs().amax(1) if ball == "linf" else delta.norm(dim=1)
    assert size.max() <= epsilon * (1 + 1e-4)
    problem = Problem.of(classifier, images, Untargeted(classifier.predict(images)))
    start = draw_start(problem, image_generators(images, 0), epsilon, ball)
    assert 0 < (start - images).abs().max() <= epsilon * (1 + 1e-4)


def test_an_image_that_is_fooled_costs_no_more_steps(weight):
    classifier = linear(weight, torch.tensor([0.0, 0.0]))
    images = torch.full((2, 3, 8, 8), 0.5)
    near = classifier.predict(images)
    result = run_attack(BIM(epsilon=0.5, step_size=0.4, steps=10), classifier, images, Untargeted(near))
    assert result.success.all()
    assert result.forwards.tolist() == [2, 2]
    assert result.backwards.tolist() == [1, 1]


def test_bim_is_as_strong_as_foolboxs():
    classifier = small()
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    labels = classifier.predict(images)
    theirs = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=0.005, steps=20, random_start=False)
    for epsilon in (0.01, 0.02, 0.04):
        _, _, fooled = theirs(foolbox.PyTorchModel(classifier, bounds=(0, 1)), images, labels, epsilons=epsilon)
        ours = run_attack(BIM(epsilon=epsilon, step_size=0.005, steps=20), classifier, images, Untargeted(labels))
        assert ours.success.sum() >= fooled.sum()
    assert ours.success.sum() > 0


def test_restarts_and_seeds_matter():
    classifier, images = small(), torch.rand(2, 3, 16, 16)
    goal = Untargeted(classifier.predict(images))
    first, second = (PGD(epsilon=0.001, steps=1, seed=seed)(classifier, images, goal) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("attack", [FGSM, BIM, PGD])
@pytest.mark.parametrize(
    ("epsilon", "message"),
    [(4.0, "Did you mean 4/255"), (0.0, "above 0"), (-1.0, "above 0"), (float("nan"), "above 0"), (300.0, "at most 1")],
)
def test_a_radius_that_no_image_has_is_refused(attack, epsilon, message):
    with pytest.raises(ParameterError, match=message):
        attack(epsilon=epsilon)


def test_an_l2_radius_may_be_above_1():
    assert PGD(epsilon=3.0, ball="l2").epsilon == 3
