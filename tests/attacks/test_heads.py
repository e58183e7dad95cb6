"""Attacks on models with one logit, and on models that give several labels: one is switched, the others stay."""

import functools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from whyfooled import (
    DDN,
    FMN,
    PGD,
    AttackResult,
    CarliniWagner,
    Classifier,
    DeepFool,
    Switched,
    Targeted,
    Untargeted,
    run_attack,
)
from whyfooled.errors import ParameterError
from whyfooled.registry import make_every


def linear(weights, biases, **more) -> Classifier:
    """Make a linear classifier of the four values of a grey image."""
    layer = nn.Linear(4, len(weights))
    layer.load_state_dict({"weight": torch.tensor(weights), "bias": torch.tensor(biases)})
    return Classifier(nn.Sequential(nn.Flatten(), layer), mean=[0.0], std=[1.0], size=(2, 2), **more)


IMAGES = torch.full((1, 1, 2, 2), 0.5)
SINGLE = [[0.4, 0.2, 0.4, 0.0]]


class TestOneLogit:
    """z = .4a + .2b + .4c − .4 is .1 for the grey image, and its weights have the length .6."""

    @pytest.mark.parametrize("attack", [CarliniWagner(), DeepFool()], ids=lambda attack: type(attack).__name__)
    @pytest.mark.parametrize("goal", [Untargeted(torch.tensor([1])), Targeted(torch.tensor([0]))])
    def test_the_nearest_adversarial_image_is_found(self, attack, goal):
        classifier = linear(SINGLE, [-0.4])
        result = run_attack(attack, classifier, IMAGES, goal)
        assert result.success.tolist() == [True]
        assert float(result.l2) == pytest.approx(0.1 / 0.6, rel=0.02)
        assert result.predictions.tolist() == [0]

    def test_what_is_missing_is_the_logit(self):
        logits = linear(SINGLE, [-0.4]).logits(IMAGES)
        assert float(Untargeted(torch.tensor([1])).margin(logits)) == pytest.approx(0.1)
        assert float(Untargeted(torch.tensor([0])).margin(logits)) == pytest.approx(-0.1)
        assert float(Untargeted(torch.tensor([1])).loss(logits)) == pytest.approx(0.1)

    def test_the_difference_of_logits_ratio_needs_more_classes(self):
        with pytest.raises(ParameterError, match="must be ce for a classifier of fewer than 3 classes"):
            run_attack(make("apgd(loss=dlr)"), linear(SINGLE, [-0.4]), IMAGES, Untargeted(torch.tensor([1])))


def make(text):
    from whyfooled.registry import parse

    return parse("attacks", text)


QUICK = {"steps": 10, "queries": 50, "rounds": 1}
EVERY = [
    replace(attack, **{name: value for name, value in QUICK.items() if hasattr(attack, name)})
    for attack in make_every("attacks")
]

# z = (.2, .02) for the grey image. Straight against the first label, the second one would go too.
LABELS = linear([[1.0, 0.0, 0.0, 0.0], [0.6, 0.8, 0.0, 0.0]], [-0.3, -0.68], several_labels=True)
NEAREST = math.hypot(0.2, (0.12 - 0.02) / 0.8)


