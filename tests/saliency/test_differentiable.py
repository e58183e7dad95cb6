"""Maps that are differentiated again: closed forms, finite differences, and what is refused."""

import re
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.finite_differences import random, slope_error
from tests.helpers.models import linear, small
from whyfooled import (
    LIME,
    LRP,
    Classifier,
    ContrastiveLRP,
    Deconvnet,
    DeepLIFT,
    Enhanced,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    count_passes,
)
from whyfooled.errors import MethodError, ParameterError
from whyfooled.registry import available
from whyfooled.saliency import check_differentiable, deeplift, differentiable, smooth_activations, smoothgrad
from whyfooled.saliency.backward.rescale import RecordedInputs
from whyfooled.tensors.fills import filled

SIDE = 6
# Parameters that keep the tests quick, for methods of many passes.
CHEAP = {"integrated-gradients": {"steps": 3}, "smoothgrad": {"samples": 3}}
# Every method that says it can; nobody has to add one here.
EVERY = [
    method
    for method in (known(**CHEAP.get(known.card.name, {})) for known in available("saliency").values())
    if differentiable(method)
]
# With other parameters, where these change what is differentiated.
MORE = [
    IntegratedGradients(steps=3, baseline="mean"),
    IntegratedGradients(steps=3, baseline="blur"),
    SmoothGrad(GuidedBackprop(), samples=2),
    LRP("alpha-beta", alpha=2.0, bias=True),
    ContrastiveLRP("clrp2"),
    *(Enhanced(norm="energy"), Enhanced(norm="max"), Enhanced(InputXGradient())),
]
RESCALED = [DeepLIFT(), DeepLIFT("mean"), DeepLIFT("blur")]
# Methods that say that they do not work on a network.
REFUSING = [("deeplift", "gated")]


class Gated(nn.Module):
    """ReLUs and ReLU6s around a gate, whose backward pass reads the values of both its sides."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.gate = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(4 * self.first(x), inplace=True)
        x = F.relu6(4 * self.second(x * torch.sigmoid(self.gate(x))))
        return self.head(x.mean((2, 3)))


def gated():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Classifier(Gated().eval(), size=(SIDE, SIDE))


NETWORKS = {"small": small, "gated": gated}


class Quadratic(nn.Module):
    """``z_c = ½ xᵀ A_c x`` with symmetric ``A_c``: the gradient is ``A_c x``."""

    def __init__(self, forms):
        super().__init__()
        self.forms = nn.Parameter(forms)

    def forward(self, x):
        return torch.einsum("ni,cij,nj->nc", x.flatten(1), self.forms, x.flatten(1)) / 2


def test_the_derivatives_of_a_quadratic_network_are_known():
    forms = random(3, 12, 12) - 0.5
    forms = forms + forms.mT
    classifier = Classifier(Quadratic(forms), size=(2, 2)).double()
    images, v = random(1, 3, 2, 2, seed=1).requires_grad_(), random(1, 3, 2, 2, seed=2)
    x, weights, a = images.detach().flatten(), v.flatten(), forms[1]

    def derivative(method):
        maps = method(classifier, images, torch.tensor([1]), create_graph=True)
        return torch.autograd.grad((v * maps).sum(), images)[0].flatten()

    torch.testing.assert_close(derivative(Gradient()), a @ weights)
    product = weights * (a @ x) + a @ (weights * x)
    torch.testing.assert_close(derivative(InputXGradient()), product)
    # On the way from black, the gradient grows from 0 to A x; its mean is half of that.
    torch.testing.assert_close(derivative(IntegratedGradients(steps=2)), product / 2)
    # From the mean colour m, the map is (x − m)·A(x + m)/2, and the mean is differentiated too.
    mean = torch.block_diag(*[torch.full((4, 4), 0.25, dtype=torch.float64)] * 3)
    away, along = torch.eye(12, dtype=torch.float64) - mean, a @ (torch.eye(12, dtype=torch.float64) + mean)
    moving = away @ (weights * (along @ x)) / 2 + along.mT @ (weights * (away @ x)) / 2
    torch.testing.assert_close(derivative(IntegratedGradients(steps=2, baseline="mean")), moving)


@pytest.fixture
def same_noise(monkeypatch):
    """Give every image the noise that belongs to black: the method's own changes with the last bit of an image."""
    own = smoothgrad.image_generators
    monkeypatch.setattr(smoothgrad, "image_generators", lambda images, seed: own(torch.zeros_like(images), seed))


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", [*EVERY, *MORE], ids=repr)
def test_derivatives_agree_with_finite_differences(method, network):
    classifier, x = NETWORKS[network]().double(), random(2, 3, SIDE, SIDE)
    chosen = {"classes": torch.tensor([[0, 3], [4, 1]])}
    if isinstance(method, Enhanced):
        chosen = {"classes": torch.tensor([0, 4]), "contrast": torch.tensor([3, 1])}

    def compute(images, create_graph):
        with smooth_activations(5):
            return method(classifier, images, **chosen, create_graph=create_graph)

    if (method.card.name, network) in REFUSING:
        with pytest.raises(MethodError, match="such as a gate"):
            compute(x.requires_grad_(), True)
    else:
        assert slope_error(compute, x) < 1e-5


