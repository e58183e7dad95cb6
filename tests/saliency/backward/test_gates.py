"""The gated rule: by hand for every activation, the same however it is spelled, to the bit what it is on ReLUs."""

import math
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import resnet20, small
from whyfooled import (
    Classifier,
    Deconvnet,
    Enhanced,
    GradCAM,
    Gradient,
    GuidedBackprop,
    GuidedGradCAM,
    enhance,
    smooth_activations,
)
from whyfooled.errors import MethodError
from whyfooled.saliency.backward.graph import report_images
from whyfooled.saliency.backward.rules import activation_rule, guided

SELU = 1.6732632423543772, 1.0507009873554805


def exponential(alpha, width=1.0, scale=1.0):
    return lambda a: scale * (1 if a > 0 else alpha * math.expm1(a / width) / a if a else alpha / width)


def clipped(low, high):
    return lambda a: min(max(a, low), high)


# Each activation with its gate f(a)/a, of one number, from the activation's definition.
GATES = {
    "ReLU": (nn.ReLU(), lambda a: float(a > 0)),
    "ReLU6": (nn.ReLU6(), lambda a: float(0 < a < 6)),
    "GELU": (nn.GELU(), lambda a: (1 + math.erf(a / math.sqrt(2))) / 2),
    "GELU, tanh": (
        nn.GELU(approximate="tanh"),
        lambda a: (1 + math.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))) / 2,
    ),
    "SiLU": (nn.SiLU(), lambda a: 1 / (1 + math.exp(-a))),
    "Hardswish": (nn.Hardswish(), lambda a: clipped(0, 6)(a + 3) / 6),
    "Mish": (nn.Mish(), lambda a: math.tanh(math.log1p(math.exp(a)))),
    "ELU": (nn.ELU(1.3), exponential(1.3)),
    "CELU": (nn.CELU(0.7), exponential(0.7, 0.7)),
    "SELU": (nn.SELU(), exponential(SELU[0], scale=SELU[1])),
    "LeakyReLU": (nn.LeakyReLU(0.2), lambda a: 1 if a > 0 else 0.2),
    "RReLU": (nn.RReLU(0.1, 0.3).eval(), lambda a: 1 if a > 0 else 0.2),
    "PReLU": (lambda a: F.prelu(a, torch.full((1,), 0.3, dtype=a.dtype)), lambda a: 1 if a > 0 else 0.3),
    "Softsign": (nn.Softsign(), lambda a: 1 / (1 + abs(a))),
    "Hardtanh": (nn.Hardtanh(-1, 2), lambda a: clipped(-1, 2)(a) / a if a else 1),
    "Softshrink": (nn.Softshrink(0.1), lambda a: max(abs(a) - 0.1, 0) / abs(a) if a else 0),
    "Hardshrink": (nn.Hardshrink(0.1), lambda a: float(abs(a) > 0.1)),
    "Tanhshrink": (nn.Tanhshrink(), lambda a: 1 - math.tanh(a) / a if a else 0),
    "squared ReLU": (lambda a: F.relu(a) ** 2, lambda a: max(a, 0)),
    "quick GELU": (lambda a: a * torch.sigmoid(1.702 * a), lambda a: 1 / (1 + math.exp(-1.702 * a))),
}
EVERY = pytest.mark.parametrize("name", GATES)


