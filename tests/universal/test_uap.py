"""Universal perturbations of predictions by ascent: on linear classifiers the best one is known."""

import pytest
import torch

from tests.helpers.models import linear, small
from whyfooled import Classifier
from whyfooled.errors import ParameterError
from whyfooled.universal import UAP
from whyfooled.universal._fitting import Part
from whyfooled.universal._losses import log_odds_against
from whyfooled.universal.uap import LossStep


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_classes(bias=0.0, dtype=torch.float32):
    """All images are of class 0, and the way to class 1 is the same for each."""
    weight = random(2, 192, seed=3)
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    gap = (images.flatten(1) @ (weight[0] - weight[1])).min()
    return linear(weight.to(dtype), torch.tensor([float(-gap) + 1 + bias, 0.0], dtype=dtype)), images, weight


@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_with_two_classes_it_goes_straight_to_the_other(ball):
    classifier, images, weight = two_classes()
    found = UAP(epsilon=0.5, ball=ball, clip=None, images_per_step=3).fit(classifier, (images, torch.zeros(12).long()))
    way = (weight[1] - weight[0]).view(3, 8, 8)
    best = 0.5 * (way.sign() if ball == "linf" else way / way.norm())
    torch.testing.assert_close(found.delta, best, rtol=0, atol=0.03 * float(best.abs().max()))


def test_where_the_classifier_is_sure_there_is_a_slope_all_the_same():
    # The cross-entropy, and its slope, are 0 in single precision there.
    classifier, images, weight = two_classes(bias=200.0)
    classes = torch.zeros(12).long()
    assert torch.nn.functional.cross_entropy(classifier(images), classes) == 0
    found = UAP(epsilon=1.0, clip=None, images_per_step=4).fit(classifier, (images, classes)).delta.flatten()
    assert torch.cosine_similarity(found, weight[1] - weight[0], dim=0) > 0.99


def test_the_loss_is_the_log_odds_and_its_slope_is_summed_over_images_under_the_clip():
    classifier = small()
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    delta = 0.1 * random(3, 16, 16, seed=2)
    probability = classifier.logits(images + delta).softmax(1)[torch.arange(6), classes]
    losses = ((1 - probability) / probability).log()
    clip = float(losses.sort().values[2:4].mean())
    moving = delta.clone().requires_grad_()
    own = log_odds_against(classifier(images + moving), classes)
    torch.testing.assert_close(own.detach(), losses, rtol=1e-4, atol=1e-5)
    (expected,) = torch.autograd.grad(own.clamp_max(clip).sum(), moving)
    sums = LossStep(delta, clip)(classifier, Part(images, classes, 0))
    torch.testing.assert_close(sums["slope"], expected)
    torch.testing.assert_close(sums["loss"], losses.sum(), rtol=1e-4, atol=1e-5)
    assert sums["fooled"] == (probability < 0.5).sum() == 6 - (losses <= 0).sum()


def test_an_image_past_the_clip_leaves_the_way_to_the_others():
    # Image 0 is fooled by going right, image 1 by going up: without a clip, the one with the steeper logit wins alone.
    classifier = Classifier(Corner(), size=(8, 8))
    images = torch.zeros(2, 3, 8, 8)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 1.0, 0.0
    classes = torch.zeros(2).long()
    settings = {"epsilon": 1.0, "images_per_step": 2, "passes": 20}
    alone = UAP(clip=None, **settings).fit(classifier, (images, classes)).delta
    both = UAP(clip=2.0, **settings).fit(classifier, (images, classes)).delta
    assert (classifier.predict(images + alone) != classes).tolist() == [True, False]
    assert (classifier.predict(images + both) != classes).tolist() == [True, True]


class Corner(torch.nn.Module):
    """Two classes; what counts for an image is in another pixel, by its first: steeply in one, gently in the other."""

    def forward(self, x):
        first = (x[:, 0, 0, 0] > 0.5).float()
        margin = first * (50 * x[:, 1, 4, 4] - 5) + (1 - first) * (8 * x[:, 2, 2, 2] - 1 - 2 * x[:, 1, 4, 4])
        return torch.stack([torch.zeros_like(margin), margin], 1)


def test_history_and_passes():
    classifier = small()
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    method = UAP(epsilon=1.0, passes=2, images_per_step=4)
    found = method.fit(classifier, (images, classifier.predict(images)), batch_size=3)
    assert len(found.history) == 4
    assert set(found.history[0]) == {"loss", "fooled"}
    assert (found.passes.forwards, found.passes.backwards) == (3 * 6, 2 * 6)
    assert found.saliency == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip": 0.0}, "`clip` must be a finite number above 0"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"images_per_step": 0}, "`images_per_step` must be at least 1"),
        ({"step_size": -1.0}, "`step_size` must be at least 0"),
        ({"momentum": 1.0}, "`momentum` must be at least 0 and below 1"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ParameterError, match=message):
        UAP(**given)