def pooled():
    """Make a network of ReLUs, in place and cut off, around max pooling whose windows overlap."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        parts = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(inplace=True), nn.MaxPool2d(3, 2), nn.Conv2d(8, 6, 2)]
        parts += [nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6, 5)]
        return Classifier(nn.Sequential(*parts).eval(), size=(SIDE, SIDE)).double()


@pytest.mark.parametrize("beta", [5.0, None])
@pytest.mark.parametrize("make", [small, pooled])
@pytest.mark.parametrize("method", RESCALED, ids=repr)
def test_derivatives_of_slopes_to_a_baseline_agree_with_finite_differences(method, make, beta):
    classifier, x, classes = make().double(), random(2, 3, SIDE, SIDE), torch.tensor([[0, 3], [4, 1]])

    def compute(images, create_graph):
        with smooth_activations(beta) if beta else nullcontext():
            return method(classifier, images, classes, create_graph=create_graph)

    assert slope_error(compute, x) < 1e-5
    x = x.detach()
    torch.testing.assert_close(compute(x.clone().requires_grad_(), True).detach(), compute(x, False))
    with smooth_activations(beta) if beta else nullcontext():
        change = classifier.logits(x) - classifier.logits(filled(x, method.baseline))
    torch.testing.assert_close(compute(x, False).sum((2, 3, 4)), change.gather(1, classes), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [GuidedBackprop(), InputXGradient()], ids=repr)
def test_without_smooth_activations_too(method):
    # The gate alone makes the map of guided backpropagation change between the kinks.
    classifier, classes = gated().double(), torch.tensor([0, 3])
    x = random(2, 3, SIDE, SIDE)
    assert slope_error(lambda x, graph: method(classifier, x, classes, create_graph=graph), x) < 1e-5


@pytest.mark.parametrize("method", [Gradient(), GuidedBackprop()], ids=repr)
def test_second_derivatives_of_relus_are_zero_and_of_smooth_activations_not(method):
    classifier, classes = small().double(), torch.tensor([0, 3])
    x = random(2, 3, SIDE, SIDE).requires_grad_()
    maps = method(classifier, x, classes, create_graph=True)
    assert maps.any()
    assert not torch.autograd.grad(maps.square().sum(), x)[0].any()
    with torch.no_grad():
        assert torch.equal(method(classifier, x + 1e-9, classes), maps)
    with smooth_activations(5):
        maps = method(classifier, x, classes, create_graph=True)
    assert torch.autograd.grad(maps.square().sum(), x)[0].abs().max() > 1e-6


def test_a_deconvnet_shows_the_same_whatever_the_image():
    # Which is why it has no derivative.
    first, second = Deconvnet()(small(), torch.rand(2, 3, SIDE, SIDE), torch.tensor([1, 1]))
    torch.testing.assert_close(first, second)


def test_the_map_of_a_linear_model_has_the_derivative_zero():
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    for weight in (torch.randn(3, 192), torch.randn(3, 192).requires_grad_()):
        maps = Gradient()(linear(weight), x, torch.tensor([0, 1]), create_graph=True)
        assert not torch.autograd.grad(maps.sum(), x)[0].any()


def test_the_derivative_goes_on_to_what_the_images_were_computed_from():
    classifier, classes = small().double(), torch.tensor([1, 2])
    weights = random(2, 3, SIDE, SIDE, seed=5)

    def score(images):
        with smooth_activations(5):
            return (weights * GuidedBackprop()(classifier, images, classes, create_graph=True)).sum()

    delta = random(1, 3, SIDE, SIDE, seed=1).sub(0.5).requires_grad_()
    # An activation of the caller's own is none of the model's.
    images = 0.5 + F.leaky_relu(delta, 0.1).expand(2, -1, -1, -1) + F.relu(delta)
    leaf = images.detach().requires_grad_()
    (at_images,) = torch.autograd.grad(score(leaf), leaf)
    expected = at_images.sum(0, keepdim=True) * torch.where(delta > 0, 2, 0.1)
    torch.testing.assert_close(torch.autograd.grad(score(images), delta)[0], expected)


def test_passes_are_counted():
    classifier, x = small(), torch.rand(2, 3, 16, 16, requires_grad=True)
    with count_passes(classifier) as passes:
        maps = Gradient()(classifier, x, torch.tensor([1, 2]), create_graph=True)
        assert (passes.forwards, passes.backwards) == (2, 2)
        torch.autograd.grad(maps.square().sum(), x)
    assert (passes.forwards, passes.backwards) == (2, 4)


@pytest.mark.parametrize("method", EVERY, ids=repr)
def test_images_without_a_gradient_are_refused(method):
    x, y = torch.rand(1, 3, 16, 16), torch.tensor([0])
    with pytest.raises(ParameterError, match=r"`images` must require a gradient.*; got images that do not"):
        method(small(), x, y, create_graph=True)
    with torch.no_grad(), pytest.raises(ParameterError, match="got a call where gradients are switched off"):
        method(small(), x.requires_grad_(), y, create_graph=True)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (LIME(), "The maps of lime cannot be differentiated with respect to the image; take gradient, "),
        (Enhanced(LIME()), "maps of enhanced(base=lime) cannot be .* because those of lime cannot; take gradient, "),
        (SmoothGrad(Enhanced(LIME())), "because those of lime cannot; take "),
        (Enhanced(Deconvnet()), "because those of deconvnet cannot; take "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_methods_are_refused_by_name(method, words):
    assert not differentiable(method)
    pattern = re.escape(words).replace(r"\.\*", ".*")
    with pytest.raises(MethodError, match=pattern):
        check_differentiable(method)
    if hasattr(method, "base"):
        with pytest.raises(MethodError, match="cannot be differentiated"):
            method(small(), torch.rand(1, 3, 16, 16, requires_grad=True), torch.tensor([0]), create_graph=True)


def test_any_callable_can_be_asked():
    def squared(classifier, images, classes, *, create_graph=False):
        return Gradient()(classifier, images, classes, create_graph=create_graph).square()

    assert check_differentiable(squared) is squared
    assert differentiable(SmoothGrad(squared))
    with pytest.raises(MethodError, match=r"The maps of builtins\.len cannot"):
        check_differentiable(len)


@pytest.mark.parametrize("method", RESCALED, ids=repr)
def test_a_reference_that_no_image_changes_keeps_no_graph(method, monkeypatch):
    kept = []

    class Recorded(RecordedInputs):
        def __init__(self, **options):
            super().__init__(**options)
            kept.append(self.inputs)

    monkeypatch.setattr(deeplift, "RecordedInputs", Recorded)
    x, classes = random(2, 3, SIDE, SIDE), torch.tensor([0, 3])
    classifier = pooled()
    method(classifier, x.requires_grad_(), classes, create_graph=True)
    method(classifier, x, classes)
    differentiated, plain = kept
    assert len(plain) == 3
    assert not any(each.requires_grad for each in plain)
    assert all(each.requires_grad == (method.baseline != "zero") for each in differentiated)


@pytest.mark.parametrize("beta", [5.0, None])
def test_slopes_to_a_baseline_have_a_derivative_where_an_image_is_its_baseline(beta):
    # Black parts of an image: nothing changes there, and nothing may be divided by it.
    x, classes = random(2, 3, SIDE, SIDE), torch.tensor([0, 3])
    x[0, :, :3], x[1] = 0, 0
    with smooth_activations(beta) if beta else nullcontext():
        maps = DeepLIFT()(pooled(), x.requires_grad_(), classes, create_graph=True)
    (change,) = torch.autograd.grad(maps.square().sum(), x)
    assert change.isfinite().all()
    assert change[0].any()


class Branching(nn.Module):
    """More steps for a dark image than for a light one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        a = self.first(x).relu()
        if x.mean() < 0.1:
            a = (a - 0.1).relu()
        return self.head(a.mean((2, 3)))


def test_a_baseline_that_takes_more_steps_than_the_image_is_refused():
    with pytest.raises(MethodError, match="does the same steps for every image; this one does not"):
        DeepLIFT()(
            Classifier(Branching(), size=(SIDE, SIDE)), torch.rand(2, 3, SIDE, SIDE) / 2 + 0.5, torch.tensor([0, 3])
        )
