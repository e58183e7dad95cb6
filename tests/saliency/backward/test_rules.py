"""The rules at a ReLU: right by hand, right wherever a model calls ReLU, and gone without a trace."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution
from captum.attr import GuidedBackprop as CaptumGuided
from torch import nn
from torchvision import models

from tests.helpers.activations import BOUNDED, RULES, SPELLINGS, Lambda
from tests.helpers.oracles import ruled_two_layers
from tests.helpers.torchvision_families import REFUSED, RULED, SIDES, build
from tests.helpers.untouched import Failing, state
from whyfooled import Classifier, Deconvnet, Gradient, GuidedBackprop
from whyfooled.errors import MethodError, ModelError
from whyfooled.saliency.backward import rules
from whyfooled.saliency.backward.rules import activation_rule


def maps_of(function, method, scale=1.0):
    torch.manual_seed(0)
    module = Lambda(function).eval()
    with torch.no_grad():
        module.conv.weight.mul_(scale)
    x = torch.rand(2, 3, 8, 8)
    return method(Classifier(module), x, torch.tensor([1, 2]))


@pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet()], ids=repr)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu_gets_the_rule(spelling, method):
    expected = maps_of(SPELLINGS["module"], method)
    assert torch.equal(maps_of(SPELLINGS[spelling], method), expected)
    assert not torch.allclose(expected, maps_of(SPELLINGS["module"], Gradient()))


@pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet()], ids=repr)
@pytest.mark.parametrize("spelling", BOUNDED)
def test_every_spelling_of_relu6_gets_the_rule(spelling, method):
    expected = maps_of(BOUNDED["ReLU6"], method, scale=40)
    assert torch.equal(maps_of(BOUNDED[spelling], method, scale=40), expected)
    assert not torch.allclose(expected, maps_of(BOUNDED["ReLU6"], Gradient(), scale=40))


@pytest.mark.parametrize("upper", [float("inf"), 1.5])
@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_rules_agree_with_a_backward_pass_by_hand(rule, upper):
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    second = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    x = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    with activation_rule(RULES[rule]):
        a = first @ x
        z = second @ (F.relu(a) if upper == float("inf") else F.hardtanh(a, 0.0, upper))
    for out in range(4):
        (found,) = torch.autograd.grad(z[out], x, retain_graph=True)
        torch.testing.assert_close(found, ruled_two_layers(first, second, x.detach(), out, rule, upper))


def test_the_rule_changes_the_relus_own_gradient_only():
    # h = x·1, y = −3h + 2·relu(h): the path around the ReLU keeps its negative gradient.
    x = torch.tensor([1.0, -1.0], requires_grad=True)
    with activation_rule(rules.guided):
        h = x * 1
        y = -3 * h + 2 * torch.relu(h)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [-1.0, -3.0]


def test_a_statement_in_place_writes_into_its_tensor():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    with activation_rule(rules.guided):
        a = x * 1
        F.relu(a, inplace=True)
    assert a.tolist() == [0.0, 2.0]
    assert torch.autograd.grad(a.sum(), x)[0].tolist() == [0.0, 1.0]


def test_a_module_used_twice_gets_the_rule_twice():
    relu = nn.ReLU()
    x = torch.tensor([2.0, -2.0], requires_grad=True)
    with activation_rule(rules.guided):
        y = (relu(x) * torch.tensor([-1.0, 1.0]) + relu(-x)).sum()
    assert torch.autograd.grad(y, x)[0].tolist() == [0.0, -1.0]


def test_rules_work_under_vmap():
    def logit(x):
        return (torch.relu(x) * torch.tensor([1.0, -1.0, 1.0])).sum()

    x = torch.tensor([[1.0, 1.0, -1.0], [-1.0, 2.0, 3.0]])
    with activation_rule(rules.guided):
        found = torch.func.vmap(torch.func.grad(logit))(x)
    assert found.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize("method", [GuidedBackprop(), Deconvnet(), Gradient()], ids=repr)
def test_nothing_is_left_on_a_model_that_raises(method):
    module = Failing()
    before, weights = state(module), copy.deepcopy(module.state_dict())
    with pytest.raises(ModelError, match="broken"):
        method(Classifier(module), torch.rand(1, 3, 8, 8), torch.tensor([0]))
    assert state(module) == before
    assert all(torch.equal(weights[key], value) for key, value in module.state_dict().items())
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    assert torch.autograd.grad(-torch.relu(x).sum(), x)[0].tolist() == [0.0, -1.0]


def test_nothing_is_left_on_a_model_that_works():
    module = models.resnet18(weights=None)
    before, weights = state(module), copy.deepcopy(module.state_dict())
    GuidedBackprop()(Classifier(module), torch.rand(1, 3, 64, 64), torch.tensor([[0, 1]]))
    assert state(module) == before
    assert all(torch.equal(weights[key], value) for key, value in module.state_dict().items())


def test_a_compiled_model_gets_the_rule():
    torch.manual_seed(0)
    plain = Lambda(F.relu).eval()
    compiled = torch.compile(plain, backend="eager")
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    compiled(x)
    assert torch.equal(GuidedBackprop()(Classifier(compiled), x, y), GuidedBackprop()(Classifier(plain), x, y))


def test_a_scripted_model_is_refused():
    scripted = torch.jit.trace(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(1, 3, 8, 8)
    )
    with pytest.raises(MethodError, match="scripted"):
        GuidedBackprop()(Classifier(scripted), torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_a_relu_in_another_thread_is_refused():
    def elsewhere(a):
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.relu(a)))
        thread.start()
        thread.join()
        return torch.relu(found[0] - 0.1)

    with pytest.raises(MethodError, match="another thread"):
        maps_of(elsewhere, GuidedBackprop())


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.GELU(), "GELU"),
        (nn.SiLU(), "SiLU"),
        (nn.Hardswish(), "Hardswish"),
        (nn.ELU(), "ELU"),
        (nn.LeakyReLU(), "LeakyReLU"),
        (nn.PReLU(), "PReLU"),
        (nn.Softplus(), "Softplus"),
        (nn.Mish(), "Mish"),
        (nn.Hardtanh(), "Hardtanh"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_deconvnet_refuses_other_activations_by_name(activation, name):
    with pytest.raises(MethodError, match=name):
        maps_of(nn.Sequential(nn.ReLU(), activation), Deconvnet())


def test_a_model_without_relu_is_refused():
    with pytest.raises(MethodError, match="none ran"):
        maps_of(nn.Identity(), Deconvnet())


@pytest.mark.parametrize(
    ("method", "captum_method"),
    [(GuidedBackprop(), CaptumGuided), (Deconvnet(), Deconvolution)],
    ids=["guided", "deconvnet"],
)
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_and_deconvnet_equal_captums(name, method, captum_method):
    module = build(name)
    x, y = torch.rand(2, 3, 64, 64), torch.tensor([3, 7])
    ours = method(Classifier(module), x, y)
    theirs = captum_method(module).attribute(x.clone().requires_grad_(), target=y)
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "densenet121"])
def test_rules_reach_relus_that_module_hooks_miss(name):
    side = SIDES.get(name, 64)
    x, y = torch.rand(1, 3, side, side), torch.tensor([3])
    classifier = Classifier(build(name), size=(side, side))
    plain = Gradient()(classifier, x, y)
    for method in (GuidedBackprop(), Deconvnet()):
        found = method(classifier, x, y)
        assert torch.isfinite(found).all()
        assert (found - plain).norm() > 0.1 * plain.norm()


def family(name):
    return models.get_model_builder(name).__module__.rpartition(".")[2]


def test_the_lists_hold_every_torchvision_family():
    every = {family(name) for name in models.list_models(module=models)}
    assert {family(name) for name in [*RULED, *REFUSED]} == every


@pytest.mark.parametrize("name", [*RULED, *REFUSED])
def test_every_torchvision_family_gets_the_rule(name):
    side = SIDES.get(name, 64)
    classifier = Classifier(build(name), size=(side, side))
    x, y = torch.rand(1, 3, side, side), torch.tensor([3])
    guided, plain = GuidedBackprop()(classifier, x, y), Gradient()(classifier, x, y)
    assert torch.isfinite(guided).all()
    assert (guided - plain).norm() > 0.1 * plain.norm() > 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_deconvnet_refuses_every_other_torchvision_family_by_activation(name):
    with pytest.raises(MethodError, match=REFUSED[name]):
        Deconvnet()(Classifier(build(name), size=(64, 64)), torch.rand(1, 3, 64, 64), torch.tensor([3]))