class Layers(nn.Module):
    """Three linear layers of the pixels without biases, and an activation after two of them."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(2)
        self.activation = activation
        self.first, self.second = (nn.Linear(12, 12, bias=False) for _ in range(2))
        self.third = nn.Linear(12, 3, bias=False)
        with torch.no_grad():
            self.first.weight.mul_(6)
            self.second.weight.mul_(3)
            # Activations of exactly 0.
            self.first.weight[:2] = 0

    def forward(self, x):
        return self.third(self.activation(self.second(self.activation(self.first(x.flatten(1))))))


def by_hand(layers, activation, gate, x, out):
    """Go back through the layers, one number at a time."""
    with torch.no_grad():
        first, second, third = (part.weight for part in (layers.first, layers.second, layers.third))
        a = first @ x.flatten()
        b = second @ activation(a)
        gradient = third[out]
        for weight, values in ((second, b), (first, a)):
            gates = [gate(float(value)) for value in values]
            gradient = weight.T @ torch.tensor(
                [max(float(g), 0) * each for g, each in zip(gradient, gates, strict=True)], dtype=x.dtype
            )
        return gradient.view_as(x)


IMAGES = torch.rand(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@EVERY
def test_it_is_the_rule_by_hand(name):
    activation, gate = GATES[name]
    module = Layers(activation).double()
    found = GuidedBackprop()(Classifier(module, size=(2, 2)).double(), IMAGES, torch.tensor([[0, 2], [1, 0]]))
    for image, classes, maps in zip(IMAGES, [[0, 2], [1, 0]], found, strict=True):
        for out, each in zip(classes, maps, strict=True):
            expected = by_hand(module, activation, gate, image, out)
            assert expected.any()
            torch.testing.assert_close(each, expected, rtol=1e-6, atol=1e-9)


@EVERY
def test_it_is_so_in_single_precision(name):
    activation, gate = GATES[name]
    module = Layers(activation)
    found = GuidedBackprop()(Classifier(module, size=(2, 2)), IMAGES.float(), torch.tensor([0, 1]))
    wide = module.double()
    for image, out, each in zip(IMAGES, (0, 1), found, strict=True):
        expected = by_hand(wide, activation, gate, image.float().double(), out)
        torch.testing.assert_close(each.double(), expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


SMALL = (0.0, *(sign * 10.0**power for power in (-30, -9, -6, -5, -4, -3, -2, -1) for sign in (1, -1)))


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gate_is_right_near_zero_and_far_away(name, dtype):
    activation, gate = GATES[name]
    values = torch.tensor([*SMALL, 0.5, -0.5, 7.0, -7.0, 30.0, -30.0], dtype=dtype, requires_grad=True)
    with activation_rule(guided):
        report_images(values)
        outputs = activation(values * 1)
    (found,) = torch.autograd.grad(outputs.sum(), values)
    expected = torch.tensor([gate(value) for value in values.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-8)


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Network(nn.Module):
    """A function of a convolution, and a gate that must keep its own gradient."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(3)
        self.function = function
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 8, 3)
        self.norm = nn.LayerNorm([8, 4, 4])
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.first.weight.mul_(5)

    def forward(self, x):
        a = self.function(self.first(x))
        a = self.second(a * torch.sigmoid(self.squeeze(a.mean((2, 3), keepdim=True))))
        return self.head(self.function(self.norm(a)).mean((2, 3)))


PIXELS = torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([1, 4])


def classifier_of(function):
    return Classifier(Network(function).double().eval(), size=(6, 6)).double()


def maps_of(function, method=None):
    return (method or GuidedBackprop())(classifier_of(function), PIXELS, CLASSES)


def in_place(function):
    def statement(a):
        function(a)
        return a

    return statement


def halves(function):
    def apart(a):
        a = a + 0
        function(a[:, :4])
        function(a[:, 4:])
        return a

    return apart


def swish_in_place(a):
    return a.mul_(a.sigmoid())


def elu_by_assignment(a):
    a[a < 0] = torch.expm1(a)[a < 0]
    return a


class MyELU(nn.Module):
    def forward(self, a):
        return torch.where(a > 0, a, torch.exp(a) - 1)


