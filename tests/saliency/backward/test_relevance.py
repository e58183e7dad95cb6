"""Relevance wherever a model computes: every operation by its rule, however it is spelled."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from tests.helpers.activations import BOUNDED, SPELLINGS
from tests.helpers.middles import Middle, maps_of
from tests.helpers.sums import accumulated, in_slices
from tests.helpers.untouched import Failing, state
from whyfooled import LRP, Classifier, ContrastiveLRP
from whyfooled.errors import ModelError

METHODS = [LRP(bias=True), LRP("epsilon"), LRP("alpha-beta", alpha=2.0)]
METHOD = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.rule)


def assert_same(first, second):
    # No closer than ε and what else keeps denominators from 0.
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6 * float(second.abs().max()))


@METHOD
@pytest.mark.parametrize("spelling", [*SPELLINGS, *BOUNDED])
def test_every_spelling_of_an_activation_passes_relevance_on(spelling, method):
    # A ReLU6 that is saturated passes its relevance on, where its gradient is 0.
    reference, scale = (F.relu6, 40) if spelling in BOUNDED else (F.relu, 1)
    assert_same(maps_of({**SPELLINGS, **BOUNDED}[spelling], method, scale), maps_of(reference, method, scale))


ACTIVATIONS = {
    "clamp": (lambda a: a.clamp(0, 6), F.relu6),
    "clamp by name": (lambda a: torch.clamp(a, min=0), F.relu),
    "clamp_min": (lambda a: a.clamp_min(0), F.relu),
    "clamp_ of a view": (lambda a: a.flatten(2).clamp_(min=0).view_as(a), F.relu),
    "leaky": (nn.LeakyReLU(0.0), F.relu),
    "PReLU": (nn.PReLU(16, init=0.0), F.relu),
    "where": (lambda a: torch.where(a > 0, a, 0), F.relu),
    "masked_fill": (lambda a: a.masked_fill(a < 0, 0), F.relu),
    "maximum": (lambda a: torch.maximum(a, torch.zeros_like(a)), F.relu),
}


@METHOD
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_other_activations_that_keep_the_sign_are_as_good(name, method):
    assert_same(*(maps_of(function, method) for function in ACTIVATIONS[name]))


OTHER = torch.rand(16, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.5


def plus(a):
    return a.relu() + a.roll(1, 1)


SUMS = {
    "torch.add": lambda a: torch.add(a.relu(), a.roll(1, 1)),
    "with alpha": lambda a: torch.add(a.relu(), a.roll(1, 1) * -2, alpha=-0.5),
    "in place": lambda a: a.relu().add_(a.roll(1, 1)),
    "sum": lambda a: sum([a.relu(), a.roll(1, 1)]),
    "stack": lambda a: torch.stack([a.relu(), a.roll(1, 1)]).sum(0),
    "difference": lambda a: a.relu() - -a.roll(1, 1),
    "accumulated": accumulated,
    "in slices": in_slices,
    "overwritten": lambda a: plus(a).relu_().add(0),
}


@METHOD
@pytest.mark.parametrize("spelling", SUMS)
def test_every_spelling_of_a_sum_shares_by_its_terms(spelling, method):
    expected = maps_of((lambda a: plus(a).relu()) if spelling == "overwritten" else plus, method)
    assert_same(maps_of(SUMS[spelling], method), expected)


MEANS = {
    "adaptive": lambda a: F.adaptive_avg_pool2d(a, 1).flatten(1),
    "module": lambda a: nn.AdaptiveAvgPool2d((1, 1))(a)[:, :, 0, 0],
    "avg_pool2d": lambda a: F.avg_pool2d(a, 8).view(len(a), -1),
    "sum": lambda a: a.sum((2, 3)) / 64,
    "flat": lambda a: a.flatten(2).mean(-1),
    "torch.mean": lambda a: torch.mean(a, dim=[2, 3], keepdim=True).squeeze(),
    "in two steps": lambda a: F.avg_pool2d(input=a, kernel_size=2).mean((2, 3)),
    "weighted": lambda a: F.conv2d(a, a.new_full((16, 1, 8, 8), 1 / 64), groups=16).flatten(1),
    "bilinear": lambda a: F.interpolate(a, scale_factor=0.5, mode="bilinear").mean((2, 3)),
}


@pytest.mark.parametrize("spelling", MEANS)
def test_every_spelling_of_a_mean_shares_by_its_terms(spelling):
    for method in METHODS[1:2] if spelling == "weighted" else METHODS:
        found = maps_of(lambda a: MEANS[spelling](a.relu()), method)
        assert_same(found, maps_of(lambda a: a.relu().mean((2, 3)), method))


def linear(a):
    return F.linear(a.relu().flatten(1), WEIGHT, BIAS)


WEIGHT = torch.randn(6, 16 * 64, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) / 10
BIAS = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(6)) / 10
LINEAR = {
    "@": lambda a: a.relu().flatten(1) @ WEIGHT.T + BIAS,
    "matmul": lambda a: torch.matmul(a.relu().flatten(1), WEIGHT.T).add(BIAS),
    "addmm": lambda a: torch.addmm(BIAS, a.relu().flatten(1), WEIGHT.T),
    "addmm with factors": lambda a: torch.addmm(BIAS * 2, a.relu().flatten(1), WEIGHT.T * 4, beta=0.5, alpha=0.25),
    "mm": lambda a: a.relu().flatten(1).mm(WEIGHT.T) - -BIAS,
    "scaled": lambda a: -F.linear(a.relu().flatten(1), WEIGHT * 2, BIAS * 2) / -2,
    "normed": lambda a: F.batch_norm(a.relu().flatten(1) @ WEIGHT.T, -BIAS, torch.ones_like(BIAS), eps=0.0),
    "reversed": lambda a: BIAS - a.relu().flatten(1) @ -WEIGHT.T,
}


@METHOD
@pytest.mark.parametrize("spelling", LINEAR)
def test_every_spelling_of_a_linear_layer_is_one_layer(spelling, method):
    expected = maps_of(lambda a: linear(a).relu(), method, channels=6)
    assert_same(maps_of(lambda a: LINEAR[spelling](a).relu(), method, channels=6), expected)


class Normed(nn.Module):
    """A convolution and its batch norm, by themselves or fused."""

    def __init__(self, convolution, norm=nn.BatchNorm2d, fused=False):
        super().__init__()
        torch.manual_seed(1)
        self.convolution, self.norm = convolution(), norm(12)
        for value in (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var):
            nn.init.uniform_(value, 0.5, 1.5)
        if isinstance(self.norm, nn.BatchNorm2d):
            nn.init.uniform_(self.norm.weight, -1.5, 1.5)
        self.eval().double()
        if fused:
            self.convolution, self.norm = nn.utils.fuse_conv_bn_eval(self.convolution, self.norm), nn.Identity()

    def forward(self, a):
        return self.norm(self.convolution(a.relu()))


CONVOLUTIONS = {
    "with bias": lambda: nn.Conv2d(16, 12, 3),
    "without bias": lambda: nn.Conv2d(16, 12, 3, bias=False, stride=2, padding=1),
    "grouped": lambda: nn.Conv2d(16, 12, 3, groups=4, dilation=2),
    "padded by name": lambda: nn.Conv2d(16, 12, (3, 5), padding="same"),
    "reflecting": lambda: nn.Conv2d(16, 12, 3, padding=1, padding_mode="reflect"),
}


@METHOD
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_batch_norm_is_fused_with_the_convolution_before_it(kind, method):
    found, expected = (maps_of(Normed(CONVOLUTIONS[kind], fused=fused), method, channels=12) for fused in (False, True))
    assert_same(found, expected)


@METHOD
def test_a_batch_norm_written_as_arithmetic_is_fused_too(method):
    frozen = Normed(CONVOLUTIONS["with bias"], FrozenBatchNorm2d)
    same = Normed(CONVOLUTIONS["with bias"])
    same.norm.load_state_dict(frozen.norm.state_dict(), strict=False)
    same.convolution.load_state_dict(frozen.convolution.state_dict())
    assert_same(maps_of(frozen, method, channels=12), maps_of(same, method, channels=12))


def test_a_batch_norm_alone_gives_its_shift_a_share():
    # The shift is −1 in each of 16 channels, and all that is no part of the image.
    torch.manual_seed(0)
    module = Middle(lambda a: F.batch_norm(a.relu() + a.roll(1, 1), *NORM, eps=0.0)).double()
    module.conv.bias.data.zero_()
    module.head.bias.data.zero_()
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1])
    classifier, method = Classifier(module, size=(8, 8)), LRP("epsilon", epsilon=0.0)
    logits = classifier.logits(x).gather(1, y[:, None])[:, 0]
    expected = -module.head.weight.sum(1)[y].detach() / logits
    torch.testing.assert_close(method.leak(classifier, x, y), expected, rtol=1e-4, atol=0)


ONES = torch.ones(16, dtype=torch.float64)
NORM = (ONES / 2, ONES / 4)


def gate_of(a):
    return torch.sigmoid(a.mean((2, 3), keepdim=True) * 3)


GATED = {
    "product": lambda a, hold: a * hold(gate_of(a)),
    "exchanged": lambda a, hold: hold(gate_of(a)) * a,
    "in place": lambda a, hold: (a + 0).mul_(hold(gate_of(a))),
    "expanded": lambda a, hold: a * hold(gate_of(a).expand_as(a)),
    "residual": lambda a, hold: a * hold(1 + gate_of(a)),
    "spatial": lambda a, hold: a * hold(torch.sigmoid(a.mean(1, keepdim=True))),
    "hard": lambda a, hold: a * hold(F.hardsigmoid(a.mean((2, 3), keepdim=True))),
    "hard by hand": lambda a, hold: a * hold(F.relu6(a.mean((2, 3), keepdim=True) + 3) / 6),
}


@METHOD
@pytest.mark.parametrize("kind", GATED)
def test_a_gate_receives_nothing_and_its_signal_everything(kind, method):
    expected = maps_of(lambda a: GATED[kind](a.relu(), torch.Tensor.detach), method)
    assert_same(maps_of(lambda a: GATED[kind](a.relu(), torch.positive), method), expected)


class Repeated(nn.Module):
    """One convolution and one batch norm used twice, or two of each with the same weights."""

    def __init__(self, shared):
        super().__init__()
        torch.manual_seed(1)
        first = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        second = first if shared else copy.deepcopy(first)
        self.parts = nn.ModuleList([*first, *second])

    def forward(self, a):
        a = F.relu(self.parts[1](self.parts[0](a.relu())))
        return F.relu(a + self.parts[3](self.parts[2](a)))


@METHOD
def test_modules_that_are_used_twice_are_as_good_as_two(method):
    assert_same(maps_of(Repeated(True), method), maps_of(Repeated(False), method))


@METHOD
def test_weights_that_are_made_of_parameters_are_weights(method):
    torch.manual_seed(1)
    made = nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3).double())
    plain = nn.Conv2d(16, 16, 3).double()
    plain.load_state_dict({"weight": made.weight, "bias": made.bias})
    found, expected = (maps_of(nn.Sequential(nn.ReLU(), part, nn.ReLU()), method) for part in (made, plain))
    assert_same(found, expected)


class Normalising(nn.Module):
    """A model that normalises for itself."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.rest = function, Middle(F.relu)

    def forward(self, x):
        return self.rest(self.function(x))


