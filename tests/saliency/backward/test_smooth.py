"""Smooth activations in place of ReLUs: right by hand, wherever a model calls ReLU, under every rule, and then gone."""

import math
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.helpers.activations import BOUNDED, RULES, SPELLINGS, Lambda
from tests.helpers.models import small
from whyfooled import Classifier, Deconvnet, DeepLIFT, GradCAM, Gradient, GuidedBackprop, smooth_activations
from whyfooled.errors import MethodError, ParameterError
from whyfooled.saliency.backward import rules
from whyfooled.saliency.backward.rules import activation_rule

METHODS = pytest.mark.parametrize("method", [Gradient(), GuidedBackprop(), Deconvnet(), GradCAM()], ids=repr)


def softplus(a, beta, upper=math.inf):
    """Compute it as it is written, in double precision."""
    smooth = torch.log1p(torch.exp(beta * a)) / beta
    return smooth if upper == math.inf else smooth - torch.log1p(torch.exp(beta * (a - upper))) / beta


def values():
    return torch.linspace(-3, 9, 60, dtype=torch.float64).view(1, 3, 4, 5).requires_grad_()


@pytest.mark.parametrize("spelling", [*SPELLINGS, *BOUNDED])
@pytest.mark.parametrize("rule", [None, rules.guided])
def test_every_spelling_is_replaced(spelling, rule):
    x, y, upper = values(), values(), 6.0 if spelling in BOUNDED else math.inf
    with smooth_activations(2.0):
        a = x * 1
        if rule is None:
            found = (SPELLINGS | BOUNDED)[spelling](a)
        else:
            with activation_rule(rule):
                found = (SPELLINGS | BOUNDED)[spelling](a)
    expected = softplus(y, 2.0, upper)
    torch.testing.assert_close(found, expected)
    in_place = any(sign in spelling for sign in ("in place", "statement", "relu_", "hardtanh_"))
    assert torch.equal(a, found if in_place else x)
    grown = torch.autograd.grad((found - 3).square().sum(), x)[0]
    slopes = torch.autograd.grad(expected.sum(), y)[0]
    plain = 2 * (expected.detach() - 3) * slopes
    torch.testing.assert_close(grown, plain if rule is None else plain.clamp_min(0))


def test_other_functions_are_not():
    x = torch.linspace(-3, 9, 60)
    with smooth_activations(2.0):
        assert torch.equal(F.hardtanh(x), x.clamp(-1, 1))
        assert torch.equal(F.threshold(x, 1, 0), torch.where(x > 1, x, 0))
        assert torch.equal(x.clamp_min(0), x.clamp(0, None))


def test_afterwards_relus_are_relus():
    x = torch.tensor([-1.0, 1.0])
    with pytest.raises(RuntimeError, match="broken"), smooth_activations(1.0):
        raise RuntimeError("broken")
    assert torch.relu(x).tolist() == [0, 1]
    with smooth_activations(1.0):
        assert torch.relu(x)[0] > 0.3
    assert torch.relu(x).tolist() == [0, 1]


def test_the_innermost_of_two_counts():
    x = torch.zeros(1)
    with smooth_activations(1.0), smooth_activations(4.0):
        assert float(torch.relu(x)) == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("beta", [1.0, 10.0, 1e3])
def test_an_activation_is_off_by_at_most_its_value_at_zero(beta):
    x = torch.linspace(-3, 9, 121, dtype=torch.float64)
    with smooth_activations(beta):
        off, off_bounded = F.relu(x) - x.clamp(0), F.relu6(x) - x.clamp(0, 6)
    assert float(off.max()) == pytest.approx(math.log(2) / beta)
    assert off.min() >= 0
    assert off_bounded.abs().max() <= math.log(2) / beta * (1 + 1e-9)


@METHODS
def test_maps_tend_to_those_of_relus(method):
    classifier, classes = small().double(), torch.tensor([[0, 3], [4, 1]])
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected, errors = method(classifier, x, classes), []
    for beta in (10.0, 100.0, 1e3, 1e6):
        with smooth_activations(beta):
            errors.append(float((method(classifier, x, classes) - expected).norm() / expected.norm()))
    if method == Deconvnet():
        # Its rule reads no activation.
        assert max(errors) < 1e-12
    else:
        assert errors[0] > errors[1] > errors[2] > errors[3]
        assert errors[0] > 1e-3 > 1e-4 > errors[3]


