"""Counting forward and backward passes."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.models import small
from whyfooled.attacks import BIM, FGSM, CarliniWagner, Problem
from whyfooled.classifier.goals import Untargeted
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.errors import ImageError
from whyfooled.saliency import CAM, Enhanced, GradCAM, Gradient, GuidedBackprop


@pytest.fixture
def classifier():
    return small()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


CLASSES = torch.tensor([0, 1, 2])
PAIRS = torch.tensor([[0, 1], [1, 2], [2, 3]])


class TestForwards:
    def test_every_image_of_every_call_counts(self, classifier, images):
        with count_passes(classifier) as passes:
            classifier(images)
            classifier.logits(images[:2])
            classifier.predict(images[:1])
        assert passes == Passes(forwards=6, backwards=0)

    def test_images_given_by_keyword_count(self, classifier, images):
        with count_passes(classifier) as passes:
            classifier(images=images)
        assert passes == Passes(3, 0)

    def test_nothing_counts_before_the_first_call(self, classifier):
        with count_passes(classifier) as passes:
            assert passes == Passes(0, 0)

    def test_another_classifier_does_not_count(self, classifier, images):
        with count_passes(classifier) as passes:
            small()(images)
        assert passes == Passes(0, 0)

    def test_a_model_that_is_counted_elsewhere_does_not_count_twice(self, classifier, images):
        other = small()
        with count_passes(classifier, other, besides=classifier) as passes:
            classifier(images)
            other(images[:1])
        assert passes == Passes(1, 0)


class TestBackwards:
    def test_a_backward_pass_to_the_images_counts_every_image(self, classifier, images):
        with count_passes(classifier) as passes:
            classifier(images.requires_grad_()).sum().backward()
        assert passes == Passes(3, 3)

    def test_every_vector_jacobian_product_counts(self, classifier, images):
        with count_passes(classifier) as passes:
            logits = classifier(images.requires_grad_())
            for column in range(4):
                torch.autograd.grad(logits[:, column].sum(), images, retain_graph=True)
        assert passes == Passes(3, 12)

    def test_a_backward_pass_that_stops_before_the_images_does_not_count(self, classifier, images):
        with count_passes(classifier) as passes:
            classifier(images).sum().backward()
        assert passes == Passes(3, 0)

    @pytest.mark.parametrize(
        ("method", "classes", "expected"),
        [
            (Gradient(), CLASSES, Passes(3, 3)),
            (GuidedBackprop(), CLASSES, Passes(3, 3)),
            (GuidedBackprop(), PAIRS, Passes(3, 6)),
            (GradCAM(), CLASSES, Passes(3, 0)),
            (CAM(), PAIRS, Passes(3, 0)),
            (Enhanced(), CLASSES, Passes(6, 6)),
        ],
    )
    def test_saliency_methods_cost_what_they_say(self, classifier, images, method, classes, expected):
        with count_passes(classifier) as passes:
            method(classifier, images, classes)
        assert passes == expected

    @pytest.mark.parametrize("attack", [FGSM(), BIM(), CarliniWagner(steps=5, rounds=2)])
    def test_an_attack_says_itself_what_it_spends_on_an_image(self, classifier, images, attack):
        goal = Untargeted(classifier.predict(images[:1]))
        with count_passes(classifier) as passes:
            attempt = attack.attempt(Problem.of(classifier, images[:1], goal))
        assert passes == Passes(int(attempt.forwards), int(attempt.backwards))
        assert passes.backwards >= 1


class TestNothingChanges:
    def test_logits_and_gradients_are_the_same(self, classifier, images):
        images.requires_grad_()
        logits = classifier(images)
        gradient = torch.autograd.grad(logits[:, 0].sum(), images)[0]
        with count_passes(classifier):
            counted = classifier(images)
            counted_gradient = torch.autograd.grad(counted[:, 0].sum(), images)[0]
        assert torch.equal(counted, logits)
        assert torch.equal(counted_gradient, gradient)

    def test_the_counter_is_gone_afterwards(self, classifier, images):
        with count_passes(classifier) as passes:
            classifier(images)
        classifier(images.requires_grad_()).sum().backward()
        assert passes == Passes(3, 0)
        assert not classifier._forward_pre_hooks

    def test_the_counter_is_gone_after_an_exception(self, classifier, images):
        def work():
            with count_passes(classifier) as passes:
                seen.append(passes)
                classifier(images[:, :2])

        seen = []
        with pytest.raises(ImageError):
            work()
        after = Passes(seen[0].forwards, seen[0].backwards)
        classifier(images)
        assert seen[0] == after
        assert not classifier._forward_pre_hooks

    def test_the_module_inside_is_never_touched(self, classifier):
        with count_passes(classifier):
            assert not any(part._forward_pre_hooks for part in classifier.module.modules())

    def test_an_inner_count_leaves_the_outer_count_as_it_is(self, classifier, images):
        images.requires_grad_()
        with count_passes(classifier) as outer:
            classifier(images).sum().backward()
            with count_passes(classifier) as inner:
                classifier(images[:2]).sum().backward()
        assert inner == Passes(2, 2)
        assert outer == Passes(5, 5)
