"""Each detector's score, derived again by other means."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import mahalanobis
from torch import nn

from tests.helpers.models import linear, small
from whyfooled import Classifier, GradCAM
from whyfooled.defences import (
    BitDepth,
    GradCAMShift,
    LargestSoftmax,
    Mahalanobis,
    MedianFilter,
    TwoSidedMargin,
    UnderNoise,
)
from whyfooled.defences.confidence import FittedMargin
from whyfooled.defences.mahalanobis import invert_covariance
from whyfooled.defences.squeezing import log_distance, reduce_depth, softmax_distance
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.tensors.measures import cosine
from whyfooled.tensors.medians import filter_median
from whyfooled.tensors.randomness import image_generators, normal


@pytest.fixture
def images():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def sharp():
    """Make a small classifier whose probabilities are far from equal."""
    made = small()
    with torch.no_grad():
        made.module.head.weight.mul_(20)
    return made


def probabilities(classifier, images):
    logits = classifier.logits(images).double().numpy()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def expect(scores, expected, rtol=1e-4):
    torch.testing.assert_close(scores.double(), torch.as_tensor(expected).double(), rtol=rtol, atol=1e-6)


def of_logits(logits):
    """Make a classifier whose logits are an image's first values, and images that have these."""
    logits = torch.tensor(logits)
    images = torch.zeros(len(logits), 3, 8, 8)
    images.view(len(logits), -1)[:, : logits.shape[1]] = logits / 10
    return linear(10 * torch.eye(logits.shape[1], 192)), images


def test_largest_softmax_is_the_log_odds_of_the_prediction(images):
    largest = probabilities(sharp(), images).max(1)
    expect(LargestSoftmax()(sharp(), images), np.log((1 - largest) / largest))


def test_largest_softmax_tells_apart_what_is_rounded_to_one():
    classifier, images = of_logits([[0.0, 10.0], [0.0, 5.0]])
    huge = Classifier(nn.Sequential(classifier.module, Times(4)), size=(8, 8))
    assert (huge.logits(images).softmax(1).amax(1) == 1).all()
    expect(LargestSoftmax()(huge, images), [-40.0, -20.0])


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_the_two_sided_margin_counts_clean_images_on_the_nearer_side():
    classifier, clean = of_logits([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [4.0, 0.0]])
    _, images = of_logits([[0.5, 0.0], [0.0, 1.5], [2.5, 0.0], [9.0, 0.0]])
    # Margins 0.5, 1.5, 2.5, 9 among 1, 2, 3, 4: beyond none, one, two and none.
    expected = [-math.log10(share) for share in (2 / 5, 4 / 5, 1, 2 / 5)]
    expect(TwoSidedMargin().fit(classifier, clean)(classifier, images), expected)


def test_the_loss_of_the_two_sided_margin_leads_to_the_median():
    classifier, images = of_logits([[1.0, 0.0], [0.0, 3.0], [5.0, 0.0]])
    detector = FittedMargin(torch.tensor([1.0, 2.0, 7.0]))
    expect(detector.loss(classifier, images), [0.5, 0.5, 1.5])


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_bit_depth_rounds_to_the_nearest_level(bits, images):
    levels = np.linspace(0, 1, 2**bits)
    nearest = levels[np.abs(images.numpy()[..., None] - levels).argmin(-1)]
    expect(reduce_depth(images, bits), nearest)


def test_bit_depth_is_the_distance_of_softmax_vectors(images):
    classifier = sharp()
    distance = np.abs(probabilities(classifier, images) - probabilities(classifier, reduce_depth(images, 2))).sum(1)
    assert distance.max() > 0.01
    expect(BitDepth(bits=2)(classifier, images), distance, rtol=1e-3)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(7, 6), (2, 3), (1, 1)])
def test_the_median_filter_is_that_of_scipy(size, shape):
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    expected = ndimage.median_filter(images.numpy(), size=(1, 1, size, size), mode="reflect")
    assert np.array_equal(filter_median(images, size).numpy(), expected)


def test_the_median_detector_is_the_distance_of_softmax_vectors(images):
    classifier = sharp()
    filtered = torch.from_numpy(ndimage.median_filter(images.numpy(), size=(1, 1, 2, 2), mode="reflect"))
    distance = np.abs(probabilities(classifier, images) - probabilities(classifier, filtered)).sum(1)
    assert distance.max() > 0.01
    expect(MedianFilter()(classifier, images), distance, rtol=1e-3)


def test_the_loss_of_a_distance_is_a_function_of_it_that_does_not_saturate():
    logits, others = 5 * torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0)).double()
    expect(log_distance(logits, others), -torch.log(1 - softmax_distance(logits, others) / 2))
    apart = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    loss = log_distance(apart, torch.tensor([[0.0, 200, 0]]))
    expect(loss.detach(), [200 - math.log(3)])
    assert torch.autograd.grad(loss.sum(), apart)[0].any()


def test_prediction_under_noise_is_the_mean_distance_over_copies(images):
    classifier, generators = sharp(), image_generators(images, 3)
    copies = [(images + 0.1 * normal(images, generators)).clamp(0, 1) for _ in range(3)]
    plain = probabilities(classifier, images)
    distances = [np.abs(plain - probabilities(classifier, copy)).sum(1) for copy in copies]
    expect(UnderNoise(sigma=0.1, samples=3, seed=3)(classifier, images), np.mean(distances, axis=0), rtol=1e-3)


