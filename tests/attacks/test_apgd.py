"""APGD: its losses by hand, its steps against a slow derivation, and what it finds on linear classifiers."""

import warnings

import foolbox
import pytest
import torch
from torch import nn

from tests.helpers.linear_optimum import distance, linear_case
from tests.helpers.models import linear, small
from whyfooled import APGD, Classifier, MinimalAPGD, Targeted, Untargeted, run_attack
from whyfooled.attacks import Problem
from whyfooled.attacks._ascent import ascend, find_checkpoints
from whyfooled.attacks._losses import Objective, rank_others
from whyfooled.errors import ParameterError, WhyfooledWarning

LOGITS = torch.tensor([[5.0, 3.0, 1.0, 0.0], [2.0, 6.0, -1.0, 4.0]])


def of_class(number, count=2):
    return torch.full((count,), number)


# The losses


@pytest.mark.parametrize(
    ("goal", "aims", "expected"),
    [
        # (5 − 3) / (5 − 1) and (2 − 6) / (6 − 2)
        (Untargeted(of_class(0)), None, [0.5, -1.0]),
        # The largest other logit minus the target's, over 5 − (1 + 0) / 2 and 6 − (2 − 1) / 2
        (Targeted(of_class(1)), None, [2 / 4.5, -2 / 5.5]),
        # The true class's logit minus the aim's, whatever the other classes do
        (Untargeted(of_class(0)), of_class(2), [4 / 4.5, 3 / 5.5]),
    ],
)
def test_dlr_by_hand(goal, aims, expected):
    torch.testing.assert_close(Objective("dlr", goal, aims)(LOGITS), torch.tensor(expected))


@pytest.mark.parametrize("goal", [Untargeted(of_class(0)), Targeted(of_class(1))], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("aims", [None, of_class(2)], ids=["", "aimed"])
def test_dlr_does_not_depend_on_the_scale_and_the_shift_of_the_logits(goal, aims):
    objective = Objective("dlr", goal, aims)
    for scale, shift in ((1e-6, 0.0), (1e6, 0.0), (1.0, 50.0), (8.0, -20.0)):
        torch.testing.assert_close(objective(scale * LOGITS + shift), objective(LOGITS), rtol=1e-4, atol=1e-5)


def test_cross_entropy_has_its_order_and_the_direction_of_its_gradient():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    classes = torch.arange(50) % 4
    for goal, sign in ((Untargeted(classes), -1), (Targeted(classes), 1)):
        ours, theirs = (
            Objective("ce", goal)(logits),
            sign * nn.functional.cross_entropy(logits, classes, reduction="none"),
        )
        assert torch.equal(ours.argsort(), theirs.argsort())
        one, other = (torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (ours, theirs))
        torch.testing.assert_close(one / one.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True))
        torch.testing.assert_close(Objective("ce", goal)(logits + 1000), ours)


def test_aims_are_the_largest_logits_but_the_true_ones():
    assert rank_others(Untargeted(torch.tensor([0, 3])), LOGITS, 2).tolist() == [[1, 2], [1, 0]]
    assert rank_others(Untargeted(torch.tensor([1, 1])), LOGITS, 9).tolist() == [[0, 2, 3], [3, 0, 2]]


@pytest.mark.parametrize(
    ("classes", "goal", "targets", "message"),
    [
        (
            2,
            Untargeted,
            0,
            "`loss` must be ce for a classifier of fewer than 3 classes, as dlr needs the third largest",
        ),
        (
            3,
            Targeted,
            0,
            "fewer than 4 classes, as dlr needs the fourth largest logit, for a class to reach; got dlr and 3",
        ),
        (3, Untargeted, 2, "fewer than 4 classes"),
    ],
)
def test_too_few_classes_for_dlr_are_said(classes, goal, targets, message):
    classifier, images, labels, _ = linear_case(2, seed=0, classes=classes)
    made = goal(labels) if goal is Untargeted else Targeted((labels + 1) % classes)
    with pytest.raises(ParameterError, match=message):
        APGD(loss="dlr", targets=targets)(classifier, images, made)


# The steps


def test_checkpoints_are_the_papers():
    assert find_checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert find_checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert find_checkpoints(1) == [1]


