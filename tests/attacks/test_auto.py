"""The AutoAttack protocol: each stage on what is left, the worst case for each image."""

import pytest
import torch
from torch import nn

from tests.helpers.linear_optimum import distance, linear_case
from tests.helpers.models import linear, small
from whyfooled import APGD, AutoAttack, Classifier, Square, Targeted, Untargeted, run_attack
from whyfooled.errors import ParameterError, WhyfooledWarning
from whyfooled.registry import parse

SHORT = {"steps": 12, "targets": 3, "queries": 30}


def run(attack, classifier, images, goal):
    """Attack, and return what its progress lines say beside the result: each once."""
    lines = []

    def note(done, total, doing):
        assert 0 <= done <= total
        if doing not in lines:
            lines.append(doing)

    return run_attack(attack, classifier, images, goal, progress=note), lines


@pytest.mark.parametrize("ball", ["linf", "l2"])
def test_robust_accuracy_is_the_share_of_the_images_whose_ball_holds_no_other_class(ball):
    classifier, images, labels, weight = linear_case(12, seed=4)
    by_class = []
    for k in (1, 2, 3):
        other = (labels + k) % 4
        towards = weight[other] - weight[labels]
        need = distance(weight, images, labels, other) * towards.norm(dim=1)
        by_class.append(need / (towards.abs().sum(1) if ball == "linf" else towards.norm(dim=1)))
    nearest = torch.stack(by_class).amin(0)
    epsilon = float(nearest.median()) * 1.001
    assert (nearest / epsilon - 1).abs().min() > 5e-4
    result, _ = run(AutoAttack(epsilon=epsilon, ball=ball, **SHORT), classifier, images, Untargeted(labels))
    assert torch.equal(result.success, nearest < epsilon)


def test_each_stage_says_how_many_images_are_robust_when_it_begins():
    classifier = small()
    images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    goal = Untargeted(classifier.predict(images))
    result, lines = run(AutoAttack(epsilon=0.02, **SHORT), classifier, images, goal)
    titles, standings = zip(*(line.split(", ") for line in lines), strict=True)
    assert titles == ("APGD-CE", "APGD-T", "FMN-T", "Square")
    counts = [int(standing.removesuffix(" robust")) for standing in standings] + [int((~result.success).sum())]
    # Each image says which stage fooled it: of those that a stage begins with, it leaves the next one's.
    assert [int(((result.stage == 0) | (result.stage > number)).sum()) for number in range(5)] == counts
    assert torch.equal(result.stage > 0, result.success)
    assert result.select(result.success).stage.min() == 1
    table = result.to_frame()
    assert table["stage"].isna().tolist() == (~result.success).tolist()
    assert type(result).join([result, result]).stage.tolist() == 2 * result.stage.tolist()
    first = run_attack(APGD(epsilon=0.02, steps=12), classifier, images, goal)
    assert counts[0] == 12 > counts[1] == int((~first.success).sum())
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0
    # The worst case of each image.
    others = [APGD(epsilon=0.02, steps=12, loss="dlr", targets=3), Square(epsilon=0.02, queries=30)]
    for attack in (APGD(epsilon=0.02, steps=12), *others):
        assert (run_attack(attack, classifier, images, goal).success <= result.success).all()


def test_an_image_costs_only_the_stages_that_it_resists():
    classifier, images, labels, _ = linear_case(4, seed=1)
    goal = Untargeted(labels)
    first = run_attack(APGD(epsilon=0.5, steps=12), classifier, images, goal)
    result, lines = run(AutoAttack(epsilon=0.5, **SHORT), classifier, images, goal)
    assert lines == ["APGD-CE, 4 robust"]
    assert torch.equal(result.attempted, first.attempted)
    # The clean image once, and what the stage ended with.
    assert torch.equal(result.forwards, first.forwards + 2)
    assert torch.equal(result.backwards, first.backwards)


class Steps(nn.Module):
    """A linear model of the pixels in steps of a sixteenth: its gradients are there, and 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 8, 8))
        self.weight.data[:, :, 4:] = -1

    def forward(self, x):
        score = (self.weight * (torch.floor(16 * x) / 16 + 0 * x)).sum((1, 2, 3))
        return torch.stack([0 * score + 20, score, 0 * score, 0 * score], 1)


def test_where_gradients_lead_nowhere_the_random_search_is_left():
    classifier = Classifier(Steps().eval(), size=(8, 8))
    images = torch.full((2, 3, 8, 8), 0.5)
    images[1] = 0.55
    attack = AutoAttack(epsilon=0.3, steps=3, queries=200)
    result, lines = run(attack, classifier, images, Untargeted(torch.tensor([0, 0])))
    assert lines == [f"{stage}, 2 robust" for stage in ("APGD-CE", "APGD-T", "FMN-T", "Square")]
    assert result.success.all()


def test_a_class_to_reach_is_the_one_that_every_stage_leads_to():
    classifier = small()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    labels = classifier.predict(images)
    # One class can be reached in this ball, the other cannot, though further ones are.
    goal = Targeted((labels + torch.tensor([2, 3, 2, 3])) % 5)
    result, lines = run(AutoAttack(epsilon=0.2, **SHORT), classifier, images, goal)
    assert len(lines) == 4
    assert result.success.tolist() == [True, False, True, False]
    assert torch.equal(result.predictions[result.success], goal.classes[result.success])


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_take_the_cross_entropy_and_are_told_so(classes):
    classifier, images, labels, _ = linear_case(6, seed=5, classes=classes)
    with pytest.warns(WhyfooledWarning, match=f"The model has {classes} classes, and DLR .* needs 4: APGD-T goes down"):
        result, lines = run(AutoAttack(epsilon=0.01, **SHORT), classifier, images, Untargeted(labels))
    assert [line.partition(",")[0] for line in lines] == ["APGD-CE", "APGD-T", "FMN-T", "Square"]
    assert not result.success.all()


def test_an_image_that_all_stages_fail_on_costs_what_they_cost():
    hopeless = linear(torch.zeros(4, 192), torch.tensor([0.0, 1.0, 0.5, 0.2]))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    result, _ = run(AutoAttack(steps=20, targets=2, queries=7), hopeless, images, Untargeted(torch.ones(2).long()))
    ce, t, fmn, square = 20 + 1, 1 + 2 * (20 + 1), 1 + 2 * (1 + 10 + 4 + 1), 7
    assert result.forwards.tolist() == [1 + (ce + 1) + (t + 1) + (fmn + 1) + (square + 1)] * 2
    assert result.backwards.tolist() == [20 + 2 * 20 + 2 * (10 + 4)] * 2


def test_the_command_lines_words_make_it():
    assert parse("attacks", "auto", {"epsilon": "8/255", "steps": 20}) == AutoAttack(epsilon=8 / 255, steps=20)
    assert parse("attacks", "auto(ball=l2, epsilon=0.5, queries=500)") == AutoAttack(0.5, "l2", queries=500)


@pytest.mark.parametrize("name", ["steps", "targets", "queries"])
def test_a_budget_of_nothing_is_refused(name):
    with pytest.raises(ParameterError, match=f"`{name}` must be at least 1; got 0"):
        AutoAttack(**{name: 0})
