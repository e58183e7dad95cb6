"""DeepFool on linear classifiers, where the nearest boundary is known; and what adds its steps up."""

import pytest
import torch

from tests.helpers.models import linear, small
from whyfooled.errors import ParameterError
from whyfooled.universal import DeepFoolUAP
from whyfooled.universal._deepfool import DeepFool
from whyfooled.universal._fitting import Part
from whyfooled.universal.uap_deepfool import FooledStep, NudgeStep


def case(n=6, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight, images = torch.randn(classes, 192, generator=generator), torch.rand(n, 3, 8, 8, generator=generator)
    classifier = linear(weight)
    return classifier, images, classifier.predict(images), weight


def nearest(classifier, images, classes, weight, ball):
    """Project on every boundary, and keep the nearest projection."""
    found = []
    for logits, own in zip(classifier.logits(images), classes.tolist(), strict=True):
        steps = []
        for other in range(len(weight)):
            if other != own:
                way, gap = weight[other] - weight[own], logits[own] - logits[other]
                steps.append(gap * way / way.square().sum() if ball == "l2" else gap * way.sign() / way.abs().sum())
        size = (lambda step: step.norm()) if ball == "l2" else (lambda step: step.abs().max())
        found.append(min(steps, key=size))
    return torch.stack(found).view_as(images)


@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_on_a_linear_model_it_is_the_projection_onto_the_nearest_boundary(ball):
    classifier, images, classes, weight = case()
    found, fooled = DeepFool(ball, candidates=10, overshoot=0.02, steps=1)(classifier, images, classes)
    expected = 1.02 * nearest(classifier, images, classes, weight, ball)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-5)
    assert fooled.all()
    assert (classifier.predict(images + found) != classes).all()


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_step_does_not_depend_on_the_scale_of_the_logits(factor):
    classifier, images, classes, weight = case()
    usual, _ = DeepFool("l2", candidates=10, overshoot=0.02, steps=1)(classifier, images, classes)
    scaled, _ = DeepFool("l2", candidates=10, overshoot=0.02, steps=1)(linear(factor * weight), images, classes)
    torch.testing.assert_close(scaled, usual, rtol=1e-3, atol=1e-7)


def test_among_the_candidates_only():
    classifier, images, classes, weight = case(n=40)
    found, _ = DeepFool("l2", candidates=2, overshoot=0.0, steps=1)(classifier, images, classes)
    second = classifier.logits(images).topk(2).indices[:, 1]
    way = weight[second] - weight[classes]
    # The second largest logit is not always the nearest boundary, or this would say nothing.
    assert not torch.allclose(found, nearest(classifier, images, classes, weight, "l2"), rtol=1e-2)
    torch.testing.assert_close(torch.cosine_similarity(found.flatten(1), way), torch.ones(len(images)))


def test_images_of_another_class_already_are_left_and_those_out_of_reach_are_told():
    classifier, images, classes, _ = case()
    asked = classes.clone()
    asked[2] = (asked[2] + 1) % 5
    found, fooled = DeepFool("l2", 10, 0.02, 3)(classifier, images, asked)
    assert fooled.all()
    assert not found[2].any()
    assert found[[0, 1, 3, 4, 5]].flatten(1).any(1).all()
    hopeless = linear(torch.zeros(5, 192), torch.arange(5.0))
    found, fooled = DeepFool("linf", 10, 0.02, 3)(hopeless, images, torch.full((6,), 4))
    assert not found.any()
    assert not fooled.any()


def test_an_images_steps_do_not_depend_on_its_batch():
    classifier = small().double()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classes = classifier.predict(images)
    together, fooled = DeepFool("l2", 10, 0.02, 10)(classifier, images, classes)
    assert fooled.all()
    for place in range(5):
        alone, _ = DeepFool("l2", 10, 0.02, 10)(classifier, images[[place]], classes[[place]])
        torch.testing.assert_close(alone[0], together[place], rtol=1e-6, atol=1e-9)


def test_a_step_sums_what_fools_and_counts_only_those():
    classifier, images, classes, weight = case()
    asked = classes.clone()
    asked[0] = (asked[0] + 1) % 5
    delta = 0.01 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    sums = NudgeStep(delta, DeepFool("l2", 10, 0.02, 10))(classifier, Part(images, asked, 0))
    expected = 1.02 * nearest(classifier, images + delta, classes, weight, "l2")[1:].sum(0)
    assert sums["nudged"] == 5
    torch.testing.assert_close(sums["nudge"], expected, rtol=5e-3, atol=1e-5)
    assert FooledStep(delta)(classifier, Part(images, asked, 0))["fooled"] == 1


def test_algorithm_1_step_by_step():
    classifier, images, classes, weight = case(n=8)
    method = DeepFoolUAP(epsilon=0.15, enough=1.0, passes=2, seed=4)
    found = method.fit(classifier, (images, classes))
    order, delta, best, most = torch.Generator().manual_seed(4), torch.zeros(3, 8, 8), None, -1.0
    for number in range(2):
        for place in torch.randperm(8, generator=order).tolist():
            moved = images[[place]] + delta
            if classifier.predict(moved)[0] == classes[place]:
                delta = delta + 1.02 * nearest(classifier, moved, classes[[place]], weight, "l2")[0]
                delta = delta * min(1.0, 0.15 / float(delta.norm()))
        share = float((classifier.predict(images + delta) != classes).float().mean())
        assert found.history[number]["fooling_rate"] == pytest.approx(share)
        best, most = (delta, share) if share > most else (best, most)
    assert 0 < most < 1
    torch.testing.assert_close(found.delta, best, rtol=1e-2, atol=1e-4)


def test_it_stops_when_enough_images_are_fooled():
    classifier, images, classes, _ = case(n=8)
    patient = DeepFoolUAP(epsilon=3.0, enough=0.5, passes=5).fit(classifier, (images, classes))
    assert len(patient.history) == 1
    assert patient.history[-1]["fooling_rate"] >= 0.5
    fooled = classifier.predict(patient.apply(images, clip=False)) != classes
    assert float(fooled.float().mean()) == patient.history[-1]["fooling_rate"]


def test_several_images_of_a_step_are_averaged():
    classifier, images, classes, weight = case(n=4)
    found = DeepFoolUAP(epsilon=100.0, enough=1.0, passes=1, images_per_step=4).fit(classifier, (images, classes))
    expected = 1.02 * nearest(classifier, images, classes, weight, "l2").mean(0)
    torch.testing.assert_close(found.delta, expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"enough": 0.0}, "`enough` must be above 0 and at most 1"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"images_per_step": 0}, "`images_per_step` must be at least 1"),
        ({"candidates": 1}, "`candidates` must be at least 2"),
        ({"overshoot": -0.1}, "`overshoot` must be at least 0"),
        ({"steps": 0}, "`steps` must be at least 1"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ParameterError, match=message):
        DeepFoolUAP(**given)