def derive(classifier, image, label, epsilon, steps, ball):
    """Follow algorithm 1 for one image, one line after the other; the loss is maximised, as there."""

    def loss(x):
        x = x.clone().requires_grad_()
        value = nn.functional.cross_entropy(classifier(x), label)
        return value.item(), torch.autograd.grad(value, x)[0]

    def project(x):
        delta = x - image
        delta = delta.clamp(-epsilon, epsilon) if ball == "linf" else delta * min(1, epsilon / float(delta.norm()))
        return (image + delta).clamp(0, 1)

    def direction(slope):
        return slope.sign() if ball == "linf" else slope / slope.norm()

    checkpoints = [0, *find_checkpoints(steps)]
    eta = 2 * epsilon
    values, halvings = [], []
    x = before = best = image
    most = float("-inf")
    for k in range(steps + 1):
        value, slope = loss(x)
        values.append(value)
        if value > most:
            best, most, best_slope = x, value, slope
        if k in checkpoints[1:]:
            j = checkpoints.index(k)
            w = checkpoints[j - 1]
            rises = sum(values[i + 1] > values[i] for i in range(w, k))
            same = j > 1 and max(values[: w + 1]) == most and not halvings[-1]
            halvings.append(rises < 0.75 * (k - w) or same)
            if halvings[-1]:
                eta, x, slope = eta / 2, best, best_slope
                values[-1] = most
        z = project(x + eta * direction(slope))
        alpha = 0.75 if k else 1.0
        x, before = project(x + alpha * (z - x) + (1 - alpha) * (x - before)), x
    return best


@pytest.mark.parametrize(("ball", "epsilon"), [("linf", 0.02), ("l2", 0.3)])
def test_the_steps_are_those_of_the_paper(ball, epsilon):
    # No image can be fooled, so that all steps are taken; in double precision, rounding turns no sign around.
    classifier = small().double()
    with torch.no_grad():
        classifier.module.head.bias[2] += 5
        classifier.module.head.weight *= 3
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    goal = Untargeted(classifier.predict(images))
    problem = Problem(classifier, images, goal, torch.zeros(4, 1, 1, 1), torch.ones(4, 1, 1, 1), torch.arange(4))
    attempt, reached = ascend(
        problem,
        Objective("ce", goal),
        start=images.clone(),
        radius=torch.full((4,), epsilon, dtype=torch.float64),
        steps=25,
        ball=ball,
        progress=lambda done: None,
    )
    assert not reached.any()
    assert attempt.forwards.tolist() == [26] * 4
    assert attempt.backwards.tolist() == [25] * 4
    for image, label, found in zip(images.split(1), goal.labels.split(1), attempt.images.split(1), strict=True):
        torch.testing.assert_close(found, derive(classifier, image, label, epsilon, 25, ball), rtol=0, atol=1e-9)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("targets", [0, 3])
def test_an_example_is_found_in_every_ball_that_holds_one(loss, targets):
    classifier, images, labels, weight = linear_case(8, seed=2)
    nearest = torch.stack([distance(weight, images, labels, (labels + k) % 4) for k in (1, 2, 3)]).amin(0)
    for place, image in enumerate(images.split(1)):
        for share, expected in ((1.01, True), (0.99, False)):
            attack = APGD(epsilon=share * float(nearest[place]), ball="l2", loss=loss, targets=targets, steps=50)
            result = run_attack(attack, classifier, image, Untargeted(labels[place : place + 1]))
            # Without aims, the way leads to a mixture of classes, and so a little past the nearest one.
            if targets or not expected:
                assert bool(result.success) is expected


@pytest.mark.parametrize("attack", [APGD(epsilon=0.04), APGD(epsilon=0.04, loss="dlr", targets=3)])
def test_a_certain_classifier_hides_no_example(attack):
    # Multiplied by 1e4, every probability is 0 or 1, and so is every gradient of the cross-entropy 0.
    classifier, images, labels, weight = linear_case(8, seed=1)
    certain = linear(1e4 * weight)
    probabilities = certain.logits(images).softmax(1)
    assert ((probabilities == 0) | (probabilities == 1)).all()
    usual = run_attack(attack, classifier, images, Untargeted(labels))
    found = run_attack(attack, certain, images, Untargeted(labels))
    assert usual.success.any()
    assert torch.equal(found.success, usual.success)


class Scaled(nn.Module):
    """Multiplies logits by a number."""

    def __init__(self, module, factor):
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, x):
        return self.factor * self.module(x)