class TestSwitched:
    def goal(self, label=0) -> Switched:
        return Switched.of(LABELS.logits(IMAGES), torch.tensor([label]))

    def test_its_numbers_are_those_of_the_worst_label(self):
        before = torch.tensor([[3.0, -2.0, 1.0], [-1.0, 2.0, 4.0]])
        goal = Switched.of(before, torch.tensor([0, 2]))
        assert goal.wanted.tolist() == [[False, False, True], [False, True, False]]
        after = torch.tensor([[-3.0, -0.5, 1.0], [-1.0, 2.0, 0.5]])
        assert goal.margin(before).tolist() == [3.0, 4.0]
        assert goal.margin(after).tolist() == [-0.5, 0.5]
        odds = math.exp(-3) + math.exp(-0.5) + math.exp(-1), math.exp(-1) + math.exp(-2) + math.exp(0.5)
        assert goal.loss(after).tolist() == pytest.approx([math.log(odd) for odd in odds], rel=1e-5)
        assert goal.reached(after).tolist() == [True, False]
        posed = Targeted(torch.tensor([3, 3]))
        assert goal.pose(after).tolist() == [[-3.0, -0.5, -1.0, 0.0], [-1.0, -2.0, 0.5, 0.0]]
        assert posed.margin(goal.pose(after)).tolist() == [-0.5, 0.5]
        assert torch.allclose(posed.loss(goal.pose(after)), goal.loss(after))
        assert goal.select(torch.tensor([1])).wanted.tolist() == [[False, True, False]]
        # Where a label is switched and another one goes with it, the goal is not reached.
        assert goal.reached(torch.tensor([[-3.0, 0.5, 1.0], [-1.0, 2.0, -0.5]])).tolist() == [False, True]

    @pytest.mark.parametrize("attack", [CarliniWagner(), FMN(), DDN()], ids=lambda attack: type(attack).__name__)
    def test_the_nearest_image_with_the_other_label_kept_is_found(self, attack):
        result = run_attack(attack, LABELS, IMAGES, self.goal())
        assert result.success.tolist() == [True]
        assert (result.logits[0] > 0).tolist() == [False, True]
        assert NEAREST <= float(result.l2) <= 1.05 * NEAREST

    def test_an_attack_on_the_label_alone_takes_the_other_one_with_it(self):
        result = run_attack(FMN(), LABELS.ask(0), IMAGES, Untargeted(torch.tensor([1])))
        assert float(result.l2) == pytest.approx(0.2, rel=0.02)
        assert (LABELS.logits(result.adversarial)[0] > 0).tolist() == [False, False]

    def test_a_label_is_switched_on(self):
        classifier = linear([[1.0, 0.0, 0.0, 0.0], [0.0, 0.6, 0.8, 0.0]], [-0.3, -0.8], several_labels=True)
        result = run_attack(FMN(), classifier, IMAGES, Switched.of(classifier.logits(IMAGES), torch.tensor([1])))
        assert float(result.l2) == pytest.approx(0.1, rel=0.02)
        assert (result.logits[0] > 0).tolist() == [True, True]

    @pytest.mark.filterwarnings("ignore:The model has 3 classes, and DLR")
    @pytest.mark.parametrize("attack", EVERY, ids=lambda attack: type(attack).__name__)
    def test_every_attack_keeps_what_it_says_or_is_refused_by_name(self, attack):
        many = IMAGES.expand(2, -1, -1, -1) + torch.tensor([0.0, 0.02]).view(-1, 1, 1, 1)
        goal = Switched.of(LABELS.logits(many), torch.tensor([0, 1]))
        if not attack.switches_labels:
            with pytest.raises(ParameterError) as raised:
                run_attack(attack, LABELS, many, goal)
            assert str(raised.value) == (
                f"`goal` must be Untargeted(labels) or Targeted(classes) for {attack.card.title}; got Switched. Attack "
                "one label, classifier.ask('label') (--ask label), or take another attack."
            )
            return
        result = run_attack(attack, LABELS, many, goal)
        assert (((result.logits > 0) == goal.wanted).all(1) == result.success).all()
        assert torch.equal(result.adversarial[~result.success], many[~result.success])

    def test_those_alone_are_refused_that_ask_for_maps(self):
        refused = {type(attack).__name__ for attack in EVERY if not attack.switches_labels}
        assert refused == {"Refined", "ExplanationAware"}

    def test_enough_attacks_reach_it(self):
        for attack in (PGD(epsilon=0.4, steps=40), make("apgd(epsilon=0.4)"), make("square(epsilon=0.4, queries=200)")):
            assert run_attack(attack, LABELS, IMAGES, self.goal()).success.tolist() == [True], attack

    def test_one_images_result_does_not_depend_on_the_others(self):
        many = torch.cat([IMAGES, IMAGES + 0.03, IMAGES])
        goal = Switched.of(LABELS.logits(many), torch.tensor([0, 1, 1]))
        together = run_attack(FMN(steps=20), LABELS, many, goal)
        for number in (0, 2):
            one = torch.tensor([number])
            alone = run_attack(FMN(steps=20), LABELS, many[one], goal.select(one))
            assert torch.allclose(alone.adversarial, together.adversarial[one], atol=1e-6)
        joined = AttackResult.join([together.select(torch.tensor([0])), together.select(torch.tensor([1, 2]))])
        assert torch.equal(joined.goal.wanted, goal.wanted)
        assert joined.to_frame()["goal_class"].tolist() == [0, 1, 1]
        assert set(joined.to_frame()["goal"]) == {"switched"}

    @pytest.mark.parametrize("goal", [Untargeted(torch.tensor([0])), Targeted(torch.tensor([1]))])
    def test_other_goals_are_refused(self, goal):
        with pytest.raises(ParameterError) as raised:
            run_attack(FMN(), LABELS, IMAGES, goal)
        assert str(raised.value) == (
            "`goal` must be to switch a label of a model that gives several at once; got "
            f"{type(goal).__name__}. Give Switched.of(classifier.logits(images), labels), or attack "
            "classifier.ask('label'), with two classes."
        )

    def test_it_is_refused_where_it_makes_no_sense(self):
        with pytest.raises(ParameterError, match=r"for a model with one answer; got Switched\. .* several_labels=True"):
            run_attack(FMN(), linear(SINGLE, [0.0]), IMAGES, self.goal())
        with pytest.raises(ParameterError, match=r"for an attack of another library; got Switched"):
            run_attack(lambda model, x, y: x, LABELS, IMAGES, self.goal())
        with pytest.raises(ParameterError, match=r"of each of the 2 labels whether it is to be on; got a row of 1"):
            run_attack(FMN(), LABELS, IMAGES, Switched(torch.tensor([0]), torch.tensor([[True]])))
        with pytest.raises(ParameterError, match="`classes` must be class indices from 0 to 1"):
            run_attack(FMN(), LABELS, IMAGES, Switched(torch.tensor([2]), torch.tensor([[True, False]])))

    def test_a_callable_that_takes_the_goal_is_given_it(self):
        seen = []

        def attack(classifier, images, goal):
            seen.append(goal)
            return FMN()(classifier, images, goal)

        assert run_attack(attack, LABELS, IMAGES, self.goal()).success.tolist() == [True]
        assert isinstance(seen[0], Switched)
        with pytest.raises(ParameterError, match="another library"):
            run_attack(functools.partial(lambda model, x, y: x), LABELS, IMAGES, self.goal())