def by_channels(x):
    return torch.cat([torch.unsqueeze(x[:, i], 1) * (1 / 0.25) + (0 - 0.5) / 0.25 for i in range(3)], 1)


def inverted(x):
    return -(0.5 - x) * 4


PREPARED = {
    "arithmetic": lambda x: (x - 0.5) / 0.25,
    "in place": lambda x: (x + 0).sub_(0.5).div_(0.25),
    "by channels": by_channels,
    "inverted": inverted,
    "padded and cut": lambda x: F.pad((x - 0.5) / 0.25, (2, 2, 2, 2))[:, :, 2:-2, 2:-2],
    "batch norm": lambda x: F.batch_norm(x, ONES[:3] / 2, ONES[:3] / 16, eps=0.0),
}


@pytest.mark.parametrize("method", [*METHODS, LRP(), LRP(first="flat"), ContrastiveLRP()], ids=repr)
@pytest.mark.parametrize("way", PREPARED)
def test_normalisation_is_no_layer_wherever_it_is_done(way, method):
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1])
    outside = Classifier(Normalising(nn.Identity()).double(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(8, 8))
    inside = Classifier(Normalising(PREPARED[way]).double(), size=(8, 8))
    assert_same(method(inside, x, y), method(outside, x, y))


def test_padding_has_no_room_in_the_box():
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1])
    own, before = Normalising(nn.Identity()).double(), Normalising(lambda x: F.pad(x, (1, 1, 1, 1))).double()
    before.rest.conv.padding = (0, 0)
    options = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": (8, 8)}
    assert_same(*(LRP()(Classifier(module, **options), x, y) for module in (before, own)))


