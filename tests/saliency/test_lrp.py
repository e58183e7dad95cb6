"""LRP and contrastive LRP: right by loops over weights, conserving where nothing leaks, honest where something does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LRP as CaptumLRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from torch import nn

from tests.helpers.models import linear, small
from tests.helpers.oracles import convolution_matrix, relevance_by_loops
from whyfooled import LRP, Classifier, ContrastiveLRP, Gradient, count_passes
from whyfooled.errors import MethodError, ParameterError, WhyfooledWarning

MEAN, STD = 0.4, 0.25
LOW, HIGH = (0 - MEAN) / STD, (1 - MEAN) / STD


def classify(module, side, channels=3):
    return Classifier(module.eval(), mean=(MEAN,) * channels, std=(STD,) * channels, size=(side, side))


def dense(seed=0, convolution=None):
    """Three layers; the first may be a convolution, and is given to the oracle as a matrix."""
    torch.manual_seed(seed)
    if convolution is None:
        module = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)
        )
        first, side = module[1].weight, 2
    else:
        side = 5
        count = convolution(torch.rand(1, 3, side, side)).numel()
        module = nn.Sequential(convolution, nn.Flatten(), nn.ReLU(), nn.Linear(count, 16), nn.ReLU(), nn.Linear(16, 4))
        options = convolution.stride[0], convolution.padding[0]
        first = torch.from_numpy(convolution_matrix(convolution.weight.detach().numpy(), side, *options))
    module = module.double()
    weighted = [part for part in module if isinstance(part, nn.Linear | nn.Conv2d)]
    biases = [part.bias.detach().numpy() for part in weighted]
    biases[0] = np.repeat(biases[0], len(first) // len(biases[0]))
    weights = [first.detach().numpy(), *(part.weight.detach().numpy() for part in weighted[1:])]
    return classify(module, side), list(zip(weights, biases, strict=True))


def by_loops(classifier, layers, x, start, rules, **options):
    inputs = ((x - MEAN) / STD).flatten().numpy()
    relevance = relevance_by_loops(layers, inputs, start, rules, low=LOW, high=HIGH, **options)
    return torch.from_numpy(relevance).view_as(x)


AB, EPS = "alpha-beta", "epsilon"
CASES = [
    (LRP(), ["box", EPS, EPS], {"epsilon": 1e-6}),
    (LRP(epsilon=0.25, first="same"), [EPS, EPS, EPS], {"epsilon": 0.25}),
    (LRP("epsilon", epsilon=0.0), [EPS, EPS, EPS], {}),
    (LRP("epsilon", epsilon=0.25), [EPS, EPS, EPS], {"epsilon": 0.25}),
    (LRP("epsilon", first="flat"), ["flat", EPS, EPS], {"epsilon": 1e-6}),
    (LRP("alpha-beta"), ["box", AB, AB], {"bias": False}),
    (LRP("alpha-beta", alpha=2.0, bias=True), ["box", AB, AB], {"alpha": 2.0}),
    (LRP("alpha-beta", bias=True, first="same"), [AB, AB, AB], {}),
    (LRP("alpha-beta", alpha=3.0, first="same"), [AB, AB, AB], {"alpha": 3.0, "bias": False}),
]


@pytest.mark.parametrize(("method", "rules", "options"), CASES, ids=lambda case: repr(case)[:60])
def test_dense_layers_follow_the_rules_one_weight_at_a_time(method, rules, options):
    classifier, layers = dense()
    x, y = torch.rand(2, 3, 2, 2, dtype=torch.float64), torch.tensor([[0, 1], [2, 3]])
    found, logits = method(classifier, x, y), classifier.logits(x)
    for i in range(2):
        for k in range(2):
            start = np.zeros(4)
            start[y[i, k]] = logits[i, y[i, k]]
            expected = by_loops(classifier, layers, x[i], start, rules, **options)
            torch.testing.assert_close(found[i, k], expected, rtol=1e-6, atol=1e-9)


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(3, 4, 3, padding=1),
    "strided": lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "pointwise": lambda: nn.Conv2d(3, 4, 1),
}
CONVOLUTION_CASES = [
    (LRP(), ["box", EPS, EPS], {"epsilon": 1e-6}),
    (LRP(first="flat"), ["flat", EPS, EPS], {"epsilon": 1e-6}),
    (LRP(first="same"), [AB, EPS, EPS], {"epsilon": 1e-6, "bias": False}),
    (LRP(first="same", alpha=2.0, bias=True), [AB, EPS, EPS], {"epsilon": 1e-6, "alpha": 2.0}),
    (LRP("epsilon", epsilon=0.1), [EPS, EPS, EPS], {"epsilon": 0.1}),
]


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize(("method", "rules", "options"), CONVOLUTION_CASES, ids=lambda case: repr(case)[:60])
def test_a_convolution_follows_the_rules_one_weight_at_a_time(method, rules, options, kind):
    torch.manual_seed(1)
    classifier, layers = dense(convolution=CONVOLUTIONS[kind]())
    x = torch.rand(1, 3, 5, 5, dtype=torch.float64)
    start = np.zeros(4)
    start[2] = classifier.logits(x)[0, 2]
    expected = by_loops(classifier, layers, x[0], start, rules, **options)
    torch.testing.assert_close(method(classifier, x, torch.tensor([2]))[0], expected, rtol=1e-6, atol=1e-9)


def test_of_a_linear_model_it_is_weight_times_normalised_image():
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 192, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    module = linear(weight, bias).module
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 2])
    found = LRP("epsilon", epsilon=0.0)(classify(module, 8), x, y)
    torch.testing.assert_close(found, weight[y].view(2, 3, 8, 8) * (x - MEAN) / STD)


class Residual(nn.Module):
    """Shortcuts of three kinds, grouped convolutions and batch norm, nothing with a bias."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.project = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.grouped = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4, bias=False)
        self.head = nn.Linear(24, 5, bias=False)
        for norm in self.norms:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x):
        x = F.relu(self.norms[0](self.stem(x)), inplace=True)
        x = F.relu6(x + self.norms[2](self.project(F.relu6(self.norms[1](self.depthwise(x))))))
        x = self.norms[3](x)
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        short += self.grouped(x)
        x = torch.cat([short.relu_(), F.max_pool2d(x, 2)], 1)
        return self.head(x.mean((2, 3)))