SPELLINGS = {
    "SiLU": [
        F.silu,
        lambda a: F.silu(a, inplace=True),
        lambda a: F.silu(input=a),
        nn.SiLU(inplace=True),
        in_place(lambda a: F.silu(a, inplace=True)),
        halves(lambda a: F.silu(a, inplace=True)),
        lambda a: a * torch.sigmoid(a),
        lambda a: a * a.sigmoid(),
        swish_in_place,
        lambda a: a / (1 + torch.exp(-a)),
        lambda a: a * torch.sigmoid(a.flatten(1)).view_as(a),
        lambda a: F.silu(a.movedim(1, -1)).movedim(-1, 1),
        lambda a: torch.cat([part * torch.sigmoid(part) for part in a.chunk(2, 1)], 1),
        lambda a: a * (torch.tanh(a / 2) + 1) / 2,
    ],
    "GELU": [
        F.gelu,
        lambda a: 0.5 * a * (1 + torch.erf(a / 2**0.5)),
        lambda a: a * 0.5 * (1.0 + torch.erf(a / math.sqrt(2.0))),
        lambda a: a * torch.special.erfc(-a / 2**0.5) / 2,
    ],
    "GELU, tanh": [
        lambda a: F.gelu(a, approximate="tanh"),
        lambda a: 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))),
        lambda a: 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * torch.pow(a, 3)))),
        lambda a: a * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (a + 0.044715 * a * a * a)),
    ],
    "Hardswish": [
        F.hardswish,
        nn.Hardswish(inplace=True),
        lambda a: a * F.relu6(a + 3) / 6,
        lambda a: a * (F.relu6(a + 3) / 6),
        lambda a: a * F.hardsigmoid(a),
        lambda a: a * (a / 6 + 0.5).clamp(0, 1),
        lambda a: a.mul_(F.relu6(a + 3.0).div_(6.0)),
    ],
    "Mish": [
        F.mish,
        nn.Mish(inplace=True),
        lambda a: a * torch.tanh(F.softplus(a)),
        lambda a: a.mul_(F.softplus(a).tanh()),
        lambda a: a * torch.tanh(torch.log1p(torch.exp(a))),
    ],
    "LeakyReLU": [
        lambda a: F.leaky_relu(a, 0.2),
        lambda a: F.leaky_relu_(a, 0.2),
        nn.LeakyReLU(0.2, inplace=True),
        lambda a: torch.maximum(a, 0.2 * a),
        lambda a: torch.where(a > 0, a, 0.2 * a),
        lambda a: a.clamp(min=0) + 0.2 * a.clamp(max=0),
        lambda a: a * torch.where(a > 0, a.new_tensor(1.0), 0.2),
        lambda a: F.prelu(a, torch.full((8,), 0.2, dtype=a.dtype)),
        lambda a: torch.prelu(a, torch.full((1,), 0.2, dtype=a.dtype)),
    ],
    "ELU": [
        F.elu,
        nn.ELU(inplace=True),
        F.elu_,
        F.celu,
        MyELU(),
        lambda a: F.relu(a) + (torch.exp(a).clamp(max=1) - 1),
        lambda a: a.clamp(min=0) + torch.expm1(a.clamp(max=0)),
    ],
}
ALL = [(name, number) for name, spellings in SPELLINGS.items() for number in range(1, len(spellings))]


@pytest.mark.parametrize(("name", "number"), ALL)
def test_it_is_the_same_however_an_activation_is_called_or_spelled(name, number):
    expected = maps_of(SPELLINGS[name][0])
    found = maps_of(SPELLINGS[name][number])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))
    plain = maps_of(SPELLINGS[name][0], Gradient())
    assert (expected - plain).norm() > 0.05 * plain.norm()


@pytest.mark.parametrize("name", ["SiLU", "GELU", "LeakyReLU"])
def test_it_is_the_same_in_a_compiled_model(name):
    plain = Network(SPELLINGS[name][0]).double().eval()
    compiled = torch.compile(plain, backend="eager")
    compiled(PIXELS)
    methods = [
        GuidedBackprop()(Classifier(module, size=(6, 6)).double(), PIXELS, CLASSES) for module in (plain, compiled)
    ]
    assert torch.equal(*methods)


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_logits_and_the_plain_gradient_are_the_models_own(name):
    for function in SPELLINGS[name]:
        classifier = classifier_of(function)
        leaf = PIXELS.clone().requires_grad_()
        with torch.no_grad():
            expected = classifier(PIXELS)
        with activation_rule(guided):
            logits = classifier(leaf)
        torch.testing.assert_close(logits.detach(), expected, rtol=1e-12, atol=1e-14)


class PlainRule(torch.autograd.Function):
    """Guided backpropagation at a ReLU, as it is written in the paper."""

    @staticmethod
    def forward(ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs.relu()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.relu() * (ctx.saved_tensors[0] > 0)


@pytest.mark.parametrize("network", [small, resnet20])
def test_on_relus_it_is_guided_backpropagation_to_the_bit(network, monkeypatch):
    classifier = network()
    side = classifier.size[0]
    x, y = torch.rand(2, 3, side, side), torch.tensor([1, 3])
    found = GuidedBackprop()(classifier, x, y)
    monkeypatch.setattr(F, "relu", PlainRule.apply)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(classifier(leaf).gather(1, y[:, None]).sum(), leaf)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", SPELLINGS)
def test_enhancement_and_guided_grad_cam_follow(name):
    function, pair = SPELLINGS[name][0], torch.tensor([[1, 4], [4, 0]])
    both = GuidedBackprop()(classifier_of(function), PIXELS, pair)
    found = Enhanced()(classifier_of(function), PIXELS, pair[:, 0], contrast=pair[:, 1])
    assert found.any()
    assert torch.equal(found, enhance(both[:, 0], both[:, 1]))
    product = GuidedGradCAM("first")(classifier_of(function), PIXELS, pair)
    assert torch.equal(product, both * GradCAM("first")(classifier_of(function), PIXELS, pair))


def slopes(function, beta=None):
    """Return the derivative of a weighted sum of a map along some direction, and the difference that it stands for."""
    classifier, generator = classifier_of(function), torch.Generator().manual_seed(5)
    weights, direction = (torch.rand(PIXELS.shape, generator=generator, dtype=torch.float64) - 0.5 for _ in range(2))

    def total(images, create_graph):
        maps = GuidedBackprop()(classifier, images, CLASSES, **({"create_graph": True} if create_graph else {}))
        return (maps * weights).sum()

    leaf = PIXELS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(total(leaf, True), leaf)
    step = 1e-6
    ends = [float(total(PIXELS + sign * step * direction, False)) for sign in (1, -1)]
    return float((slope * direction).sum()), (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name in ("SiLU", "GELU", "Mish", "ELU", "Hardswish") for number in (0, 3)]
)
def test_maps_can_be_differentiated(name, number):
    found, expected = slopes(SPELLINGS[name][number])
    assert abs(expected) > 1e-3
    assert found == pytest.approx(expected, rel=1e-4)


