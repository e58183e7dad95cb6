"""The smallest perturbations of linear classifiers, known in closed form: in l2, l-infinity, l1 and the elastic net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from tests.helpers.linear_optimum import distance, linear_case
from tests.helpers.models import linear
from whyfooled import BIM, EAD, FGSM, FMN, PGD, CarliniWagner, Classifier, Targeted, Untargeted, run_attack
from whyfooled.attacks import DDN, DeepFool, SigmaZero

SIDE, PIXELS = 8, 192


@dataclass(frozen=True)
class Case:
    """Two classes, so that the goal is one plane: a perturbation must gain `need` along the weights `towards`."""

    classifier: Classifier
    images: Tensor
    labels: Tensor
    towards: Tensor
    need: Tensor
    room: Tensor
    limits: dict


def make(name: str, n: int = 5, seed: int = 3) -> Case:
    """Make a case without limits, or one of images far from the other class whose limits bind."""
    _, images, _, weight = linear_case(n, seed=seed, classes=2)
    low, high = (0.2, 0.8) if "box" in name else (0.0, 1.0)
    classifier = linear(weight, torch.tensor([0.0 if name == "free" else 30.0, 0.0]))
    logits = classifier.logits(images)
    labels = logits.argmax(1)
    rows = torch.arange(n)
    towards = weight[1 - labels] - weight[labels]
    room = torch.where(towards > 0, high - images.flatten(1), images.flatten(1) - low)
    limits: dict = {"box": (low, high)}
    if "mask" in name:
        mask = torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.4
        limits["mask"] = mask
        room = room * mask.expand(n, 3, SIDE, SIDE).flatten(1)
    need = logits[rows, labels] - logits[rows, 1 - labels]
    return Case(classifier, images, labels, towards, need, room, limits)


LIMITS = pytest.mark.parametrize("limits", ["free", "mask", "box", "mask and box"])


def goals(case):
    return [Untargeted(case.labels), Targeted(1 - case.labels)]


def attacked(attack, case, aimed=False):
    return run_attack(attack, case.classifier, case.images, goals(case)[aimed], **case.limits)


def smallest(case: Case, shape: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Find the best sizes (n,192) of the changes by bisection.

    The best perturbation has the sizes ``min(shape(t, |w|), room)`` for the smallest `t` (n,1) with which it gains what
    it needs: this is what the Karush-Kuhn-Tucker conditions of the problem say.
    """
    weights, room = case.towards.abs().double(), case.room.double()
    low = torch.zeros(len(weights), 1, dtype=torch.float64)
    high = torch.full_like(low, 1e6)
    for _ in range(100):
        middle = (low + high) / 2
        gained = (weights * torch.minimum(shape(middle, weights), room)).sum(1, keepdim=True)
        short = gained < case.need.double().unsqueeze(1)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.minimum(shape(high, weights), room), high


def proportional(t, weights):
    return t * weights


def equal(t, weights):
    return t.expand_as(weights)


def shrunk(beta):
    return lambda t, weights: ((t * weights - beta) / 2).clamp_min(0)


def greedy(case: Case) -> Tensor:
    """Change the values with the largest weights as far as they go, until enough is gained."""
    weights, order = case.towards.abs().double().sort(1, descending=True)
    room = case.room.double().gather(1, order)
    gain = weights * room
    before = gain.cumsum(1) - gain
    part = ((case.need.double().unsqueeze(1) - before) / gain.clamp_min(1e-30)).clamp(0, 1)
    return torch.zeros_like(weights).scatter(1, order, part * room)


def close(found, optimum, bound):
    """Hold what was found against the optimum; nothing can be below it but for rounding."""
    assert found.shape == optimum.shape
    assert (found / optimum).min() >= 1 - 1e-5
    assert (found / optimum).max() <= bound


@LIMITS
def test_the_optima_are_those_of_a_linear_program(limits):
    case = make(limits, n=2)
    one, largest = greedy(case).sum(1), smallest(case, equal)[0].amax(1)
    for i in range(2):
        weights, room = case.towards[i].abs().double().numpy(), case.room[i].double().numpy()
        need = [-float(case.need[i])]
        least = linprog([1.0] * PIXELS, A_ub=[-weights], b_ub=need, bounds=[(0, r) for r in room])
        assert least.fun == pytest.approx(float(one[i]), rel=1e-6)
        # One more variable bounds all sizes from above.
        sizes = [[*(-weights), 0.0], *([*(1.0 * (j == k) for k in range(PIXELS)), -1.0] for j in range(PIXELS))]
        bounds = [*((0, r) for r in room), (0, None)]
        least = linprog([0.0] * PIXELS + [1.0], A_ub=sizes, b_ub=need + [0.0] * PIXELS, bounds=bounds)
        assert least.fun == pytest.approx(float(largest[i]), rel=1e-6)


