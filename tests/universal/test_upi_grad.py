"""UPI-Grad, step by step, and where it leads."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.models import small
from tests.helpers.planted_maps import Cubic, Dark, along, directions, grey, noise
from whyfooled import Classifier
from whyfooled.errors import MethodError, ParameterError
from whyfooled.saliency import Gradient
from whyfooled.saliency.backward.smooth import smooth_activations
from whyfooled.tensors.randomness import image_generators
from whyfooled.universal import RandomDirection, UPIGrad, dissimilarity, evaluate


def scene(count=12, side=8):
    classifier = small(side=side)
    images = noise(count, side=side)
    return classifier, images, classifier.predict(images)


def plain(classifier, images, classes, radius, step_size, momentum, noise, penalty, steps):
    """Ascend on all images together, in the l2 ball, as the docstring says it."""
    delta = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(0))
    delta = radius * delta / delta.norm()
    speed = torch.zeros_like(delta)
    sigma = noise * radius / images[0].numel() ** 0.5
    for number in range(steps):
        drawn = [torch.randn(images.shape[1:], generator=one) for one in image_generators(images, number + 1)]
        at = (images + delta + sigma * torch.stack(drawn)).requires_grad_()
        with smooth_activations(10):
            maps = Gradient()(classifier, images, classes)
            others = Gradient()(classifier, at, classes, create_graph=True)
        slope = torch.autograd.grad(dissimilarity(maps, others).sum(), at)[0].sum(0)
        if penalty:
            inputs = (images + delta).requires_grad_()
            loss = F.cross_entropy(classifier(inputs), classes, reduction="sum")
            slope = slope - penalty * torch.autograd.grad(loss, inputs)[0].sum(0)
        speed = momentum * speed + slope / slope.norm()
        delta = delta + step_size * (1 - number / steps) * radius * speed / speed.norm()
        delta = delta * min(1, radius / float(delta.norm()))
    return delta


@pytest.mark.parametrize(
    "choice",
    [
        {"steps": 1, "noise": 0.0, "penalty": 0.0},
        {"steps": 3, "noise": 0.5, "penalty": 0.0},
        {"steps": 2, "noise": 0.5, "penalty": 0.3},
    ],
    ids=str,
)
def test_steps_are_as_described(choice):
    classifier, images, classes = scene()
    expected = plain(classifier, images, classes, radius=0.7, step_size=0.3, momentum=0.9, **choice)
    method = UPIGrad(
        epsilon=0.7, passes=choice["steps"], noise=choice["noise"], penalty=choice["penalty"], images_per_step=40
    )
    found = method.fit(classifier, (images, classes), batch_size=5)
    torch.testing.assert_close(found.delta, expected, rtol=1e-3, atol=1e-4)
    assert len(found.history) == choice["steps"]


@pytest.mark.parametrize(("ball", "epsilon"), [("l2", 0.7), ("linf", 0.05)])
def test_maps_move_further_than_by_chance_and_the_ball_is_kept(ball, epsilon):
    classifier, images, classes = scene(24)
    found, random = (
        method.fit(classifier, (images, classes))
        for method in (
            UPIGrad(epsilon=epsilon, ball=ball, passes=6, images_per_step=8),
            RandomDirection(epsilon=epsilon, ball=ball),
        )
    )
    size = found.l2 if ball == "l2" else found.linf
    assert size == pytest.approx(epsilon, rel=1e-2)
    assert size <= epsilon * (1 + 1e-6)
    first, last = (sum(one["dissimilarity"] for one in part) / 3 for part in (found.history[:3], found.history[-3:]))
    assert last > 1.1 * first
    other = noise(24, seed=1)
    here, chance = (
        evaluate(classifier, one, (other, classifier.predict(other))).intervals()["dissimilarity"].mean
        for one in (found, random)
    )
    assert here > 1.1 * chance


def test_a_known_direction_is_climbed():
    direction = directions(1)[0]
    images = along(direction, torch.linspace(0.5, 1, 8))
    classes = torch.zeros(8, dtype=torch.int64)
    found = UPIGrad(epsilon=0.2, passes=30, images_per_step=8).fit(
        grey(Cubic(direction)), (images, classes), batch_size=8
    )
    assert F.cosine_similarity(found.delta.flatten(), direction, dim=0) > 0.99


def test_a_penalty_keeps_the_predictions():
    classifier, images, classes = scene(16)
    free, held = (
        UPIGrad(epsilon=0.7, penalty=penalty, passes=5, images_per_step=16).fit(classifier, (images, classes))
        for penalty in (0.0, 20.0)
    )

    def loss(found):
        return float(F.cross_entropy(classifier.logits(images + found.delta), classes))

    assert loss(held) < loss(free)
    assert held.history[-1]["loss"] == pytest.approx(loss(held), rel=0.2)
    assert held.history[-1]["dissimilarity"] < free.history[-1]["dissimilarity"]
    assert free.history[-1]["loss"] == 0


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_a_network_of_relus_has_no_slopes(penalty):
    classifier, images, classes = scene(4)
    with pytest.raises(MethodError, match="A network of ReLUs is piecewise linear"):
        UPIGrad(beta=None, penalty=penalty).fit(classifier, (images, classes))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_whose_maps_are_empty_is_no_step(momentum):
    classifier = Classifier(Dark(small(side=8).module), mean=(0.0,) * 3, std=(1.0,) * 3, size=(8, 8))
    images = torch.cat([0.1 * noise(2, seed=1), noise(2), 0.1 * noise(2, seed=2)])
    method = UPIGrad(epsilon=0.5, images_per_step=1, passes=2, momentum=momentum)
    found = method.fit(classifier, (images, classifier.predict(images)))
    assert torch.isfinite(found.delta).all()
    assert 0 < found.l2 <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_passes_are_counted(penalty):
    classifier, images, classes = scene(5)
    classes[0] = (classes[0] + 1) % 5
    found = UPIGrad(epsilon=0.5, passes=3, images_per_step=3, penalty=penalty).fit(classifier, (images, classes))
    loss = 1 if penalty else 0
    assert (found.passes.forwards, found.passes.backwards) == (5 + 4 * 3 * (2 + loss), 4 * 3 * (3 + loss))
    assert len(found.history) == 6


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"penalty": -1}, "`penalty` must be at least 0"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"images_per_step": 0}, "`images_per_step` must be at least 1"),
        ({"step_size": -0.1}, "`step_size` must be at least 0"),
        ({"noise": -1}, "`noise` must be at least 0"),
        ({"momentum": 1}, "`momentum` must be at least 0 and below 1"),
        ({"beta": -1}, "`beta` must be a finite number above 0"),
    ],
)
def test_a_bad_parameter_is_named(bad, message):
    with pytest.raises(ParameterError, match=message):
        UPIGrad(**bad)
