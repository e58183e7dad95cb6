"""UPI-PCA, on classifiers whose matrix of slopes is known in closed form."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers.models import small
from tests.helpers.planted_maps import Cubic, Dark, Planted, along, directions, grey, noise, world
from whyfooled import Classifier
from whyfooled.errors import MethodError, ParameterError
from whyfooled.saliency import Gradient
from whyfooled.universal import UPIPCA, RandomDirection, evaluate
from whyfooled.universal.upi_pca import PowerStep

COUNTS = (9, 8, 8, 7, 6, 6, 5, 5, 4, 3, 2, 1)


def cosine(delta, direction):
    return float(F.cosine_similarity(delta.flatten().double(), torch.as_tensor(direction).double(), dim=0))


def orthogonal(count, seed=0):
    return torch.linalg.qr(directions(count, seed).double().T).Q.T.float().contiguous()


def planted(counts, given, slants=None):
    """Make a classifier, and images that it classifies as planted."""
    classifier = grey(Planted(given, slants))
    images, classes = world(given, counts)
    assert torch.equal(classifier.predict(images), classes)
    return classifier, images, classes


def rows(classifier, images, classes):
    """Compute the slopes of D in closed form."""
    module = classifier.module
    return (module.lengths(images, classes)[:, None] * module.directions[classes]).detach()


def loss_rows(classifier, images, classes):
    inputs = images.clone().requires_grad_()
    loss = F.cross_entropy(classifier(inputs), classes, reduction="sum")
    return torch.autograd.grad(loss, inputs)[0].flatten(1)


def test_the_direction_of_most_images_is_found():
    given = orthogonal(2)
    classifier, images, classes = planted((60, 40), given)
    found = UPIPCA(epsilon=0.5).fit(classifier, (images, classes), batch_size=50)
    assert abs(cosine(found.delta, given[0])) > 0.999
    assert found.l2 == pytest.approx(0.5)
    other = UPIPCA(epsilon=0.5).fit(classifier, (images[classes == 1], classes[classes == 1]))
    assert abs(cosine(other.delta, given[1])) > 0.999


@pytest.mark.parametrize("normalise", [True, False])
def test_they_are_the_right_singular_vectors_of_the_matrix_of_slopes(normalise):
    given = directions(12)
    classifier, images, classes = planted(COUNTS, given)
    matrix = rows(classifier, images, classes).double().numpy()
    if normalise:
        matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    _, values, vectors = np.linalg.svd(matrix)
    method = UPIPCA(epsilon=0.1, passes=4, samples=1, vectors=12, normalise=normalise)
    found = method.fit(classifier, (images, classes), batch_size=64)
    # No class's own direction: the matrix is mixed.
    assert max(abs(cosine(found.delta, one)) for one in given) < 0.95
    assert abs(cosine(found.delta, vectors[int(found.history[-1]["chosen"])])) > 0.999
    assert found.history[-2]["eigenvalue"] == pytest.approx(values[0] ** 2 / len(images), rel=1e-3)
    assert found.history[-2]["agreement"] == pytest.approx(1, abs=1e-4)


def test_of_the_leading_singular_vectors_the_one_that_moves_maps_most_is_taken():
    given = orthogonal(3)
    # The maps of the first class, the largest one, move half as far.
    given[0] *= 0.5
    classifier, images, classes = planted((11, 10, 3), given)
    found = UPIPCA(epsilon=0.1, vectors=3, passes=8, samples=1).fit(classifier, (images, classes), batch_size=24)
    lengths = classifier.module.lengths(images, classes).detach()
    moved = torch.stack([lengths[classes == number].sum() for number in range(3)])
    assert moved.argmax() == 1
    assert abs(cosine(found.delta, given[1])) > 0.999
    assert found.history[-1]["chosen"] == 1
    assert found.history[-1]["dissimilarity"] == pytest.approx(0.1 * float(moved[1]) / 24, rel=2e-2)
    paper = UPIPCA(epsilon=0.1, vectors=1, passes=60, samples=1).fit(classifier, (images, classes), batch_size=24)
    assert abs(cosine(paper.delta, given[0])) > 0.99


def test_a_contrast_finds_the_top_of_an_indefinite_matrix():
    # The loss changes mostly along the slants; they are no part of any image, so they change no prediction.
    drawn = directions(6)
    slants = torch.linalg.qr(drawn.T).Q.T
    given = directions(12, seed=1)
    given = F.normalize(given - given @ slants.T @ slants, dim=1)
    classifier, images, classes = planted(COUNTS, given, 4 * slants.repeat(2, 1))
    promoted = F.normalize(rows(classifier, images, classes).double(), dim=1)
    restrained = F.normalize(loss_rows(classifier, images, classes).double(), dim=1)
    values, vectors = torch.linalg.eigh((promoted.T @ promoted - 3 * restrained.T @ restrained) / len(images))
    # More negative values than vectors are turned are larger in size than the one that is wanted.
    assert -values[4] > 1.5 * values[-1]
    found = UPIPCA(epsilon=0.1, contrast=3, passes=30, samples=1).fit(classifier, (images, classes), batch_size=64)
    assert abs(cosine(found.delta, vectors[:, -1])) > 0.999
    assert found.history[-2]["eigenvalue"] == pytest.approx(float(values[-1]), rel=1e-2)


def test_both_signs_are_as_good_where_maps_are_linear():
    given = orthogonal(2)
    classifier, images, classes = planted((6, 4), given)
    found = UPIPCA(epsilon=0.1, vectors=2).fit(classifier, (images, classes))
    both = found.history[-1]
    assert both["dissimilarity"] == pytest.approx(both["dissimilarity of the other sign"], rel=1e-3)
    expected = 0.1 * classifier.module.lengths(images, classes).detach()[classes == 0].sum() / len(images)
    assert both["dissimilarity"] == pytest.approx(float(expected), rel=1e-2)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_is_that_of_the_fitting_images(sign):
    direction = directions(1)[0]
    classifier = grey(Cubic(direction))
    classes = torch.zeros(10, dtype=torch.int64)
    fit, test = (side * torch.linspace(0.5, 1, 10) for side in (sign, -sign))
    found = UPIPCA(epsilon=0.2).fit(classifier, (along(direction, fit), classes))
    assert cosine(found.delta, direction) == pytest.approx(sign, abs=1e-3)
    # On the test images the other sign would have been the better one.
    assert found.history[-1]["dissimilarity"] > found.history[-1]["dissimilarity of the other sign"]
    held_out = along(direction, test)
    here = evaluate(classifier, found, (held_out, classes)).intervals()["dissimilarity"].mean
    assert here < 0.9 * found.history[-1]["dissimilarity"]


def test_in_the_l_infinity_ball_it_is_the_signs():
    given = orthogonal(2)
    classifier, images, classes = planted((6, 4), given)
    found = UPIPCA(epsilon=8, scale=255, ball="linf").fit(classifier, (images, classes))
    assert torch.equal(found.delta.abs(), torch.full_like(found.delta, 8 / 255))
    agree = (found.delta.flatten().sign() == given[0].sign()).float().mean()
    assert max(agree, 1 - agree) > 0.95


def test_a_network_of_relus_has_no_slopes_and_smooth_activations_have():
    images = noise(6)
    classifier = small(side=8)
    pair = (images, classifier.predict(images))
    with pytest.raises(MethodError, match="A network of ReLUs is piecewise linear"):
        UPIPCA(beta=None).fit(classifier, pair)
    assert UPIPCA(epsilon=1, passes=1).fit(classifier, pair).l2 == pytest.approx(1, rel=1e-5)


def test_it_moves_maps_more_than_chance():
    images = noise(32)
    classifier = small(side=8)
    pair = (images, classifier.predict(images))
    found, random = (method.fit(classifier, pair) for method in (UPIPCA(epsilon=1), RandomDirection(epsilon=1)))
    other = noise(32, seed=1)
    apart = [
        evaluate(classifier, one, (other, classifier.predict(other))).intervals()["dissimilarity"].mean
        for one in (found, random)
    ]
    assert apart[0] > 1.1 * apart[1]


def test_an_image_without_a_map_changes_nothing():
    classifier = Classifier(Dark(small(side=8).module), mean=(0.0,) * 3, std=(1.0,) * 3, size=(8, 8))
    bright = noise(5)
    images = torch.cat([bright, 0.1 * noise(3, seed=1)])
    classes = classifier.predict(images)
    method = UPIPCA(epsilon=1, passes=2)
    found = method.fit(classifier, (images, classes))
    expected = method.fit(classifier, (bright, classes[:5]))
    torch.testing.assert_close(found.delta, expected.delta, rtol=1e-3, atol=1e-5)


def test_an_image_whose_map_comes_with_the_perturbation_does_not_choose_the_sign():
    direction = directions(1)[0]
    module = Cubic(direction)

    class Darkened(torch.nn.Module):
        """As `Cubic`, but the map is empty where the image has none of the direction; both signs lead out of there."""

        def forward(self, x):
            off = x.flatten(1) @ direction
            return (off.abs() > 1e-4).to(x)[:, None] * module(x)

    images = torch.cat([along(direction, -torch.linspace(0.5, 1, 5)), along(direction, [0.0])])
    found = UPIPCA(epsilon=0.2).fit(grey(Darkened()), (images, torch.zeros(6, dtype=torch.int64)))
    assert cosine(found.delta, direction) == pytest.approx(-1, abs=1e-3)
    assert found.history[-1]["dissimilarity"] < 1


def test_the_batch_changes_nothing_but_rounding():
    images = noise(5)
    classifier = small(side=8)
    pair = (images, classifier.predict(images))
    one, three, all_ = (
        UPIPCA(epsilon=1, passes=2, samples=2).fit(classifier, pair, batch_size=size).delta for size in (1, 3, 5)
    )
    torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one, all_, rtol=1e-3, atol=1e-4)


def test_one_image_and_more_vectors_than_pixels_are_enough():
    given = directions(2)
    classifier, images, classes = planted((1, 0), given)
    found = UPIPCA(epsilon=0.1, vectors=2 * images[0].numel(), passes=1, samples=1).fit(classifier, (images, classes))
    assert abs(cosine(found.delta, given[0])) > 0.999


def test_short_slopes_count_as_much_as_long_ones():
    # Of a length whose square is 0 in single precision.
    rows = directions(5)
    basis = torch.linalg.qr(torch.randn(64, 3, generator=torch.Generator().manual_seed(0))).Q.T
    step = PowerStep(Gradient(), basis, 0.1, 1, 0.0, True, None)
    for size in (1, 1e-25):
        expected = F.normalize(rows, dim=1)
        torch.testing.assert_close(step._multiply(size * rows.view(5, 1, 8, 8)), basis @ expected.T @ expected)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("contrast", [0, 0.5])
def test_passes_are_counted(samples, contrast):
    images = noise(5)
    classifier = small(side=8)
    classes = classifier.predict(images)
    classes[0] = (classes[0] + 1) % 5
    found = UPIPCA(epsilon=1, passes=2, samples=samples, contrast=contrast).fit(classifier, (images, classes))
    loss, choice = (1, 1 + 2) if contrast else (0, 1 + 2 * 4)
    assert found.passes.forwards == 5 + 4 * (2 * (1 + samples + loss) + choice)
    assert found.passes.backwards == 4 * (2 * (1 + 2 * samples + loss) + choice)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"contrast": -1}, "`contrast` must be at least 0"),
        ({"passes": 0}, "`passes` must be at least 1"),
        ({"samples": 0}, "`samples` must be at least 1"),
        ({"vectors": 0}, "`vectors` must be at least 1"),
        ({"noise": 0}, "`noise` must be a finite number above 0"),
        ({"beta": 0}, "`beta` must be a finite number above 0"),
        ({"epsilon": math.nan}, "`epsilon` must be a finite number above 0"),
        ({"ball": "linf"}, "Did you mean 10/255"),
        ({"scale": 2}, "`scale` must be the value of white, 1 or 255"),
    ],
)
def test_a_bad_parameter_is_named(bad, message):
    with pytest.raises(ParameterError, match=message):
        UPIPCA(**bad)
