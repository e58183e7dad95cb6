"""A classifier that is shown images of another size: the same pixels, its own size inside."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.models import small
from whyfooled import Classifier, Fit, Gradient
from whyfooled.classifier.passes import count_passes
from whyfooled.classifier.resizing import resizing
from whyfooled.saliency.backward.smooth import smooth_activations


def images(side, n=2, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_a_classifier_of_that_fit_is_itself():
    classifier = small()
    assert resizing(classifier, Fit((16, 16))) is classifier


def test_logits_are_those_of_the_resized_images():
    classifier = small(side=16)
    resized = resizing(classifier, Fit((24, 20)))
    x = images(24)[..., :20]
    inner = F.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(x), classifier(inner))
    # Its normalisation is the classifier's own, once.
    plain = classifier.module((inner - 0.5) / 0.25)
    torch.testing.assert_close(resized(x), plain)
    assert (resized.size, resized.name, resized.class_count()) == ((24, 20), "small", 5)


def test_of_one_size_only_the_fit_differs():
    classifier = small(side=16)
    other = resizing(classifier, Fit((16, 16), shorter_side=20))
    assert other.fit.shorter_side == 20
    assert classifier.fit.shorter_side is None
    assert other.module is classifier.module
    torch.testing.assert_close(other(images(16)), classifier(images(16)), rtol=0, atol=0)
    assert other.digest() == classifier.digest()


def test_the_digest_tells_sizes_apart():
    digests = {resizing(small(side=side), Fit((24, 24))).digest() for side in (16, 20, 24)}
    assert len(digests) == 3


def test_class_names_and_channels_are_kept():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    grey = Classifier(module, mean=(0.3,), std=(0.2,), size=(8, 8), class_names=["cat", "dog"])
    resized = resizing(grey, Fit((12, 12)))
    assert (resized.channels, resized.class_names) == (1, ("cat", "dog"))
    assert resized(torch.rand(2, 1, 12, 12)).shape == (2, 2)


def test_gradients_flow_through_the_resize():
    classifier = small(side=8)
    resized = resizing(classifier, Fit((12, 12)))
    x, classes = images(12, n=1).double(), torch.tensor([1])
    classifier.double()
    resized.double()
    found = Gradient()(resized, x, classes)
    for place in [(0, 0, 3, 4), (0, 2, 11, 0)]:
        step = torch.zeros_like(x)
        step[place] = 1e-6
        slope = (resized(x + step) - resized(x - step))[0, 1] / 2e-6
        assert float(found[place]) == pytest.approx(float(slope.detach()), rel=1e-4)


def test_maps_can_be_differentiated_with_smooth_activations():
    resized = resizing(small(side=4).double(), Fit((6, 6))).double()
    x = images(6, n=1).double().requires_grad_()

    def energy(inputs):
        with smooth_activations(10):
            return Gradient()(resized, inputs, torch.tensor([0]), create_graph=True).square().sum()

    assert torch.autograd.gradcheck(energy, (x,))


def test_passes_are_counted_on_it():
    resized = resizing(small(side=8), Fit((12, 12)))
    with count_passes(resized) as passes:
        Gradient()(resized, images(12, n=3), torch.tensor([0, 1, 2]))
    assert (passes.forwards, passes.backwards) == (3, 3)
