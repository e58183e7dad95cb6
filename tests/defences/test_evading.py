"""The attack that knows the detectors: on models where what it should find is known."""

import pytest
import torch

from tests.helpers.models import linear
from whyfooled import PGD, Targeted, Untargeted, run_attack
from whyfooled.defences import BitDepth, Evading, LargestSoftmax, Mahalanobis, MedianFilter, TwoSidedMargin
from whyfooled.defences.confidence import FittedMargin
from whyfooled.errors import ParameterError


def case():
    """Make a linear classifier of three classes, and images in the middle of the box."""
    weight = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    images = 0.4 + 0.2 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    classifier = linear(weight)
    return classifier, images, classifier.predict(images)


def test_it_is_as_sure_of_another_class_as_the_ball_allows():
    classifier, images, labels = case()
    target = (labels + 1) % 3
    result = run_attack(Evading((LargestSoftmax(),), epsilon=0.1, steps=60), classifier, images, Targeted(target))
    assert result.success.all()
    assert result.linf.max() <= 0.1 + 1e-6
    # Two logits against one: the best corner of the ball lies between those of either pair.
    weight = classifier.module.weight
    apart = weight[target].unsqueeze(1) - weight[torch.stack([(target + 1) % 3, (target + 2) % 3], 1)]
    most = ((apart * images.flatten(1).unsqueeze(1)).sum(2) + 0.1 * apart.abs().sum(2)).amin(1)
    scores = LargestSoftmax()(classifier, result.adversarial)
    assert (-scores <= most + 1e-3).all()
    assert (-scores >= 0.75 * most).all()
    assert (scores < LargestSoftmax()(classifier, images)).all()


def test_it_keeps_the_margin_that_clean_images_have():
    classifier, images, labels = case()
    detector = FittedMargin(torch.tensor([1.0, 3.0, 4.0]))
    result = run_attack(Evading((detector,), epsilon=0.1, steps=80), classifier, images, Untargeted(labels))
    first, second = result.logits.topk(2).values.unbind(1)
    assert result.success.all()
    torch.testing.assert_close(first - second, torch.full((4,), 3.0), rtol=0.1, atol=0)
    plain = run_attack(PGD(epsilon=0.1), classifier, images, Untargeted(labels))
    assert (detector(classifier, result.adversarial) < detector(classifier, plain.adversarial)).any()


@pytest.mark.parametrize("ball", ["linf", "l2"])
def test_it_evades_several_detectors_at_once_and_stays_in_its_ball(ball):
    classifier, images, labels = case()
    epsilon = {"linf": 0.1, "l2": 1.2}[ball]
    detectors = (BitDepth(3), MedianFilter())
    result = run_attack(Evading(detectors, epsilon=epsilon, ball=ball), classifier, images, Untargeted(labels))
    assert result.success.all()
    assert getattr(result, ball).max() <= epsilon * (1 + 1e-5)
    unaware = run_attack(PGD(epsilon=epsilon, ball=ball), classifier, images, Untargeted(labels))
    for detector in detectors:
        assert detector(classifier, result.adversarial).mean() < detector(classifier, unaware.adversarial).mean() / 2


def test_a_result_does_not_depend_on_the_batch():
    classifier, images, labels = case()
    attack = Evading((MedianFilter(),), epsilon=0.1, steps=15)
    together = run_attack(attack, classifier, images, Untargeted(labels))
    alone = run_attack(attack, classifier, images[2:3], Untargeted(labels[2:3]))
    torch.testing.assert_close(alone.adversarial, together.adversarial[2:3], rtol=0, atol=1e-5)


def test_it_counts_its_passes_and_those_of_the_detectors():
    classifier, images, labels = case()
    result = run_attack(Evading((MedianFilter(),), epsilon=0.1, steps=4), classifier, images, Untargeted(labels))
    # At each of five points one for the goal, and two for the detector.
    assert result.forwards.tolist() == [15] * 4
    assert result.backwards.tolist() == [15] * 4


def test_a_goal_out_of_reach_is_a_failure():
    classifier, images, labels = case()
    attack = Evading((MedianFilter(),), epsilon=1e-4, steps=3)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert not result.success.any()
    assert torch.equal(result.adversarial, images)


def test_a_mask_holds():
    classifier, images, labels = case()
    mask = torch.zeros(8, 8)
    mask[:, :5] = 1
    attack = Evading((MedianFilter(),), epsilon=0.2, steps=20)
    result = run_attack(attack, classifier, images, Untargeted(labels), mask=mask)
    assert torch.equal(result.attempted[..., 5:], images[..., 5:])
    assert result.success.any()


@pytest.mark.parametrize(
    ("detectors", "sentence"),
    [
        ((), "`detectors` must have at least one entry."),
        (
            (TwoSidedMargin(),),
            "`detectors` must be fitted to clean images before they can be evaded; got TwoSidedMargin(). "
            "Take detector.fit(classifier, clean).",
        ),
        (
            (MedianFilter(), Mahalanobis),
            "`detectors` must be detectors that have a loss, such as MedianFilter(); got Mahalanobis.",
        ),
        (("median",), "`detectors` must be detectors that have a loss, such as MedianFilter(); got 'median'."),
    ],
)
def test_what_cannot_be_evaded_is_refused(detectors, sentence):
    with pytest.raises(ParameterError) as caught:
        Evading(detectors)
    assert str(caught.value) == sentence