@pytest.mark.parametrize("targets", [0, 3])
def test_dlr_finds_the_very_same_at_every_scale(targets):
    usual = small()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    goal = Untargeted(usual.predict(images))
    attack = APGD(epsilon=0.02, loss="dlr", targets=targets, steps=20)
    expected = run_attack(attack, usual, images, goal)
    assert expected.success.any()
    assert not expected.success.all()
    for power in (-20, 20):
        # A power of two rounds nothing.
        scaled = Classifier(Scaled(usual.module, 2.0**power), (0.5,) * 3, (0.25,) * 3, (16, 16))
        assert torch.equal(run_attack(attack, scaled, images, goal).attempted, expected.attempted)


# Beside others


@pytest.mark.parametrize("epsilon", [0.01, 0.02])
def test_it_is_as_strong_as_foolboxs_pgd(epsilon):
    classifier = small()
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    labels = classifier.predict(images)
    theirs = foolbox.attacks.LinfPGD(rel_stepsize=0.1, steps=20)
    torch.manual_seed(0)
    _, _, fooled = theirs(foolbox.PyTorchModel(classifier, bounds=(0, 1)), images, labels, epsilons=epsilon)
    for attack in (APGD(epsilon=epsilon, steps=20), APGD(epsilon=epsilon, steps=20, loss="dlr", targets=4)):
        assert run_attack(attack, classifier, images, Untargeted(labels)).success.sum() >= fooled.sum()


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_it_leaves_no_more_than_torchattacks_does(loss):
    torchattacks = pytest.importorskip("torchattacks")
    classifier = small()
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    labels = classifier.predict(images)
    theirs = torchattacks.APGD(classifier, eps=0.02, steps=20, loss=loss, seed=0)
    fooled = run_attack(theirs, classifier, images, Untargeted(labels)).success
    ours = run_attack(APGD(epsilon=0.02, steps=20, loss=loss), classifier, images, Untargeted(labels)).success
    assert 0 < fooled.sum() < 24
    assert ours.sum() >= fooled.sum()


def test_what_is_reached_in_one_start_goes_on_to_no_other():
    classifier, images, labels, _ = linear_case(4, seed=1)
    once = run_attack(APGD(epsilon=0.5, steps=10), classifier, images, Untargeted(labels))
    again = run_attack(APGD(epsilon=0.5, steps=10, restarts=5), classifier, images, Untargeted(labels))
    assert once.success.all()
    assert torch.equal(again.attempted, once.attempted)
    hopeless = linear(torch.zeros(3, 192), torch.tensor([0.0, 1.0, 0.5]))
    result = run_attack(APGD(steps=4, restarts=3, targets=9), hopeless, images, Untargeted(torch.ones(4).long()))
    # 2 other classes, 3 starts at each, and a pass for the classes.
    assert result.forwards.tolist() == [2 * 3 * 5 + 1] * 4
    assert result.backwards.tolist() == [2 * 3 * 4] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 4.0}, "Did you mean 4/255"),
        ({"targets": -1}, "`targets` must be at least 0; got -1"),
        ({"restarts": 0}, "`restarts` must be at least 1"),
        ({"steps": 0}, "`steps` must be at least 1"),
    ],
)
def test_bad_parameters_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        APGD(**wrong)


# The smallest ball


def test_searching_for_the_smallest_ball_costs_what_the_card_says():
    hopeless = linear(torch.zeros(3, 192), torch.tensor([0.0, 1.0, 0.5]))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    result = run_attack(MinimalAPGD(steps=4, searches=3), hopeless, images, Untargeted(torch.ones(2).long()))
    assert not result.success.any()
    assert result.forwards.tolist() == [1 + 3 * 5] * 2
    assert result.backwards.tolist() == [1 + 3 * 4] * 2


def test_more_targets_than_there_are_classes_are_said_but_not_the_papers_nine():
    classifier, images = small(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    goal = Untargeted(classifier.predict(images))
    with pytest.warns(
        WhyfooledWarning, match="`targets` is 2000, and there are 4 other classes: all of them are aimed"
    ):
        run_attack(APGD(epsilon=1e-4, loss="dlr", targets=2000, steps=1), classifier, images, goal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_attack(APGD(epsilon=1e-4, loss="dlr", targets=9, steps=1), classifier, images, goal)