REFUSED = {
    "Softplus": nn.Softplus(),
    "log_sigmoid": nn.LogSigmoid(),
    "LeakyReLU": nn.LeakyReLU(-0.1),
    "PReLU": nn.PReLU(8, init=-0.1),
    "ELU": nn.ELU(-1.0),
    "exp": torch.exp,
    "sign": torch.sign,
    "sin": torch.sin,
    "mul of a signal and a function of itself": lambda a: a * (1 + torch.sin(3 * a) * 2),
    "pow": lambda a: a**2,
    "abs": torch.abs,
    "a threshold other than 0": lambda a: F.threshold(a, 0.2, 0.1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_gate_is_refused_by_name(name):
    with pytest.raises(MethodError) as caught:
        maps_of(REFUSED[name])
    assert str(caught.value).startswith(
        "This method needs a network whose activations are 0 at 0 and keep the sign of what they take, such as ReLU, "
        "GELU, SiLU, Hardswish or ELU; this one uses "
    )
    assert name.lower() in str(caught.value).lower()


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_deconvnet_stays_for_relus(name):
    with pytest.raises(MethodError, match=r"activations are ReLU, ReLU6 or Hardtanh\(0, h\); this one uses"):
        maps_of(SPELLINGS[name][0], Deconvnet())


def test_one_in_another_thread_is_refused():
    def elsewhere(a):
        found = []
        thread = threading.Thread(target=lambda: found.append(F.gelu(a)))
        thread.start()
        thread.join()
        return F.gelu(found[0] - 0.1)

    with pytest.raises(MethodError, match=r"in another thread \(GeluBackward0\)"):
        maps_of(elsewhere)


def test_a_network_without_any_activation_is_refused():
    with pytest.raises(MethodError, match="needs a network with activations, and none ran"):
        maps_of(nn.Identity())


def test_the_rule_changes_the_activations_own_gradient_only():
    # y = −3h + 2·silu(h): the way around the activation keeps its negative gradient, however it is spelled.
    x = torch.tensor([1.0, -1.0], dtype=torch.float64)
    module = Classifier(nn.Sequential(nn.Flatten(), Apply(lambda a: -3 * a + 2 * (a * torch.sigmoid(a)))), size=(1, 2))
    images = x.view(1, 1, 1, 2).expand(1, 3, 1, 2).contiguous()
    found = GuidedBackprop()(module.double(), images, torch.tensor([0]))
    assert found[0, 0, 0, 0] == pytest.approx(-3 + 2 * float(torch.sigmoid(x[0])))


@pytest.mark.parametrize("name", ["leaky maximum", "leaky_relu", "hardtanh"])
def test_what_is_piecewise_linear_has_no_second_derivative_to_follow(name):
    function = {
        "leaky maximum": lambda a: torch.maximum(a, 0.1 * a),
        "leaky_relu": nn.LeakyReLU(),
        "hardtanh": nn.Hardtanh(),
    }[name]
    with pytest.raises(MethodError, match="this model also uses"), smooth_activations(5):
        GuidedBackprop()(classifier_of(function), PIXELS.clone().requires_grad_(), CLASSES, create_graph=True)


@pytest.mark.parametrize("number", [0, 6])
def test_smooth_activations_leave_what_is_smooth(number):
    leaf = PIXELS.clone().requires_grad_()
    plain = maps_of(SPELLINGS["SiLU"][0])
    with smooth_activations(5):
        maps = GuidedBackprop()(classifier_of(SPELLINGS["SiLU"][number]), leaf, CLASSES, create_graph=True)
    torch.testing.assert_close(maps.detach(), plain)
