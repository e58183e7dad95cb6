"""The targets of targeted attacks."""

from inspect import unwrap

import pytest
import torch

from tests.helpers.models import linear, small
from whyfooled import FGSM, Targeted, choose_targets, count_passes, run_attack
from whyfooled.errors import ImageError, ParameterError


def constant(*logits):
    """Make a classifier that gives every image the same logits."""
    return linear(torch.zeros(len(logits), 192), torch.tensor(logits))


def pictures(n, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def varied(classes=5):
    """Make a cheap classifier that gives many classes."""
    return linear(torch.randn(classes, 192, generator=torch.Generator().manual_seed(3)))


HOW = pytest.mark.parametrize("how", ["random", "least-likely", "runner-up"])


@HOW
@pytest.mark.parametrize("given", [False, True])
def test_a_target_is_neither_the_predicted_nor_the_true_class(how, given):
    classifier, images = varied(), pictures(64)
    predicted = classifier.predict(images)
    assert len(predicted.unique()) >= 3
    labels = torch.arange(64) % 5 if given else None
    target = choose_targets(classifier, images, how, labels=labels).classes
    assert (target != predicted).all()
    assert labels is None or (target != labels).all()
    assert ((target >= 0) & (target < 5)).all()


@pytest.mark.parametrize(
    ("label", "least", "second"), [(None, 3, 2), (0, 3, 2), (1, 3, 2), (2, 3, 1), (3, 4, 2), (4, 3, 2)]
)
def test_the_least_likely_class_and_the_runner_up_by_hand(label, least, second):
    # In order of their logits: 0 (predicted), 2, 1, 4, 3.
    classifier, images = constant(3.0, 1.0, 2.0, -1.0, 0.0), pictures(2)
    labels = None if label is None else torch.tensor([label, label])
    assert choose_targets(classifier, images, "least-likely", labels=labels).classes.tolist() == [least, least]
    assert choose_targets(classifier, images, "runner-up", labels=labels).classes.tolist() == [second, second]


@HOW
def test_each_image_has_its_own_label(how):
    # Three classes, of which 0 is predicted: a true class of 1 leaves 2, and the other way round.
    classifier = constant(3.0, 1.0, 2.0)
    target = choose_targets(classifier, pictures(4), how, labels=torch.tensor([1, 2, 2, 1]))
    assert target.classes.tolist() == [2, 1, 1, 2]


@pytest.mark.parametrize(("label", "free"), [(None, [0, 2, 3, 4]), (1, [0, 2, 3, 4]), (3, [0, 2, 4])])
def test_at_random_every_other_class_is_about_as_likely(label, free):
    n = 1200
    classifier = constant(1.0, 3.0, 2.0, -1.0, 0.5)
    labels = None if label is None else torch.full((n,), label)
    target = choose_targets(classifier, pictures(n), labels=labels).classes
    counts = torch.bincount(target, minlength=5)
    assert counts.nonzero()[:, 0].tolist() == free
    expected = n / len(free)
    chi_square = float(((counts[free] - expected) ** 2 / expected).sum())
    # With three degrees of freedom a fair choice stays under 16.3 in 999 of 1000 draws.
    assert chi_square < 16.3


def test_a_choice_at_random_is_by_default_and_belongs_to_the_image():
    classifier, images = varied(9), pictures(24)
    together = choose_targets(classifier, images).classes
    assert torch.equal(choose_targets(classifier, images, "random", seed=0).classes, together)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5))
    assert torch.equal(choose_targets(classifier, images[order]).classes, together[order])
    alone = [choose_targets(classifier, images[i : i + 1]).classes for i in range(24)]
    assert torch.equal(torch.cat(alone), together)


def test_seeds_make_different_choices():
    classifier, images = constant(*torch.arange(9.0).tolist()), pictures(24)
    first, second = (choose_targets(classifier, images, seed=seed).classes for seed in (1, 2))
    assert not torch.equal(first, second)
    assert len(first.unique()) > 3


@HOW
def test_of_two_classes_the_other_one_is_the_target(how):
    classifier = constant(0.0, 2.0)
    for labels in (None, torch.tensor([1, 1])):
        assert choose_targets(classifier, pictures(2), how, labels=labels).classes.tolist() == [0, 0]


@HOW
def test_two_classes_are_too_few_where_the_prediction_is_wrong(how):
    rule = "`classifier` must have a class beside the true and the predicted one; got 2"
    with pytest.raises(ParameterError, match=rule):
        choose_targets(constant(0.0, 2.0), pictures(3), how, labels=torch.tensor([1, 0, 1]))


def test_an_unknown_way_to_choose_is_refused_with_the_known_ones():
    with pytest.raises(ParameterError, match="`how` must be one of random, least-likely, runner-up; got nearest"):
        choose_targets(varied(), pictures(1), "nearest")


@HOW
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_targets_are_a_goal_on_the_images_device(how, dtype):
    classifier, images = varied(), pictures(3)
    target = choose_targets(classifier, images, how, labels=torch.tensor([0, 1, 2], dtype=dtype))
    assert isinstance(target, Targeted)
    assert target.classes.shape == (3,)
    assert target.classes.dtype == torch.int64
    assert target.classes.device == images.device
    result = run_attack(FGSM(epsilon=0.5), classifier, images, target)
    assert result.success.any()


@HOW
def test_a_choice_costs_one_forward_pass_an_image(how):
    classifier = small()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with count_passes(classifier) as passes:
        choose_targets(classifier, images, how)
    assert (passes.forwards, passes.backwards) == (3, 0)


@HOW
def test_no_images_have_no_targets(how):
    target = choose_targets(varied(), pictures(0), how)
    assert target.classes.shape == (0,)
    assert target.classes.dtype == torch.int64


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (pictures(2)[0], None, ImageError, "must be a batch"),
        (pictures(2) * 255, None, ImageError, "Divide them by 255"),
        (pictures(2), torch.tensor([0]), ParameterError, "class for each of the 2 images"),
        (pictures(2), torch.tensor([0, 1, 2]), ParameterError, "class for each of the 2 images"),
        (pictures(2), torch.tensor([0, 5]), ParameterError, "from 0 to 4"),
        (pictures(2), torch.tensor([0, -1]), ParameterError, "from 0 to 4"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(images, labels, error, message):
    with pytest.raises(error, match=message):
        unwrap(choose_targets)(varied(), images, labels=labels)
