"""Refined attacks: where they act, what they cost, and the closed form of a linear classifier."""

import jaxtyping
import pytest
import torch

from tests.helpers.linear_optimum import distance
from tests.helpers.models import linear, small
from whyfooled import BIM, FMN, CarliniWagner, Gradient, Refined, Targeted, Untargeted, adapt, count_passes, run_attack
from whyfooled.attacks import Problem
from whyfooled.classifier.classifier import strongest_other
from whyfooled.errors import ParameterError
from whyfooled.perturbation import Grid, attack_region, sensitivity

QUICK = CarliniWagner(steps=25)
WHERE = pytest.mark.parametrize("where", ["cam", "sensitivity", "random"])
AIMED = pytest.mark.parametrize("aimed", [False, True])


def case(n=4, seed=7):
    classifier = small()
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return classifier, images, classifier.predict(images)


def goal_of(labels, aimed):
    return Targeted((labels + 1) % 5) if aimed else Untargeted(labels)


def region_of(refined, classifier, images, labels, goal):
    """Choose the region from a run of the attack without it."""
    plain = run_attack(refined.attack, classifier, images, goal)
    target = goal.classes if isinstance(goal, Targeted) else strongest_other(plain.logits, labels)
    return plain, attack_region(
        classifier,
        images,
        plain.attempted,
        labels,
        target,
        refined.where,
        keep=refined.keep,
        cam=refined.cam,
        regions=Grid(refined.cell),
        seed=refined.seed,
    )


@WHERE
@AIMED
@pytest.mark.parametrize("attack", [QUICK, BIM(epsilon=0.5), BIM(epsilon=0.001)], ids=["cw", "bim", "weak"])
def test_it_is_the_same_attack_inside_the_region_and_nowhere_else(attack, where, aimed):
    classifier, images, labels = case()
    goal, refined = goal_of(labels, aimed), Refined(attack, where, keep=0.5, cell=3, seed=2)
    result = run_attack(refined, classifier, images, goal)
    _, region = region_of(refined, classifier, images, labels, goal)
    assert 0 < region.float().mean() < 1
    outside = ~region.expand_as(images)
    assert torch.equal(result.attempted[outside], images[outside])
    assert (result.attempted != images).any(1, keepdim=True)[region].any()
    again = run_attack(attack, classifier, images, goal, mask=region)
    assert torch.equal(result.attempted, again.attempted)
    assert torch.equal(result.success, again.success)
    assert torch.equal(goal.reached(classifier.logits(result.adversarial)), result.success)


@WHERE
@AIMED
def test_all_passes_are_counted_image_by_image(where, aimed):
    classifier, images, labels = case()
    goal, refined = goal_of(labels, aimed), Refined(FMN(steps=20), where, keep=0.5, cell=3)
    with count_passes(classifier) as passes:
        result = refined.attempt(Problem.of(classifier, images, goal))
    assert int(result.forwards.sum()) == passes.forwards
    assert int(result.backwards.sum()) == passes.backwards
    plain, region = region_of(refined, classifier, images, labels, goal)
    again = run_attack(refined.attack, classifier, images, goal, mask=region)
    target = goal.classes if aimed else strongest_other(plain.logits, labels)
    extra = torch.full((4,), 3)
    if where != "cam":
        extra = 2 + sensitivity(classifier, images, plain.attempted, labels, target, Grid(3)).touched.sum(1)
    assert torch.equal(result.forwards, plain.forwards + extra + again.forwards)
    assert torch.equal(result.backwards, plain.backwards + again.backwards)


def test_passes_of_maps_that_reach_the_image_are_counted():
    classifier, images, labels = case()
    problem = Problem.of(classifier, images, Untargeted(labels))
    with count_passes(classifier) as passes:
        result = Refined(FMN(steps=20), cam=Gradient()).attempt(problem)
    assert (int(result.forwards.sum()), int(result.backwards.sum())) == (passes.forwards, passes.backwards)
    plain = FMN(steps=20).attempt(problem)
    assert (result.backwards - plain.backwards).min() >= 2


@WHERE
def test_on_a_linear_classifier_it_finds_the_nearest_example_inside_the_region(where):
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(2, 192, generator=generator)
    images = 0.5 + 0.02 * torch.randn(6, 3, 8, 8, generator=generator)
    classifier = linear(weight)
    labels = classifier.predict(images)
    refined = Refined(CarliniWagner(), where, keep=0.4, cell=2, cam=Gradient())
    result = run_attack(refined, classifier, images, Targeted(1 - labels))
    _, region = region_of(refined, classifier, images, labels, Targeted(1 - labels))
    inside = region.expand_as(images).flatten(1)
    w = (weight[1 - labels] - weight[labels]) * inside
    whole = distance(weight, images, labels, 1 - labels)
    # The distance to the hyperplane, when only some coordinates may move.
    optimum = whole * (weight[1] - weight[0]).norm() / w.norm(dim=1)
    assert result.success.all()
    assert (result.l2 / optimum).min() >= 1
    assert (result.l2 / optimum).max() <= 1.05
    assert (result.l2 > whole).all()
    if where == "sensitivity":
        # The nearest example of the first run spends on each cell as much as its weights count, so the cells that
        # are most sensitive are those of the largest weights, and no other seven of the 16 would do as well.
        cells = (weight[1] - weight[0]).view(3, 4, 2, 4, 2).square().sum((0, 2, 4)).flatten()
        assert torch.allclose(w.square().sum(1), cells.topk(6).values.sum(), rtol=1e-3)


