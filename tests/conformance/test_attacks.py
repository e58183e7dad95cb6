"""What holds for every attack, whichever it is."""

import dataclasses

import pytest
import torch

import whyfooled.attacks
from tests.models import small
from whyfooled import Targeted, Untargeted, count_passes, run_attack
from whyfooled.attacks import ATTACKS
from whyfooled.attacks._attack import Attack
from whyfooled.errors import ModelError
from whyfooled.registry import available, describe, parse

# Radii at which the small network is fooled.
BUDGET = {"fgsm": {"epsilon": 0.3}, "bim": {"epsilon": 0.3}, "pgd": {"epsilon": 0.3, "restarts": 2}, "cw": {}}
EVERY = [attack(**BUDGET[attack.card.name]) for attack in ATTACKS]
ATTACK = pytest.mark.parametrize("attack", EVERY, ids=repr)


def case(n=4, seed=7):
    classifier = small()
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return classifier, images, classifier.predict(images)


def goals(labels):
    return [Untargeted(labels), Targeted((labels + 1) % 5)]


def test_every_attack_of_the_package_is_in_the_list():
    public = {v for v in vars(whyfooled.attacks).values() if isinstance(v, type) and issubclass(v, Attack)} - {Attack}
    assert public == set(ATTACKS)
    assert {attack.card.name for attack in ATTACKS} <= set(available("attacks"))


@ATTACK
def test_it_is_a_frozen_dataclass_that_describes_itself(attack):
    assert type(attack).__dataclass_params__.frozen
    card = type(attack).card
    assert all([card.name, card.title, card.summary.endswith("."), card.source, card.cost])
    assert parse("attacks", describe(attack)) == attack


@ATTACK
def test_it_reaches_its_goal_inside_the_box(attack):
    classifier, images, labels = case()
    for goal in goals(labels):
        result = run_attack(attack, classifier, images, goal)
        assert result.success.any()
        assert goal.select(result.success).reached(classifier(result.adversarial[result.success])).all()
        assert result.adversarial.min() >= 0
        assert result.adversarial.max() <= 1
        assert result.adversarial.dtype == images.dtype


@ATTACK
def test_it_succeeds_on_images_of_black_and_white(attack):
    classifier = small()
    images = (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(7)) > 0.5).float()
    result = run_attack(attack, classifier, images, Untargeted(classifier.predict(images)))
    assert result.success.all()
    assert result.linf.gt(0).all()


@ATTACK
def test_an_image_does_not_depend_on_its_batch(attack):
    classifier, images, labels = case()
    for goal in goals(labels):
        together = run_attack(attack, classifier, images, goal)
        for order in ([2], [3, 0]):
            apart = run_attack(attack, classifier, images[order], goal.select(torch.tensor(order)))
            assert torch.equal(apart.success, together.success[order])
            torch.testing.assert_close(apart.l2, together.l2[order], rtol=0.02, atol=1e-6)


@ATTACK
def test_a_shift_of_all_logits_changes_nothing(attack):
    classifier, images, labels = case()
    shifted = small()
    with torch.no_grad():
        shifted.module.head.bias.sub_(100)
    for goal in goals(labels):
        expected = run_attack(attack, classifier, images, goal)
        found = run_attack(attack, shifted, images, goal)
        assert torch.equal(found.success, expected.success)
        torch.testing.assert_close(found.l2, expected.l2, rtol=0.02, atol=1e-6)


@ATTACK
def test_its_counts_are_what_the_classifier_saw(attack):
    classifier, images, labels = case()
    with count_passes(classifier) as passes:
        attempt = attack.attempt(classifier, images, Untargeted(labels))
    assert int(attempt.forwards.sum()) == passes.forwards
    # A batch is differentiated whole, also where some of its images need it no more.
    assert int(attempt.backwards.sum()) <= passes.backwards


@ATTACK
def test_images_and_model_are_left_as_they_were(attack):
    classifier, images, labels = case()
    given, weights = images.clone(), {key: value.clone() for key, value in classifier.state_dict().items()}
    attack(classifier, images, Untargeted(labels))
    assert torch.equal(images, given)
    assert not images.requires_grad
    assert all(torch.equal(weights[key], value) for key, value in classifier.state_dict().items())
    assert all(p.grad is None for p in classifier.module.parameters())


@ATTACK
def test_the_same_call_gives_the_same_images(attack):
    classifier, images, labels = case()
    first, second = (attack(classifier, images, Untargeted(labels)) for _ in range(2))
    assert torch.equal(first, second)


@ATTACK
def test_it_works_where_gradients_are_switched_off(attack):
    classifier, images, labels = case()
    expected = attack(classifier, images, Untargeted(labels))
    with torch.no_grad():
        assert torch.equal(attack(classifier, images, Untargeted(labels)), expected)
        assert torch.equal(run_attack(attack, classifier, images, Untargeted(labels)).attempted, expected)


@ATTACK
def test_nan_logits_are_named(attack):
    classifier, images, labels = case()
    with torch.no_grad():
        classifier.module.head.bias[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        attack(classifier, images, Untargeted(labels))


@ATTACK
def test_its_parameters_are_keyword_fields(attack):
    assert all(field.init for field in dataclasses.fields(attack))