def plain():
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(48, 20, bias=False), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5, bias=False)),
    )


RULES = [LRP(rule, first=first) for rule in ("composite", AB, EPS) for first in ("box", "flat", "same")]
# With α > 1 a neuron without negative terms, as there may be in a depthwise convolution, gives on more than it has.
CONSERVING = [(Residual, RULES), (plain, [*RULES, LRP(alpha=2.0), LRP(AB, alpha=2.0), LRP(bias=True)])]


@pytest.mark.parametrize(("build", "method"), [(build, method) for build, methods in CONSERVING for method in methods])
def test_without_biases_the_maps_sum_to_the_logit(build, method):
    torch.manual_seed(3)
    classifier = classify(build(), 16)
    x, y = torch.rand(3, 3, 16, 16), torch.tensor([[0, 1], [2, 3], [4, 0]])
    maps, logits = method(classifier, x, y), classifier.logits(x).gather(1, y)
    torch.testing.assert_close(maps.sum((2, 3, 4)), logits, rtol=0.01, atol=0)
    assert method.leak(classifier, x, y).abs().max() < 0.01
    assert method.leak(classifier, x, y[:, 0]).shape == (3,)


def test_the_leak_of_a_linear_model_is_the_bias_and_epsilon():
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 192, dtype=torch.float64), torch.tensor([0.0, 5.0, -3.0], dtype=torch.float64)
    classifier = linear(weight, bias)
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([[0, 1, 2]] * 2)
    logits = classifier.logits(x)
    for epsilon in (0.0, 0.25, 2.0):
        size = logits.square().mean(1, keepdim=True).sqrt()
        expected = 1 - (logits - bias) / (logits + epsilon * size * logits.sign())
        torch.testing.assert_close(LRP("epsilon", epsilon=epsilon).leak(classifier, x, y), expected)


def test_biases_leak_where_they_take_a_share_and_nowhere_else():
    torch.manual_seed(3)
    module = plain()
    module[0].bias = nn.Parameter(torch.full((8,), 0.3))
    classifier = classify(module, 16)
    x, y = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    assert LRP().leak(classifier, x, y).abs().max() < 1e-3
    assert LRP(first="same", bias=True).leak(classifier, x, y).min() > 0.05


@pytest.mark.parametrize("build", [plain, Residual])
def test_the_epsilon_rule_is_gradient_times_normalised_image_on_a_relu_network(build):
    torch.manual_seed(3)
    module = build().double()
    x, y = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1])
    classifier = classify(module, 16)
    expected = Gradient()(classifier, x, y) * (x - MEAN)
    found = LRP("epsilon", epsilon=1e-12)(classifier, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_scaling_a_layer_changes_no_map():
    torch.manual_seed(3)
    module = plain().double()
    x, y = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1])
    for method in (LRP(), LRP("epsilon", epsilon=0.25), LRP("alpha-beta", alpha=2.0)):
        expected = method(classify(module, 16), x, y)
        with torch.no_grad():
            module[3].weight.mul_(1e-9)
            module[7].weight.mul_(1e9)
        torch.testing.assert_close(method(classify(module, 16), x, y), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize(
    ("rule", "ours"),
    [(EpsilonRule, LRP("epsilon", epsilon=0.0)), (Alpha1_Beta0_Rule, LRP("alpha-beta", first="same"))],
    ids=["epsilon", "alpha-beta"],
)
def test_it_equals_captums_on_a_plain_network(rule, ours):
    torch.manual_seed(3)
    module = plain().double().eval()
    x, y = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1])
    expected = ours(Classifier(module, size=(16, 16)), x, y)
    for part in module:
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.rule = rule()
        elif isinstance(part, nn.Flatten | nn.AdaptiveAvgPool2d):
            part.rule = EpsilonRule()
    theirs = CaptumLRP(module).attribute(x, target=y).detach()
    torch.testing.assert_close(expected, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_a_shift_of_all_logits_moves_the_map_by_no_more_than_epsilon():
    plain_model, shifted = small(), small()
    with torch.no_grad():
        shifted.module.head.bias.add_(30)
    x, y = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    for method in (LRP(), ContrastiveLRP(), ContrastiveLRP("clrp2")):
        expected = method(plain_model, x, y)
        torch.testing.assert_close(method(shifted, x, y), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_negated_head_is_made_where_gradients_are_switched_off():
    x, y, method = torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), ContrastiveLRP("clrp2")
    with torch.no_grad():
        found = method(small(), x, y)
    assert torch.equal(found, method(small(), x, y))


def test_float64_is_as_float32():
    x, y = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    for method in (LRP(), ContrastiveLRP(), ContrastiveLRP("clrp2")):
        single, classifier = method(small(), x, y), small()
        found = method(classifier.double(), x.double(), y)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found.float(), single, rtol=1e-3, atol=1e-5 * float(single.abs().max()))