def test_a_compiled_model_has_the_same_maps():
    torch.manual_seed(0)
    plain = Middle(F.relu).eval()
    compiled = torch.compile(plain, backend="eager")
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    compiled(x)
    assert torch.equal(LRP()(Classifier(compiled), x, y), LRP()(Classifier(plain), x, y))


@pytest.mark.parametrize("method", [LRP(), ContrastiveLRP("clrp2")], ids=repr)
def test_nothing_is_left_on_a_model_whether_it_works_or_raises(method):
    for module, side in ((models.resnet18(weights=None), 64), (Failing(), 8)):
        before, weights = state(module), copy.deepcopy(module.state_dict())
        call = (Classifier(module), torch.rand(1, 3, side, side), torch.tensor([[0, 1]]))
        if isinstance(module, Failing):
            with pytest.raises(ModelError, match="broken"):
                method(*call)
        else:
            method(*call)
        assert state(module) == before
        assert all(torch.equal(weights[key], value) for key, value in module.state_dict().items())


def test_frozen_and_trainable_parameters_make_no_difference():
    torch.manual_seed(0)
    module = models.resnet18(weights=None).eval()
    x, y = torch.rand(1, 3, 64, 64), torch.tensor([0])
    expected = LRP()(Classifier(module), x, y)
    assert torch.equal(LRP()(Classifier(module.requires_grad_(False)), x, y), expected)
