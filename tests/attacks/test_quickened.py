"""Attacks on large images search on a quicker copy of the model, and are judged by the model as it is."""

import pytest
import torch
from torch import nn

from whyfooled import BIM, DDN, FGSM, PGD, CarliniWagner, Classifier, Untargeted, run_attack
from whyfooled.attacks import _attack
from whyfooled.classifier.folding import Quickened
from whyfooled.classifier.passes import count_passes
from whyfooled.classifier.workers import LARGE

SIDE = int(LARGE**0.5)
ON_A_COPY = "On a quicker copy of the model, the same function but for rounding (1 batch norm folded into convolutions)"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.convolution, self.norm = nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 4)
            self.norm.running_mean.uniform_(-0.3, 0.3)
            self.norm.running_var.uniform_(0.1, 0.5)

    def forward(self, x):
        return self.head(self.norm(self.convolution(x)).relu().mean((2, 3)))


class Shifted(nn.Module):
    """Nearly a model's copy: it lifts one class."""

    def __init__(self, module, lifted, by):
        super().__init__()
        self.module, self.lifted, self.by = module, lifted, by

    def forward(self, x):
        logits = self.module(x).clone()
        logits[:, self.lifted] += self.by
        return logits


def make(side=SIDE):
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    classifier = Classifier(Net(), size=side)
    return classifier, images, Untargeted(classifier.predict(images))


@pytest.mark.parametrize("attack", [CarliniWagner(steps=20, rounds=2), DDN(steps=20), PGD(epsilon=0.3, steps=20)])
def test_the_search_is_on_a_copy_and_finds_what_is_found_on_the_model(attack, monkeypatch):
    classifier, images, goal = make()
    with count_passes(classifier) as passes:
        made = run_attack(attack, classifier, images, goal)
    assert made.searched_on.startswith(ON_A_COPY)
    monkeypatch.setattr(_attack, "quicken", lambda *_: Quickened(None, "On the model as it is."))
    with count_passes(classifier) as passes_without:
        plain = run_attack(attack, classifier, images, goal)
    assert plain.searched_on == "On the model as it is."
    assert made.success.all()
    torch.testing.assert_close(made.l2, plain.l2, rtol=0.01, atol=0)
    assert torch.equal(made.forwards, plain.forwards)
    assert torch.equal(made.backwards, plain.backwards)
    # Those on the copy count as the model's; two more an image are for what it claims.
    assert passes.backwards == passes_without.backwards
    assert passes.forwards == passes_without.forwards + 2 * len(images)
    # What is said of the result is the model's own.
    assert torch.equal(made.logits, torch.cat([classifier.logits(image[None]) for image in made.attempted]))


@pytest.mark.parametrize("attack", [FGSM(), BIM(steps=5)])
def test_few_passes_are_not_worth_a_copy(attack):
    assert run_attack(attack, *make()).searched_on == ""


def test_small_images_are_attacked_on_the_model():
    said = run_attack(CarliniWagner(steps=20, rounds=1), *make(32)).searched_on
    assert said == "On the model as it is: images this small go through it many at a time."


def test_what_fools_only_the_copy_is_attacked_again_on_the_model(monkeypatch):
    classifier, images, goal = make()
    attack = CarliniWagner(steps=20, rounds=1)
    monkeypatch.setattr(_attack, "quicken", lambda *_: Quickened(None, "On the model as it is."))
    plain = run_attack(attack, classifier, images, goal)
    # The copy of the second image's runner-up is easier to reach.
    runner_up = int(plain.predictions[1])
    liar = Shifted(classifier.module, runner_up, 0.5 * float(goal_margin(plain)[1]))
    monkeypatch.setattr(_attack, "quicken", lambda *_: Quickened(liar, "On a liar."))
    made = run_attack(attack, classifier, images, goal)
    assert made.success.all()
    torch.testing.assert_close(made.attempted, plain.attempted)
    assert torch.equal(made.forwards, 2 * plain.forwards)


def goal_margin(result):
    first, second = result.clean_logits.topk(2).values.unbind(1)
    return first - second


def test_results_that_were_searched_for_alike_say_so_when_joined():
    classifier, images, goal = make()
    result = run_attack(BIM(steps=20), classifier, images, goal)
    assert type(result).join([result, result]).searched_on == result.searched_on != ""
    other = run_attack(BIM(steps=5), classifier, images, goal)
    assert type(result).join([result, other]).searched_on == ""