def test_the_shrunk_covariance_is_that_of_the_paper():
    residuals = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)).double()
    residuals *= torch.tensor([5.0, 3, 2, 1, 1])
    residuals -= residuals.mean(0)
    n, p = 29, 5
    sample = sum(torch.outer(row, row) for row in residuals) / n
    squares, trace = (sample @ sample).trace(), sample.trace()
    rho = ((1 - 2 / p) * squares + trace**2) / ((n + 1 - 2 / p) * (squares - trace**2 / p))
    assert 0 < rho < 1
    shrunk = (1 - rho) * sample + rho * trace / p * torch.eye(5)
    expect(invert_covariance(residuals, n) @ shrunk, torch.eye(5))


def test_fewer_images_than_units_have_a_covariance_all_the_same():
    precision = invert_covariance(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double(), 2)
    assert torch.linalg.eigvalsh(precision).min() > 0


def test_features_that_do_not_vary_are_refused():
    with pytest.raises(ModelError, match=r"^The features of clean images must vary, and they do not"):
        invert_covariance(torch.zeros(4, 3).double(), 3)


@pytest.mark.parametrize("by_class", [True, False])
def test_mahalanobis_is_the_distance_to_the_nearest_mean(by_class):
    classifier = sharp()
    generator = torch.Generator().manual_seed(1)
    clean, images = (torch.rand(count, 3, 16, 16, generator=generator) ** 2 for count in (40, 5))
    with torch.no_grad():  # so that several classes are predicted
        middle = classifier(clean).mean(0)
        classifier.module.head.bias.sub_(middle)
    groups = classifier.predict(clean) if by_class else torch.zeros(40, dtype=torch.long)
    features, own = (
        classifier.module.second(classifier.module.first((some - 0.5) / 0.25).relu()) for some in (clean, images)
    )
    features, own = (maps.mean((2, 3)).detach().double() for maps in (features, own))
    kept = [label for label in groups.unique() if (groups == label).sum() > 1]
    assert len(kept) > 1 or not by_class
    means = [features[groups == label].mean(0) for label in kept]
    residuals = torch.cat([features[groups == label] - mean for label, mean in zip(kept, means, strict=True)])
    precision = invert_covariance(residuals, len(residuals) - len(kept)).numpy()
    expected = [min(mahalanobis(image, mean, precision) ** 2 for mean in means) for image in own]
    expect(Mahalanobis(by_class=by_class).fit(classifier, clean)(classifier, images), expected, rtol=1e-3)


def test_mahalanobis_says_what_to_do_where_each_class_is_seen_once():
    classifier, clean = of_logits([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]])
    convolution = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), classifier.module)
    convolution[0] = Passing()
    seen = Classifier(convolution, size=(8, 8))
    with pytest.raises(ParameterError) as caught:
        Mahalanobis().fit(seen, clean)
    assert str(caught.value) == (
        "`clean` must have at least two images that the classifier gives one class; got 3, each of another class. "
        "Give more, or take mahalanobis(by_class=false)."
    )


class Passing(nn.Module):
    def forward(self, x):
        return x + 0


def test_gradcam_shift_is_one_minus_the_cosine_of_the_maps(images):
    classifier = sharp()
    predicted, filtered = classifier.predict(images), filter_median(images, 3)
    maps = [GradCAM("second")(classifier, some, predicted) for some in (images, filtered)]
    expected = 1 - cosine(*maps)
    assert expected.max() > 1e-3
    expect(GradCAMShift(size=3)(classifier, images), expected)
    expect(GradCAMShift(size=3, layer="second")(classifier, images), expected)


def test_gradcam_shift_of_two_empty_maps_is_none_and_of_one_all():
    class Gate(nn.Module):
        """A layer of one unit that is on where the image is bright; its logit falls with it, or rises."""

        def __init__(self, sign):
            super().__init__()
            self.layer, self.sign = nn.ReLU(), sign

        def forward(self, x):
            on = self.layer(x[:, :1] - 0.5).mean((1, 2, 3))
            return torch.stack([5 + self.sign * on, on * 0], 1)

    dot = torch.zeros(1, 3, 8, 8)
    dot[:, :, 4, 4] = 1  # which the filter takes away
    for sign, expected in ((1, 1.0), (-1, 0.0)):
        expect(GradCAMShift(size=3)(Classifier(Gate(sign), size=(8, 8)), dot), [expected])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BitDepth(0), "`bits` must be from 1 to 8; got 0."),
        (lambda: BitDepth(9), "`bits` must be from 1 to 8; got 9."),
        (lambda: MedianFilter(1), "`size` must be from 2 to 15 pixels; got 1."),
        (lambda: GradCAMShift(16), "`size` must be from 2 to 15 pixels; got 16."),
        (lambda: UnderNoise(sigma=0.0), "`sigma` must be a finite number above 0; got 0.0."),
        (lambda: UnderNoise(samples=0), "`samples` must be at least 1; got 0."),
    ],
)
def test_bad_parameters_are_refused(make, sentence):
    with pytest.raises(ParameterError) as caught:
        make()
    assert str(caught.value) == sentence


def test_a_layer_that_there_is_not_is_refused(images):
    with pytest.raises(ParameterError, match=r"^`layer` must name a layer of the model, or match some; got 'secnd'\."):
        GradCAMShift(layer="secnd")(small(), images)
    with pytest.raises(ParameterError, match=r"^`layer` must name one layer; got '\*', which matches first, second\."):
        GradCAMShift(layer="*")(small(), images)


def test_images_of_another_range_are_refused_by_those_that_fit(images):
    for detector in (TwoSidedMargin(), Mahalanobis()):
        with pytest.raises(ImageError, match="Divide them by 255"):
            detector.fit(small(), images * 255)