def test_all_classes_share_one_forward_pass():
    x, y = torch.rand(2, 3, 16, 16), torch.tensor([[0, 1, 2], [2, 3, 4]])
    for method, backwards in ((LRP(), 6), (ContrastiveLRP(), 8), (ContrastiveLRP("clrp2"), 12)):
        classifier = small()
        expected = method(classifier, x, y)
        with count_passes(classifier) as passes:
            found = method(classifier, x, y)
        assert (passes.forwards, passes.backwards) == (2, backwards)
        assert torch.equal(found, expected)


def test_a_logit_of_zero_has_an_empty_map_and_says_so():
    classifier = linear(torch.zeros(2, 192))
    with pytest.warns(WhyfooledWarning, match="No relevance"):
        maps = LRP()(classifier, torch.rand(1, 3, 8, 8), torch.tensor([0]))
    assert not maps.any()
    with pytest.warns(WhyfooledWarning, match="No relevance"):
        assert LRP().leak(classifier, torch.rand(1, 3, 8, 8), torch.tensor([0])).tolist() == [0]


@pytest.mark.parametrize("variant", ["uniform", "logits", "clrp2"])
def test_contrastive_maps_are_the_definition(variant):
    classifier, layers = dense()
    x, y = torch.rand(1, 3, 2, 2, dtype=torch.float64), 2
    logits = classifier.logits(x)[0].numpy()
    method = ContrastiveLRP("clrp2") if variant == "clrp2" else ContrastiveLRP(others=variant)
    start = np.eye(4)[y]
    dual, opposed = start, layers
    if variant == "clrp2":
        opposed = [*layers[:-1], (-layers[-1][0], -layers[-1][1])]
    else:
        dual = (1 - start) * (1 if variant == "uniform" else np.abs(logits))
    own, other = (
        by_loops(classifier, network, x[0], begin, ["box", AB, AB], bias=False)
        for network, begin in ((layers, start), (opposed, dual))
    )
    expected = (own / own.sum() - other / other.sum()).clamp_min(0)
    assert expected.any()
    torch.testing.assert_close(method(classifier, x, torch.tensor([y]))[0], expected)


@pytest.mark.parametrize("variant", ["clrp1", "clrp2"])
def test_contrastive_maps_tell_classes_apart_where_plain_ones_do_not(variant):
    # Class 0 looks at the left half of the image and class 1 at the right one; both rely on a third, common, feature.
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)).double()
    left = torch.zeros(3, 4, 4, dtype=torch.float64)
    left[:, :, :2] = 0.1
    with torch.no_grad():
        module[1].weight.copy_(torch.stack([left, left.flip(2), torch.full_like(left, 0.5)]).flatten(1))
        module[3].weight.copy_(torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]))
    classifier = Classifier(module, size=(4, 4))
    x, y = torch.rand(1, 3, 4, 4, dtype=torch.float64), torch.tensor([[0, 1]])
    same = LRP("alpha-beta")(classifier, x, y)[0].flatten(1)
    apart = ContrastiveLRP(variant)(classifier, x, y)[0]
    assert torch.cosine_similarity(*same, dim=0) > 0.9
    assert not (apart[0] * apart[1]).any()
    assert not apart[0, :, :, 2:].any()
    assert not apart[1, :, :, :2].any()
    assert apart.flatten(1).any(1).all()


def test_a_negated_head_needs_a_linear_layer_at_the_end():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x, y = torch.rand(1, 3, 8, 8), torch.tensor([0])
    with pytest.raises(MethodError, match="linear layer"):
        ContrastiveLRP("clrp2")(classify(module, 8), x, y)
    assert ContrastiveLRP()(classify(module, 8), x, y).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LRP("epsilon", epsilon=-1.0), "epsilon"),
        (lambda: LRP(epsilon=float("nan")), "epsilon"),
        (lambda: LRP(alpha=0.5), "alpha"),
        (lambda: ContrastiveLRP(base=LRP()), "must be lrp"),
    ],
)
def test_parameters_out_of_range_are_refused(make, message):
    with pytest.raises(ParameterError, match=message):
        make()