@pytest.mark.parametrize("upper", [math.inf, 1.5])
@pytest.mark.parametrize("rule", RULES)
def test_rules_hold_with_the_smooth_derivative(rule, upper):
    generator = torch.Generator().manual_seed(3)
    first, middle, last = (torch.randn(4, 5, 5, generator=generator, dtype=torch.float64)[i] for i in range(3))
    x = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    beta = 3.0
    with smooth_activations(beta), activation_rule(RULES[rule]):
        a = first @ x
        b = middle @ (F.relu(a) if upper == math.inf else F.hardtanh(a, 0.0, upper))
        z = last @ F.relu(b)

    def slope(values, upper):
        values = values.detach()
        shut = torch.zeros_like(values) if upper == math.inf else 1 / (1 + torch.exp(-beta * (values - upper)))
        return torch.ones_like(values) if rule == "deconvnet" else 1 / (1 + torch.exp(-beta * values)) - shut

    torch.testing.assert_close(b, middle @ softplus(first @ x, beta, upper))
    for out in range(5):
        inner = middle.T @ (last[out].clamp_min(0) * slope(b, math.inf))
        expected = first.T @ (inner.clamp_min(0) * slope(a, upper))
        torch.testing.assert_close(torch.autograd.grad(z[out], x, retain_graph=True)[0], expected)


def test_rules_hold_under_vmap():
    def logit(x):
        return (torch.relu(x) * torch.tensor([1.0, -1.0])).sum()

    x = torch.tensor([[1.0, 1.0], [-1.0, 2.0]])
    with smooth_activations(2.0), activation_rule(rules.guided):
        found = torch.func.vmap(torch.func.grad(logit))(x)
    torch.testing.assert_close(found, torch.sigmoid(2 * x) * torch.tensor([1.0, 0.0]))


@METHODS
def test_a_compiled_model_is_reached(method):
    torch.manual_seed(0)
    plain = Lambda(F.relu).eval()
    compiled = torch.compile(plain, backend="eager")
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    compiled(x)
    sharp = method(Classifier(plain), x, y)
    with smooth_activations(5):
        expected = method(Classifier(plain), x, y)
        assert torch.equal(method(Classifier(compiled), x, y), expected)
    assert torch.equal(method(Classifier(compiled), x, y), sharp)
    assert not torch.allclose(sharp, expected) or method == Deconvnet()


def elsewhere(a):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.relu(a)))
    thread.start()
    thread.join()
    return torch.relu(found[0] - 0.1)


def checkpointed(a):
    return checkpoint(torch.relu, a, use_reentrant=True)


def checkpointed_anew(a):
    # Nothing in the graph tells: the part runs again when its values are asked for, and then with ReLUs.
    return checkpoint(torch.relu, a, use_reentrant=False)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (elsewhere, "cannot replace its ReLUs: .*another thread"),
        (checkpointed, r"cannot replace its ReLUs: .*\(a checkpoint\)"),
        (checkpointed_anew, r"cannot replace its ReLUs: .*\(a checkpoint\)"),
        (nn.LeakyReLU(), "also uses LeakyReLU, and would still be piecewise linear"),
        (nn.PReLU(), "also uses PReLU"),
        (nn.Hardtanh(), "also uses Hardtanh"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@METHODS
def test_what_cannot_be_smooth_is_refused(function, words, method):
    x, y = torch.rand(1, 3, 8, 8), torch.tensor([0])
    with smooth_activations(5), pytest.raises(MethodError, match=words):
        method(Classifier(Lambda(function).eval()), x, y)


def test_a_scripted_model_is_refused():
    scripted = torch.jit.trace(Lambda(F.relu).eval(), torch.rand(1, 3, 8, 8))
    with smooth_activations(5), pytest.raises(MethodError, match="cannot replace its ReLUs: scripted"):
        Gradient()(Classifier(scripted), torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_a_checkpoint_around_the_block_is_fine():
    classifier, y = small(), torch.tensor([0])
    x = torch.rand(1, 3, 16, 16, requires_grad=True)

    def logit(images):
        with smooth_activations(5):
            return classifier(images)[:, y]

    expected = torch.autograd.grad(logit(x).sum(), x)[0]
    assert torch.equal(torch.autograd.grad(checkpoint(logit, x, use_reentrant=False).sum(), x)[0], expected)
    with smooth_activations(5):
        torch.testing.assert_close(Gradient()(classifier, x, y), expected)


def test_the_rescale_rule_holds_at_what_takes_the_place_of_relus():
    classifier, x = small(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with smooth_activations(5):
        maps = DeepLIFT()(classifier, x, torch.tensor([0]))
        change = (classifier.logits(x) - classifier.logits(torch.zeros_like(x)))[0, 0]
    assert float(maps.sum()) == pytest.approx(float(change), rel=1e-3)
    assert (maps - DeepLIFT()(classifier, x, torch.tensor([0]))).abs().max() > 1e-3 * maps.abs().max()


@pytest.mark.parametrize("function", [nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Sigmoid(), nn.Identity()], ids=str)
def test_networks_without_relus_are_as_they_were(function):
    torch.manual_seed(0)
    classifier, x, y = Classifier(Lambda(function).eval()), torch.rand(1, 3, 8, 8), torch.tensor([0])
    with smooth_activations(5):
        found = Gradient()(classifier, x, y)
    assert torch.equal(found, Gradient()(classifier, x, y))


@pytest.mark.parametrize("beta", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_beta_is_named(beta):
    with pytest.raises(ParameterError, match="`beta` must be a finite number above 0; got"), smooth_activations(beta):
        pass