def test_limits_bind():
    # Otherwise the tests with limits would be the ones without.
    free, boxed = make("free"), make("mask and box")
    assert (smallest(free, proportional)[0] < free.room).all()
    sizes, _ = smallest(boxed, proportional)
    assert ((sizes == boxed.room) & (boxed.room > 0)).sum(1).min() >= 10


# l2

SEARCH = pytest.mark.parametrize("attack", [CarliniWagner(), FMN(), DDN()], ids=["cw", "fmn", "ddn"])
QUICK_TOO = pytest.mark.parametrize(
    "attack", [CarliniWagner(), FMN(), DDN(), DeepFool()], ids=["cw", "fmn", "ddn", "deepfool"]
)


@LIMITS
@pytest.mark.parametrize("aimed", [False, True])
@SEARCH
def test_l2_is_within_2_percent_of_the_optimum(attack, limits, aimed):
    case = make(limits)
    result = attacked(attack, case, aimed)
    assert result.success.all()
    close(result.l2, smallest(case, proportional)[0].norm(dim=1), 1.02)


@QUICK_TOO
@pytest.mark.parametrize("seed", range(4))
def test_l2_is_near_the_optimum_whatever_the_images(attack, seed):
    case = make("free", n=8, seed=seed)
    result = attacked(attack, case)
    assert result.success.all()
    close(result.l2, smallest(case, proportional)[0].norm(dim=1), 1.02)


@pytest.mark.parametrize("n", [1, 2, 7])
@QUICK_TOO
def test_l2_is_the_distance_to_the_nearest_of_several_classes(attack, n):
    classifier, images, labels, weight = linear_case(n, seed=n)
    optimum = torch.stack([distance(weight, images, labels, (labels + k) % 4) for k in (1, 2, 3)]).amin(0)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert result.success.all()
    close(result.l2, optimum, 1.02)


# l-infinity


@LIMITS
@pytest.mark.parametrize("aimed", [False, True])
def test_linf_is_within_2_percent_of_the_optimum(limits, aimed):
    case = make(limits)
    result = attacked(FMN(ball="linf"), case, aimed)
    assert result.success.all()
    close(result.linf, smallest(case, equal)[0].amax(1), 1.02)


def test_linf_without_limits_is_the_margin_by_the_weights_l1_norm():
    case = make("free", n=8)
    result = attacked(FMN(ball="linf"), case)
    assert result.success.all()
    close(result.linf, case.need / case.towards.abs().sum(1), 1.02)


@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_deepfool_goes_to_the_nearest_of_several_classes_in_one_step(ball):
    classifier, images, labels, weight = linear_case(8, seed=2)
    result = run_attack(DeepFool(ball=ball), classifier, images, Untargeted(labels))
    rows = torch.arange(8)
    logits = classifier.logits(images)
    optima = []
    for shift in (1, 2, 3):
        other = (labels + shift) % 4
        towards = weight[other] - weight[labels]
        dual = towards.norm(dim=1) if ball == "l2" else towards.abs().sum(1)
        optima.append((logits[rows, labels] - logits[rows, other]) / dual)
    assert result.success.all()
    close(result.l2 if ball == "l2" else result.linf, torch.stack(optima).amin(0), 1.02)
    # The clean image, the first point and the one after the step, and six to come back.
    assert result.forwards.unique().tolist() == [9]
    assert result.backwards.unique().tolist() == [3]


@pytest.mark.parametrize("ball", ["l2", "linf"])
@pytest.mark.parametrize("steps", [20, 50])
def test_a_minimum_norm_search_never_stops_at_the_boundary_itself(ball, steps):
    # A step to the linearised boundary of a linear classifier ends on it, where rounding decides.
    for seed in (103, 108, 109, 111):
        classifier, images, labels, _ = linear_case(8, seed=seed)
        result = run_attack(FMN(ball=ball, steps=steps), classifier, images, Untargeted(labels))
        assert result.success.all()


@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_the_first_step_of_a_minimum_norm_search_goes_to_the_boundary(ball):
    # With a long step the first projection is the nearest point of the plane.
    case = make("free", n=8)
    result = attacked(FMN(ball=ball, steps=2, step_size=100), case)
    optimum = smallest(case, proportional)[0].norm(dim=1) if ball == "l2" else smallest(case, equal)[0].amax(1)
    assert result.success.all()
    close(result.l2 if ball == "l2" else result.linf, optimum, 1.02)


@LIMITS
@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("attack", [FGSM, BIM, PGD])
def test_the_smallest_linf_radius_is_bracketed(attack, limits, aimed):
    case = make(limits, n=3)
    optimum = smallest(case, equal)[0].amax(1)
    for i in range(3):
        one = torch.tensor([i])
        more = {name: limit[one] if name == "mask" else limit for name, limit in case.limits.items()}
        for scale, expected in ((1.02, True), (0.98, False)):
            made = attack(epsilon=scale * float(optimum[i]))
            goal = goals(case)[aimed].select(one)
            result = run_attack(made, case.classifier, case.images[one], goal, **more)
            assert result.success.tolist() == [expected]
            assert (result.attempted - case.images[one]).abs().max() <= scale * float(optimum[i]) * (1 + 1e-5)


