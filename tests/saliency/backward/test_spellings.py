"""A rectifier is one however it is spelled, a gate is a gate, and what may be either and is neither is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from whyfooled import LRP, Classifier, Deconvnet, DeepLIFT, Gradient, GuidedBackprop, smooth_activations
from whyfooled.errors import MethodError
from whyfooled.saliency.backward.gradients import class_gradients
from whyfooled.saliency.backward.rules import Rule


class Network(nn.Module):
    """A ReLU that is called by its name, then a function, each of a convolution."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(3)
        self.function = function
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        a = self.second(F.relu(self.first(x)))
        return self.head(self.third(self.function(a)).relu().mean((2, 3)))


class WithLayer(nn.Module):
    """A function of a signal and a layer."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(4)
        self.function = function
        self.layer = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, a):
        return self.function(a, self.layer)


def classifier_of(function, scale=1.0):
    module = Network(function).double().eval()
    with torch.no_grad():
        module.second.weight.mul_(scale)
    return Classifier(module, (0.5,) * 3, (0.25,) * 3, (8, 8)).double()


IMAGES = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 4])
METHODS = pytest.mark.parametrize(
    "method", [GuidedBackprop(), Deconvnet(), DeepLIFT("blur"), LRP(), LRP("epsilon")], ids=repr
)
RULED = pytest.mark.parametrize("method", [Deconvnet(), DeepLIFT("blur")], ids=repr)


def maps_of(function, method, scale=1.0):
    return method(classifier_of(function, scale), IMAGES, CLASSES)


def assert_same(maps, expected):
    assert expected.any()
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


def assigned(a):
    a[a < 0] = 0
    return a


def assigned_to_a_view(a):
    rows = a.flatten(2)
    rows[rows < 0] = 0
    return rows.view_as(a)


def halved_in_place(a):
    size = a.abs()
    size.add_(a)
    size.mul_(0.5)
    return size


def minus_the_clamped(a):
    return -(-a).clamp(max=0)


def in_parts(a):
    return torch.cat([a[:, :4].clamp(min=0), a[:, 4:] * (a[:, 4:] > 0)], 1)


def in_parts_in_place(a):
    a = a + 0
    a[:, :4].clamp_(min=0)
    a[:, 4:].mul_(a[:, 4:] > 0)
    return a


def in_place_and_on(a):
    return a.clamp_(min=0).mul_(2).div_(2)


def permuted(a):
    last = a.movedim(1, -1)
    return (last * (a > 0).movedim(1, -1)).movedim(-1, 1)


class Threshold(nn.Module):
    """The thresholded linear unit, with its threshold at 0."""

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(1, 8, 1, 1))

    def forward(self, a):
        return torch.maximum(a, self.threshold)


def twice(a):
    return a.clamp(min=0) - 0.5 * (-a).clamp(min=0)


SPELLINGS = {
    "clamp": lambda a: a.clamp(min=0),
    "clamp_": lambda a: a.clamp_(min=0),
    "clip": lambda a: torch.clip(a, 0),
    "clamp_min": lambda a: a.clamp_min(0),
    "clamp_min_": lambda a: a.clamp_min_(0),
    "clamp_min_ of a view": lambda a: a.flatten(1).clamp_min_(0).view_as(a),
    "clamp by a tensor": lambda a: torch.clamp(a, min=a.new_zeros(())),
    "maximum": lambda a: torch.maximum(a, torch.zeros_like(a)),
    "maximum of a number": lambda a: torch.maximum(torch.tensor(0.0), a),
    "max": lambda a: torch.max(a, torch.zeros(1)),
    "fmax": lambda a: torch.fmax(a, torch.zeros(())),
    "where": lambda a: torch.where(a > 0, a, 0),
    "where not": lambda a: torch.where(a <= 0, torch.zeros_like(a), a),
    "where as a method": lambda a: a.where(a >= 0, torch.zeros(())),
    "masked_fill": lambda a: a.masked_fill(a < 0, 0),
    "masked_fill_": lambda a: a.masked_fill_(a < 0, 0),
    "product": lambda a: a * (a > 0),
    "product exchanged": lambda a: (a > 0).float() * a,
    "product in place": lambda a: a.mul_(a > 0),
    "product with a type": lambda a: a * (a > 0).to(a.dtype),
    "product of views": lambda a: (a.flatten(1) * (a > 0).flatten(1)).view_as(a),
    "product with what is detached": lambda a: a * (a.detach() > 0),
    "product with data": lambda a: a * a.data.gt(0),
    "product with a step": lambda a: a * torch.heaviside(a.detach(), torch.zeros((), dtype=a.dtype)),
    "product with the sign": lambda a: a * (a.sign() + 1) / 2,
    "half of the sum": lambda a: (a + a.abs()) / 2,
    "half of the sum in place": halved_in_place,
    "half of each": lambda a: 0.5 * a + 0.5 * torch.abs(a),
    "root of the square": lambda a: (a + a.square().sqrt()) / 2,
    "minus the minimum": lambda a: -torch.minimum(-a, torch.zeros_like(a)),
    "minus the clamped": lambda a: minus_the_clamped(a),
    "assignment": assigned,
    "assignment to a view": assigned_to_a_view,
    "threshold": lambda a: torch.threshold(a, 0.0, 0.0),
    "threshold_": lambda a: F.threshold_(a, 0.0, 0.0),
    "twice the same": lambda a: a.clamp(min=0).clamp(min=0),
    "in parts": in_parts,
    "in parts in place": in_parts_in_place,
    "in place, and on": in_place_and_on,
    "channel by channel": lambda a: torch.stack([part.clamp(min=0) for part in a.unbind(1)], 1),
    "permuted": permuted,
    "thresholded linear unit": Threshold(),
    "minus the negative part": lambda a: a - a.clamp(max=0),
    "addcmul": lambda a: torch.addcmul(torch.zeros_like(a), a, (a > 0).to(a)),
    "lerp": lambda a: torch.lerp(torch.zeros_like(a), a, (a > 0).to(a)),
    "by what is less precise": lambda a: a * (a.float() > 0),
}
BOUNDED = {
    "clamp": lambda a: a.clamp(0, 6),
    "of a ReLU": lambda a: F.relu(a).clamp(max=6),
    "minimum": lambda a: torch.minimum(a.clamp(min=0), torch.tensor(6.0)),
    "where": lambda a: torch.where(a < 0, 0, torch.where(a > 6, 6, a)),
    "product": lambda a: a * (a > 0) * (a < 6) + 6 * (a >= 6),
}


@METHODS
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_rectifier_is_one_however_it_is_spelled(spelling, method):
    assert_same(maps_of(SPELLINGS[spelling], method), maps_of(lambda a: F.relu(a), method))


@METHODS
@pytest.mark.parametrize("spelling", BOUNDED)
def test_a_rectifier_with_an_upper_bound_too(spelling, method):
    expected = maps_of(lambda a: F.relu6(a), method, scale=40)
    assert_same(maps_of(BOUNDED[spelling], method, scale=40), expected)


@METHODS
def test_one_behind_a_shift_or_a_scale_for_each_channel_too(method):
    sizes = torch.linspace(-2, 2, 8, dtype=torch.float64).view(8, 1, 1)
    for moved in (lambda a: a - 0.1, lambda a: a * sizes + 0.2 * sizes, lambda a: 2 - 3 * a):
        expected = maps_of(lambda a, moved=moved: F.relu(moved(a)), method)
        assert_same(maps_of(lambda a, moved=moved: moved(a).clamp(min=0), method), expected)


@METHODS
def test_one_behind_another_function_too(method):
    functions = (lambda a: F.relu(a) - 0.1, lambda a: F.relu6(a).roll(1, 1) - 0.2, lambda a: F.relu(a) * 3 - 1)
    for function in functions:
        expected = maps_of(lambda a, function=function: F.relu(function(a)), method, 20)
        assert_same(maps_of(lambda a, function=function: function(a).clamp(min=0), method, 20), expected)
        assert_same(maps_of(lambda a, function=function: minus_the_clamped(function(a)), method, 20), expected)


@METHODS
def test_two_rectifiers_of_one_signal_are_two(method):
    expected = maps_of(lambda a: F.relu(a) - 0.5 * F.relu(-a), method)
    assert_same(maps_of(twice, method), expected)


def grown(function, method, scale=1.0):
    inputs = IMAGES.clone().requires_grad_()
    with smooth_activations(5):
        maps = method(classifier_of(function, scale), inputs, CLASSES, create_graph=True)
    return torch.autograd.grad(maps.square().sum(), inputs)[0]


@pytest.mark.parametrize("method", [Gradient(), GuidedBackprop()], ids=repr)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_made_smooth(spelling, method):
    assert_same(grown(SPELLINGS[spelling], method), grown(lambda a: F.relu(a), method))


@pytest.mark.parametrize("spelling", BOUNDED)
def test_every_spelling_with_an_upper_bound_is_made_smooth(spelling):
    assert_same(grown(BOUNDED[spelling], Gradient(), 40), grown(lambda a: F.relu6(a), Gradient(), 40))


def test_outside_of_a_model_nothing_is_taken_for_a_rectifier():
    x = torch.linspace(-1, 1, 9, requires_grad=True)
    with smooth_activations(2.0):
        assert torch.equal(x.clamp(0, 1), torch.where(x > 0, x, 0))
        Gradient()(classifier_of(lambda a: F.relu(a)), IMAGES, CLASSES)
        assert torch.equal(x.clamp(0, 1), torch.where(x > 0, x, 0))


class AFunction(torch.autograd.Function):
    """A ReLU with a backward pass of its own."""

    @staticmethod
    def forward(ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


def straight_through(a):
    return a + (a.clamp(min=0) - a).detach()


def straight_through_without_gradients(a):
    with torch.no_grad():
        change = F.relu(a) - a
    return a + change


def chosen(a):
    outputs = torch.zeros_like(a)
    outputs[a > 0] = a[a > 0]
    return outputs


def leaky_assignment(a):
    a[a < 0] *= 0.1
    return a


def best_channel(a):
    return a * torch.zeros_like(a).scatter_(1, a.topk(1, 1).indices, 1.0)


def in_a_part(a):
    a = a + 0
    F.silu(a[:, :4], inplace=True)
    return a


BENT = {
    "leaky maximum": (lambda a: torch.maximum(a, 0.1 * a), "maximum of a signal and a function of itself"),
    "leaky where": (lambda a: torch.where(a > 0, a, 0.1 * a), "where with a mask made of the signal"),
    "leaky parts": (lambda a: a.clamp(min=0) + 0.1 * a.clamp(max=0), "clamp with a constant"),
    "leaky assignment": (leaky_assignment, "with a mask made of the signal"),
    "hard threshold": (lambda a: a * (a > 0.2), "mul with a mask made of the signal"),
    "hard threshold where": (lambda a: torch.where(a > 0.2, a, 0), "where with a mask made of the signal"),
    "shifted threshold": (lambda a: F.threshold(a, 0.2, 0.0), "a threshold other than 0"),
    "soft threshold": (lambda a: a.sign() * (a.abs() - 0.1).clamp(min=0), "abs"),
    "above very little": (lambda a: a.clamp(min=1e-30), "clamp with a constant"),
    "above a little": (lambda a: a.clamp(min=1e-6), "clamp with a constant"),
    "between": (lambda a: a.clamp(-1, 1), "clamp with a constant"),
    "abs": (lambda a: a.abs(), "abs"),
    "abs by the sign": (lambda a: a * a.sign(), "sign"),
    "straight through": (straight_through, "add with a mask made of the signal"),
    "straight through, no gradients": (straight_through_without_gradients, "add with a mask made of the signal"),
    "chosen by a mask": (chosen, "with a mask made of the signal"),
    "best channel": (best_channel, "mul with a mask made of the signal"),
    "largest of two": (lambda a: torch.stack([a, 0 * a]).amax(0), "amax of a signal and a constant or a function"),
    "largest of a pool": (
        lambda a: F.max_pool2d(torch.cat([a[:, :, None], 0 * a[:, :, None]], 2).flatten(3), (2, 1)).view_as(a),
        "max_pool2d of a signal and a constant or a function",
    ),
    "product of matrices": (
        lambda a: (torch.diag_embed((a > 0).to(a)) @ a[..., None])[..., 0],
        "matmul with a mask made of the signal",
    ),
    "largest beside 0": (lambda a: torch.stack([a, torch.zeros_like(a)]).max(0).values, "max of a signal and a const"),
    "before a rectifier": (
        lambda a: minus_the_clamped((a * (a > 0.2)).roll(1, 1)),
        "mul with a mask made of the signal",
    ),
    "a function": (lambda a: AFunction.apply(a), r"AFunction \(a torch.autograd.Function\)"),
}
SMOOTH = {
    "SiLU": (lambda a: a * torch.sigmoid(a), "mul of a signal and a function of itself"),
    "SiLU divided": (lambda a: a / (1 + torch.exp(-a)), "div of a signal and a function of itself"),
    "SiLU of views": (lambda a: a * torch.sigmoid(a.flatten(1)).view_as(a), "mul of a signal and a function of itself"),
    "SiLU of slices": (
        lambda a: torch.cat([a[:, :4] * torch.sigmoid(a[:, :4]), a[:, 4:]], 1),
        "mul of a signal and a function of itself",
    ),
    "SiLU by einsum": (
        lambda a: torch.einsum("nchw,nchw->nchw", a, torch.sigmoid(a)),
        "einsum of a signal and a function of itself",
    ),
    "quick GELU": (lambda a: a * torch.sigmoid(1.702 * a), "mul of a signal and a function of itself"),
    "swish for each channel": (
        lambda a: a * torch.sigmoid(a * torch.linspace(0.5, 2, 8, dtype=a.dtype).view(8, 1, 1)),
        "mul of a signal and a function of itself",
    ),
    "swish behind a norm": (
        lambda a: a * torch.sigmoid(F.batch_norm(a, torch.zeros(8).to(a), torch.ones(8).to(a))),
        "mul of a signal and a function of itself",
    ),
    "GELU": (lambda a: 0.5 * a * (1 + torch.erf(a / 2**0.5)), "mul of a signal and a function of itself"),
    "GELU by tanh": (lambda a: 0.5 * a * (1 + torch.tanh(0.8 * (a + 0.0447 * a**3))), "mul of a signal and a"),
    "Mish": (lambda a: a * torch.tanh(torch.log1p(torch.exp(a))), "mul of a signal and a function of itself"),
    "softplus": (lambda a: torch.log(1 + torch.exp(a)), "exp, log"),
    "square": (lambda a: a * a, "mul of a signal and a function of itself"),
    "square of a ReLU": (lambda a: F.relu(a) ** 2, "pow"),
    "SiLU in a part": (in_a_part, "silu"),
}
HARD = {
    "Hardswish": (lambda a: a * F.relu6(a + 3) / 6, "mul of a signal and a function of itself"),
    "Hardswish divided before": (lambda a: a * (F.relu6(a + 3) / 6), "mul of a signal and a function of itself"),
    "Hardswish by clamp": (lambda a: a * (a / 6 + 0.5).clamp(0, 1), "mul of a signal and a function of itself"),
}


@RULED
@pytest.mark.parametrize("name", [*BENT, *SMOOTH, *HARD])
def test_what_is_no_rectifier_is_refused_by_what_it_is(name, method):
    function, words = {**BENT, **SMOOTH, **HARD}[name]
    with pytest.raises(MethodError, match=rf"this one uses .*{words}.* Spell a rectifier as torch\.relu, or use"):
        maps_of(function, method)


WITHOUT_GATE = (
    *("leaky assignment", "above a little", "abs", "abs by the sign", "straight through"),
    *("above very little", "straight through, no gradients", "chosen by a mask", "best channel"),
    *("largest of two", "largest of a pool"),
    *("product of matrices", "largest beside 0", "a function", "SiLU by einsum", "swish for each channel"),
    *("swish behind a norm", "softplus", "square"),
)
"""What the gated rule refuses: where it is no activation with a gate, or not seen to be one."""


@pytest.mark.parametrize("name", [*BENT, *SMOOTH, *HARD])
def test_guided_maps_hold_at_whatever_has_a_gate(name):
    function, words = {**BENT, **SMOOTH, **HARD}[name]
    if name in WITHOUT_GATE:
        with pytest.raises(MethodError, match=rf"this one uses .*{words}.*\. Use a method without a rule"):
            maps_of(function, GuidedBackprop())
    else:
        maps, plain = maps_of(function, GuidedBackprop()), maps_of(function, Gradient())
        assert (maps - plain).norm() > 0.05 * plain.norm()


@pytest.mark.parametrize("name", BENT)
def test_what_stays_piecewise_linear_is_not_made_smooth(name):
    function, words = BENT[name]
    with pytest.raises(MethodError, match=f"this model also uses .*{words}"):
        grown(function, Gradient())


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_already_stays(name):
    function = SMOOTH[name][0]
    with smooth_activations(1e9):
        maps = maps_of(function, Gradient())
    torch.testing.assert_close(maps, maps_of(function, Gradient()), rtol=1e-3, atol=1e-6)


UNRULED = ("abs", "abs by the sign", "a function", "between the signs", "SiLU by einsum", "swish for each channel")


@pytest.mark.parametrize("method", [LRP(), LRP("epsilon")], ids=repr)
@pytest.mark.parametrize("name", [*UNRULED, "swish behind a norm", "softplus", "square"])
def test_what_relevance_has_no_rule_for_is_refused(name, method):
    turned = {"between the signs": (lambda a: torch.where(a > 0, a, -a), "")}
    with pytest.raises(MethodError, match="Relevance has no rule for"):
        maps_of({**BENT, **SMOOTH, **HARD, **turned}[name][0], method)


PASSED = {
    "SiLU": F.silu,
    "SiLU divided": F.silu,
    "SiLU of views": F.silu,
    "GELU": F.gelu,
    "Mish": F.mish,
    "Hardswish": F.hardswish,
    "Hardswish by clamp": F.hardswish,
}


@pytest.mark.parametrize("method", [LRP(), LRP("epsilon")], ids=repr)
@pytest.mark.parametrize("name", PASSED)
def test_relevance_passes_an_activation_with_a_gate_however_it_is_spelled(name, method):
    expected = maps_of(lambda a: PASSED[name](a), method)
    assert_same(maps_of({**SMOOTH, **HARD}[name][0], method), expected)


@pytest.mark.parametrize("method", [LRP(), LRP("epsilon")], ids=repr)
@pytest.mark.parametrize("name", ["leaky maximum", "leaky where"])
def test_relevance_passes_what_keeps_the_sign(name, method):
    expected = maps_of(lambda a: F.leaky_relu(a, 0.1), method)
    assert_same(maps_of(BENT[name][0], method), expected)


GATES = {
    "relu6": lambda a: F.relu6(a + 3) / 6,
    "relu6, multiplied": lambda a: F.relu6(3 + a) * (1 / 6),
    "hardtanh": lambda a: F.hardtanh(a + 3, 0.0, 6.0) / 6,
    "clamp": lambda a: torch.clamp(a / 6 + 0.5, 0, 1),
    "clamp before": lambda a: (a + 3).clamp(0, 6).div(6),
}


@pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet(), LRP()], ids=repr)
@pytest.mark.parametrize("spelling", GATES)
@pytest.mark.parametrize("where", ["pooled", "everywhere", "behind a ReLU"])
def test_a_hard_gate_is_one_however_it_is_spelled(where, spelling, method):
    def with_gate(squash):
        def gated(a, layer):
            signal = F.relu(a)
            gate = 20 * layer(signal.mean((2, 3), keepdim=True) if where == "pooled" else signal)
            return signal * squash(F.relu(gate) if where == "behind a ReLU" else gate)

        return WithLayer(gated)

    assert_same(maps_of(with_gate(GATES[spelling]), method), maps_of(with_gate(F.hardsigmoid), method))


KEPT = {
    "squeeze and excitation": WithLayer(lambda a, layer: a.relu() * torch.sigmoid(layer(a.mean((2, 3), keepdim=True)))),
    "gated linear unit": lambda a: torch.cat([a[:, :4] * torch.sigmoid(a[:, 4:])] * 2, 1),
    "F.glu": lambda a: torch.cat([F.glu(a, 1)] * 2, 1),
    "chunks": lambda a: torch.cat([torch.mul(*a.relu().chunk(2, 1))] * 2, 1),
    "CReLU, pooled": lambda a: (
        a + torch.cat([a[:, :4].relu(), (-a[:, :4]).relu()], 1).flatten(2).amax(2)[..., None, None]
    ),
    "constant channels, pooled": lambda a: F.max_pool2d(torch.cat([a[:, :7], torch.ones_like(a[:, :1])], 1), 3, 1, 1),
    "maxout": lambda a: torch.cat([torch.maximum(a[:, :4], a[:, 4:])] * 2, 1),
    "maxout, stacked": lambda a: torch.cat([torch.stack(a.chunk(2, 1)).amax(0)] * 2, 1),
    "softmax over branches": WithLayer(
        lambda a, layer: (torch.stack([a, layer(a)]) * torch.stack([a, layer(a)]).softmax(0)).sum(0)
    ),
    "mean taken away": lambda a: a.relu() - a.mean((2, 3), keepdim=True),
    "mask of the model": lambda a: torch.where(torch.arange(8).view(8, 1) > 3, a, 0) * (torch.arange(8) > 2),
    "weights of parameters": WithLayer(
        lambda a, layer: F.conv2d(a.relu(), layer.weight.clamp(min=0).exp().sqrt(), padding=1)
    ),
    "local response": lambda a: F.local_response_norm(a.relu(), 3),
    "attention": lambda a: F.scaled_dot_product_attention(a, a, a),
    "attention by hand": lambda a: (a @ a.mT / 8**0.5).softmax(-1) @ a,
    "instance norm": lambda a: F.instance_norm(a),
    "pooled places": lambda a: (
        F.max_pool2d(a, 3, 1, 1) + F.adaptive_max_pool2d(a, 1) + a.topk(2, 1).values.sum(1)[:, None]
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_no_activation_keeps_its_gradient(name):
    # A rule that changes nothing gives the gradient, and says whether the network would be refused.
    classifier, leaf = classifier_of(KEPT[name]), IMAGES.clone().requires_grad_()
    kept = class_gradients(classifier, leaf, CLASSES, rule=Rule(lambda gradient, node: node.own_gradient(gradient)))
    assert_same(kept, Gradient()(classifier, IMAGES, CLASSES))
    assert grown(KEPT[name], GuidedBackprop()).isfinite().all()


def by_hand(a, power, root):
    centred = a - a.mean(1, keepdim=True)
    return centred / root(power(centred).mean(1, keepdim=True) + 1e-5)


NORMS = {
    "pow": (lambda c: c.pow(2), torch.sqrt),
    "square": (lambda c: c * c, lambda v: v**0.5),
    "torch.square": (torch.square, lambda v: 1 / torch.rsqrt(v)),
}


@pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet()], ids=repr)
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_that_is_written_out_is_a_norm(name, method):
    def native(a):
        return F.layer_norm(a.relu().movedim(1, -1), (8,)).movedim(-1, 1)

    assert_same(maps_of(lambda a: by_hand(a.relu(), *NORMS[name]), method), maps_of(native, method))


@pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet()], ids=repr)
def test_a_vector_norm_that_is_written_out_is_one(method):
    expected = maps_of(lambda a: F.normalize(a.relu() + 0.01), method)
    spellings = (
        lambda a: a / a.norm(dim=1, keepdim=True).clamp(min=1e-12),
        lambda a: a / torch.sqrt((a**2).sum(1, keepdim=True)).clamp_min(1e-12),
        lambda a: a * (a * a).sum(1, keepdim=True).clamp(min=1e-24).rsqrt(),
    )
    for spelling in spellings:
        assert_same(maps_of(lambda a, spelling=spelling: spelling(a.relu() + 0.01), method), expected)


class Clamped(Network):
    """Takes care that its images are within [0, 1]."""

    def forward(self, x):
        return super().forward(x.clamp(0, 1))


@METHODS
def test_an_image_that_is_cut_off_at_black_and_white_is_an_image(method):
    plain, clamped = (kind(lambda a: F.relu(a)).double().eval() for kind in (Network, Clamped))
    expected = method(Classifier(plain, size=(8, 8)).double(), IMAGES, CLASSES)
    assert_same(method(Classifier(clamped, size=(8, 8)).double(), IMAGES, CLASSES), expected)


def test_maps_are_those_of_relu_in_single_precision_to_the_bit():
    maps = []
    for function in (lambda a: F.relu(a), lambda a: a.clamp(min=0), lambda a: (a + a.abs()) / 2):
        module = Network(function).eval()
        maps.append(GuidedBackprop()(Classifier(module, size=(8, 8)), IMAGES.float(), CLASSES))
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])
