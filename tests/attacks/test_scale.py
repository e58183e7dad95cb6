"""The boundary between classes does not move when all logits are multiplied: no more do the examples nearest to it."""

from functools import cache

import pytest
import torch
from torch import nn

from tests.helpers.linear_optimum import distance, linear_case
from tests.helpers.models import small
from whyfooled import BIM, EAD, FMN, PGD, CarliniWagner, Classifier, MinimalAPGD, StrAttack, Untargeted, run_attack
from whyfooled.attacks import DDN, DeepFool, SigmaZero
from whyfooled.registry import describe

SEARCHES = [
    CarliniWagner(),
    FMN(),
    FMN(ball="linf"),
    DDN(),
    DeepFool(),
    DeepFool(ball="linf"),
    SigmaZero(),
    EAD(),
    EAD(decision="l1"),
    MinimalAPGD(),
    MinimalAPGD(ball="linf"),
    StrAttack(group_size=3),
    StrAttack(group_size=4, stride=3, tau=0.1, refine=False),
]
SEARCH = pytest.mark.parametrize("attack", SEARCHES, ids=describe)
FACTOR = pytest.mark.parametrize("factor", [1e-6, 1e6])
NORMS = ("l1", "l2", "linf")


class Scaled(nn.Module):
    """A model whose logits are multiplied by a number."""

    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.module(x)


def scaled(classifier, factor):
    mean, std = (tuple(values.flatten().tolist()) for values in (classifier.mean, classifier.std))
    return Classifier(Scaled(classifier.module, factor).eval(), mean=mean, std=std, size=classifier.size)


def attack_small_network(attack, factor, noise=0.0, seed=0):
    classifier = scaled(small(side=8), factor)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    labels = classifier.predict(images)
    images = images + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return run_attack(attack, classifier, images.clamp(0, 1), Untargeted(labels))


@cache
def usual(attack):
    return attack_small_network(attack, 1)


def sizes(attack, result):
    """Return the norms, one a row; of groups that are not refined the penalty, which alone is made small there."""
    if not isinstance(attack, StrAttack) or attack.refine:
        return torch.stack([getattr(result, norm) for norm in NORMS])
    delta = result.adversarial - result.clean
    # As many zeros below and at the right as the last groups reach over the edge.
    over = -(delta.shape[2] - attack.group_size) % attack.stride
    groups = nn.functional.unfold(nn.functional.pad(delta, (0, over, 0, over)), attack.group_size, stride=attack.stride)
    penalty = attack.tau * groups.norm(dim=1).sum(1) + attack.gamma * delta.flatten(1).square().sum(1)
    return penalty.unsqueeze(0)


@SEARCH
@FACTOR
def test_norms_do_not_depend_on_the_scale_of_the_logits(attack, factor):
    found, expected = attack_small_network(attack, factor), usual(attack)
    assert expected.success.all()
    assert found.success.all()
    torch.testing.assert_close(sizes(attack, found), sizes(attack, expected), rtol=0.02, atol=0)


@SEARCH
def test_norms_do_not_depend_on_the_last_digits_of_the_image(attack):
    norm = "linf" if getattr(attack, "ball", "l2") == "linf" else "l1" if isinstance(attack, EAD) else "l2"
    runs = [usual(attack), *(attack_small_network(attack, 1, noise=1e-7, seed=seed) for seed in range(2))]
    measured = [sizes(attack, result) for result in runs]
    lengths = torch.stack([rows[NORMS.index(norm) if len(rows) > 1 else 0] for rows in measured])
    assert (lengths.amax(0) / lengths.amin(0)).max() < 1.03


@FACTOR
@pytest.mark.parametrize("attack", [CarliniWagner(), FMN(), MinimalAPGD()], ids=describe)
def test_l2_is_the_distance_to_the_boundary_at_every_scale(attack, factor):
    classifier, images, labels, weight = linear_case(5, seed=5)
    optimum = torch.stack([distance(weight, images, labels, (labels + k) % 4) for k in (1, 2, 3)]).amin(0)
    result = run_attack(attack, scaled(classifier, factor), images, Untargeted(labels))
    assert result.success.all()
    assert (result.l2 / optimum).min() >= 1 - 1e-5
    assert (result.l2 / optimum).max() <= 1.02


@FACTOR
@pytest.mark.parametrize("attack", [FMN(ball="linf"), MinimalAPGD(ball="linf")], ids=describe)
def test_linf_is_the_margin_by_the_weights_l1_norm_at_every_scale(attack, factor):
    classifier, images, labels, weight = linear_case(5, seed=5, classes=2)
    towards = weight[1 - labels] - weight[labels]
    optimum = -(images.flatten(1) * towards).sum(1) / towards.abs().sum(1)
    result = run_attack(attack, scaled(classifier, factor), images, Untargeted(labels))
    assert result.success.all()
    assert 1 - 1e-5 <= (result.linf / optimum).min() <= (result.linf / optimum).max() <= 1.02


@FACTOR
def test_l1_is_the_margin_by_the_largest_weight_at_every_scale(factor):
    # One value is enough: its weight is ten times the others'.
    generator = torch.Generator().manual_seed(3)
    _, images, _, weight = linear_case(5, seed=5, classes=2)
    weight[:, 40] = torch.tensor([20.0, -20.0])
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    module[1].weight.data, module[1].bias.data = weight, torch.tensor([0.0, 18.0]) + torch.rand(2, generator=generator)
    classifier = Classifier(module.eval(), size=(8, 8))
    labels = classifier.predict(images)
    margin = Untargeted(labels).margin(classifier.logits(images))
    result = run_attack(EAD(beta=10, decision="l1"), scaled(classifier, factor), images, Untargeted(labels))
    optimum = margin / (weight[0] - weight[1]).abs().amax()
    assert optimum.max() < 0.4
    assert result.success.all()
    assert 1 - 1e-4 <= (result.l1 / optimum).min() <= (result.l1 / optimum).max() <= 1.02


@pytest.mark.parametrize("attack", [BIM(epsilon=0.05), PGD(epsilon=0.05, restarts=2)], ids=describe)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_what_fits_in_a_ball_is_found_at_every_scale(attack, factor):
    # Of a linear classifier with two classes the loss has one direction, whatever the scale.
    classifier, images, labels, _ = linear_case(6, seed=5, classes=2)
    expected = run_attack(attack, classifier, images, Untargeted(labels))
    result = run_attack(attack, scaled(classifier, factor), images, Untargeted(labels))
    assert expected.success.any()
    assert torch.equal(result.success, expected.success)
    assert torch.equal(result.forwards, expected.forwards)