@pytest.mark.parametrize("attack", [FGSM, BIM, PGD])
def test_the_smallest_l2_radius_is_bracketed(attack):
    case = make("free", n=3)
    optimum = case.need / case.towards.norm(dim=1)
    for i in range(3):
        for scale, expected in ((1.02, True), (0.98, False)):
            more = {} if attack is FGSM else {"steps": 40}
            made = attack(epsilon=scale * float(optimum[i]), ball="l2", **more)
            one = slice(i, i + 1)
            result = run_attack(made, case.classifier, case.images[one], Untargeted(case.labels[one]))
            assert result.success.tolist() == [expected]


# l1 and the elastic net

SPARSE = EAD(beta=10, decision="l1", steps=200)


@LIMITS
@pytest.mark.parametrize("aimed", [False, True])
def test_l1_is_within_2_percent_of_the_optimum(limits, aimed):
    case = make(limits)
    best = greedy(case)
    result = attacked(SPARSE, case, aimed)
    assert result.success.all()
    close(result.l1, best.sum(1), 1.02)


@LIMITS
def test_values_with_small_weights_are_left_bit_for_bit(limits):
    case = make(limits)
    weights, best = case.towards.abs(), greedy(case)
    least = torch.where(best > 0, weights, torch.inf).amin(1, keepdim=True)
    result = attacked(SPARSE, case)
    unneeded = weights < 0.75 * least
    assert unneeded.sum(1).min() >= 40
    assert torch.equal(result.adversarial.flatten(1)[unneeded], case.images.flatten(1)[unneeded])
    # What the optimum uses up before its last value is used.
    needed = (best > 0) & (weights > 1.1 * least)
    assert needed.any(1).all()
    assert (result.delta.flatten(1)[needed] != 0).all()


@LIMITS
def test_the_elastic_net_is_within_2_percent_of_its_optimum(limits):
    case, beta = make(limits), 0.1
    sizes, _ = smallest(case, shrunk(beta))
    result = attacked(EAD(beta=beta), case)
    assert result.success.all()
    optimum = beta * sizes.sum(1) + sizes.square().sum(1)
    close(beta * result.l1 + result.l2.square(), optimum, 1.02)


@LIMITS
def test_the_elastic_net_changes_the_values_whose_weight_is_above_its_threshold(limits):
    case, beta = make(limits), 0.1
    _, slope = smallest(case, shrunk(beta))
    result = attacked(EAD(beta=beta), case)
    weights, changed = case.towards.abs(), result.delta.flatten(1) != 0
    below, above = weights < 0.7 * beta / slope, (weights > 1.3 * beta / slope) & (case.room > 0)
    assert below.any(1).all()
    assert above.any(1).all()
    assert not changed[below].any()
    assert changed[above].all()


def test_the_decision_chooses_among_the_examples_of_the_same_search():
    # In a single round: the next one would start at the example chosen.
    case, beta = make("free"), 0.01
    net, one = (attacked(EAD(beta=beta, decision=decision, rounds=1), case) for decision in ("en", "l1"))
    assert net.success.all()
    assert one.success.all()
    assert (one.l1 <= net.l1).all()
    assert (beta * net.l1 + net.l2.square() <= beta * one.l1 + one.l2.square()).all()
    assert (one.l1 < net.l1).any()


@LIMITS
def test_l1_is_sparser_than_l2(limits):
    case = make(limits)
    few, many = attacked(SPARSE, case), attacked(CarliniWagner(), case)
    assert ((few.delta != 0).flatten(1).sum(1) < (many.delta != 0).flatten(1).sum(1)).all()
    assert (few.l1 < many.l1).all()
    assert (few.l2 > many.l2).all()


# l0


def pixels_needed(case: Case) -> Tensor:
    """Count (n,) the pixels that gain what is needed, those that can gain most changed first, as far as they go."""
    gain = (case.towards.abs() * case.room).view(-1, 3, PIXELS // 3).sum(1)
    gained = gain.sort(1, descending=True).values.cumsum(1)
    return (gained < case.need.unsqueeze(1)).sum(1) + 1


@LIMITS
def test_hardly_more_pixels_are_changed_than_have_to_be(limits):
    case = make(limits)
    result = attacked(SigmaZero(), case)
    least = pixels_needed(case)
    assert result.success.all()
    assert least.max() >= 3
    assert (result.l0 >= least).all()
    assert (result.l0 <= least + 1 + least // 4).all()
    assert (result.l0 < attacked(SPARSE, case).l0).all()