def test_there_is_no_way_back_to_the_attack_without_the_region():
    # The target's weight lies everywhere; each pixel alone can move the logits by less than is missing.
    weight = torch.zeros(2, 192)
    weight[1] = 1.0
    classifier = linear(weight, torch.tensor([192 * 0.51, 0.0]))
    images = torch.full((2, 3, 8, 8), 0.5)
    attack = BIM(epsilon=0.02, steps=10)
    goal = Targeted(torch.tensor([1, 1]))
    assert run_attack(attack, classifier, images, goal).success.all()
    result = run_attack(Refined(attack, "random", keep=0.3, cell=2), classifier, images, goal)
    assert not result.success.any()
    assert torch.equal(result.adversarial, images)
    changed = (result.attempted != images).any(1).flatten(1).sum(1)
    assert changed.tolist() == [20, 20]  # 5 of 16 cells of 4 pixels


def test_an_image_that_the_first_run_leaves_as_it_is_stays_and_costs_no_more():
    classifier = linear(torch.zeros(3, 192), torch.tensor([0.0, 1.0, 0.5]))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    problem = Problem.of(classifier, images, Untargeted(torch.tensor([1, 1])))
    plain = QUICK.attempt(problem)
    for where in ("cam", "sensitivity", "random"):
        found = Refined(QUICK, where, cell=2).attempt(problem)
        assert torch.equal(found.images, images)
        assert torch.equal(found.forwards, plain.forwards)
        assert torch.equal(found.backwards, plain.backwards)


def test_the_users_mask_is_kept_and_may_leave_nothing():
    classifier, images, labels = case()
    refined = Refined(FMN(steps=30), "sensitivity", keep=0.1, cell=4)
    mask = torch.zeros(4, 1, 16, 16)
    mask[:, :, :8, :8] = 1
    result = run_attack(refined, classifier, images, Untargeted(labels), mask=mask)
    assert torch.equal(result.attempted * (1 - mask), images * (1 - mask))
    assert (result.attempted != images).flatten(1).any(1).all()
    # Drawn at random, the one cell mostly lies outside; such an image stays, and pays for the first run only.
    drawn = Refined(FMN(steps=30), "random", keep=0.01, cell=4)
    problem = Problem.of(classifier, images, Untargeted(labels), mask)
    with count_passes(classifier) as passes:
        found = drawn.attempt(problem)
    assert int(found.forwards.sum()) == passes.forwards
    stayed = (found.images == images).flatten(1).all(1)
    assert stayed.any()
    plain = FMN(steps=30).attempt(problem)
    assert torch.equal(found.forwards[stayed], (plain.forwards + 2 + 4)[stayed])


def test_progress_goes_on_from_one_run_to_the_next():
    classifier, images, labels = case()
    seen = []
    problem = Problem.of(classifier, images, Untargeted(labels))
    Refined(FMN(steps=10), "sensitivity", cell=4).attempt(problem, lambda *step: seen.append(step))
    done = [step for step, _, _ in seen]
    assert done == sorted(done)
    # Twice ten steps, and twice four of the second run.
    assert seen[-1] == (28, 28, "attack")
    assert {total for _, total, _ in seen} == {28}


def test_it_can_be_refined_once_more():
    classifier, images, labels = case()
    twice = Refined(Refined(FMN(steps=20), "sensitivity", 0.5, cell=4), "random", 0.9, cell=4)
    result = run_attack(twice, classifier, images, Untargeted(labels))
    assert result.l0.max() <= 128


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"where": "here"}, "`where` must be one of cam, sensitivity, random; got here"),
        ({"keep": 0.0}, "`keep` must be above 0 and at most 1; got 0"),
        ({"keep": 1.5}, "`keep` must be above 0 and at most 1; got 1.5"),
        ({"cell": 0}, "`cell` must be at least 1; got 0"),
        ({"attack": adapt(lambda model, x, y: x)}, "`attack` must be an attack of whyfooled, such as BIM"),
        ({"attack": BIM}, "`attack` must be an attack of whyfooled, such as BIM"),
        ({"cam": "gradcam"}, "`cam` must be a saliency method, such as GradCAM"),
    ],
)
def test_bad_parameters_are_named(parameters, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=message):
        Refined(**parameters)


def test_a_cell_that_does_not_fit_is_said_before_the_work():
    classifier, images, labels = case()
    refined = Refined(QUICK, "random", cell=17)
    message = "`cell` must fit into the image of 16 × 16 pixels; got 17"
    with count_passes(classifier) as passes, pytest.raises(ParameterError, match=message):
        run_attack(refined, classifier, images, Untargeted(labels))
    assert passes.forwards == 6  # the clean images' logits, and twice more the first's
