"""DeepLIFT: by hand, adding up wherever a model calls its ReLUs, and equal to Captum's where Captum sees them."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift as CaptumDeepLift
from torch import nn
from torchvision import models

from tests.helpers.activations import BOUNDED, SPELLINGS, Lambda
from tests.helpers.models import linear, small
from tests.helpers.oracles import rescaled_two_layers
from whyfooled import Classifier, DeepLIFT, Gradient, count_passes
from whyfooled.errors import MethodError, ParameterError, WhyfooledWarning
from whyfooled.saliency._baselines import BASELINES
from whyfooled.saliency.backward.rescale import RecordedInputs, RescaledCalls
from whyfooled.tensors.fills import filled


def logit_change(classifier, x, y, baseline="zero"):
    change = classifier.logits(x) - classifier.logits(filled(x, baseline))
    return change.gather(1, y.unsqueeze(1)).squeeze(1)


def adds_up(classifier, x, y, baseline="zero"):
    maps = DeepLIFT(baseline)(classifier, x, y)
    expected = logit_change(classifier, x, y, baseline)
    assert expected.abs().min() > 0
    torch.testing.assert_close(maps.sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-5 * float(maps.abs().sum()))
    return maps


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_linear_model_gives_weight_times_distance(baseline):
    weight = torch.randn(4, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([[1, 3], [0, 2]])
    found = DeepLIFT(baseline)(linear(weight), x, y)
    expected = weight[y].view(2, 2, 3, 8, 8) * (x - filled(x, baseline)).unsqueeze(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("upper", [float("inf"), 1.5])
def test_slopes_agree_with_a_backward_pass_by_hand(upper):
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    second = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    x = torch.randn(5, generator=generator, dtype=torch.float64)
    reference = torch.randn(5, generator=generator, dtype=torch.float64)
    reference[2:] = x[2:]
    first[0, :2] = 0  # a unit that is the same for both

    def logits(inputs):
        a = first @ inputs
        return second @ (F.relu(a) if upper == float("inf") else F.hardtanh(a, 0.0, upper))

    leaf = x.clone().requires_grad_()
    with RecordedInputs() as recorded:
        logits(reference)
    with RescaledCalls(recorded):
        z = logits(leaf)
    torch.testing.assert_close(z, logits(x))
    for out in range(4):
        (found,) = torch.autograd.grad(z[out], leaf, retain_graph=True)
        torch.testing.assert_close(found, rescaled_two_layers(first, second, x, reference, out, upper))


@pytest.mark.parametrize("window", [(2, 2), (3, 2), (3, 1)], ids=str)
def test_max_pooling_credits_the_places_of_both_maxima(window):
    kernel, stride = window
    generator = torch.Generator().manual_seed(1)
    x, reference = torch.rand(2, 1, 1, 7, 7, generator=generator, dtype=torch.float64)
    weight = torch.randn(F.max_pool2d(x, kernel, stride, padding=1).shape, generator=generator, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    with RecordedInputs() as recorded:
        F.max_pool2d(reference, kernel, stride, padding=1)
    with RescaledCalls(recorded):
        z = (weight * F.max_pool2d(leaf, kernel, stride, padding=1)).sum()
    (found,) = torch.autograd.grad(z, leaf)
    expected = torch.zeros(7, 7, dtype=torch.float64)
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            top, left = max(row * stride - 1, 0), max(column * stride - 1, 0)
            rows, columns = slice(top, row * stride - 1 + kernel), slice(left, column * stride - 1 + kernel)
            here, there = x[0, 0, rows, columns], reference[0, 0, rows, columns]
            winner = here if here.max() > there.max() else there
            place = divmod(int(winner.argmax()), winner.shape[1])
            expected[top + place[0], left + place[1]] += weight[0, 0, row, column] * (here.max() - there.max())
    torch.testing.assert_close(found[0, 0] * (x - reference)[0, 0], expected)


class Mixed(nn.Module):
    """ReLUs as functions and methods, in place and not, residual sums, overlapping max pooling, batch normalisation."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 3, stride=2, padding=1)
        x = F.relu(x + self.second(x) - 0.1, inplace=True)
        x = (x - self.second(x)).relu()
        x = torch.max_pool2d(x, 3, 2, ceil_mode=True)
        return self.head(F.relu6(20 * x).mean((2, 3)))


def mixed():
    torch.manual_seed(0)
    return Classifier(Mixed().eval(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(16, 16))


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("make", [small, mixed])
def test_a_map_adds_up_to_the_difference_of_the_logits(make, baseline):
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    adds_up(make(), x, torch.tensor([0, 2, 4]), baseline)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "squeezenet1_1"])
def test_a_map_of_a_known_architecture_adds_up(name):
    torch.manual_seed(0)
    classifier = Classifier(models.get_model(name, weights=None).eval())
    adds_up(classifier, torch.rand(2, 3, 64, 64), torch.tensor([3, 7]))


def with_activation(function, scale):
    torch.manual_seed(0)
    module = Lambda(function).eval()
    with torch.no_grad():
        module.conv.weight.mul_(scale)
    return Classifier(module, mean=(0.5,) * 3)


@pytest.mark.parametrize(("family", "scale"), [(SPELLINGS, 1.0), (BOUNDED, 40.0)], ids=["ReLU", "ReLU6"])
def test_every_spelling_of_an_activation_is_rescaled(family, scale):
    x, y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])
    expected = adds_up(with_activation(next(iter(family.values())), scale), x, y)
    for function in family.values():
        assert torch.equal(DeepLIFT()(with_activation(function, scale), x, y), expected)
    gradient = Gradient()(with_activation(next(iter(family.values())), scale), x, y)
    assert (expected - gradient * x).norm() > 0.05 * expected.norm()


def vgg_like():
    """Stages of VGG with every ReLU a module of its own, and none right before a pooling.

    Of a pooling that follows a ReLU at once, Captum's hooks run in the wrong order and its values do not add up.
    """
    torch.manual_seed(0)
    layers, before = [], 3
    for channels in (8, 16, 32):
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(channels), nn.MaxPool2d(2)]
        before = channels
    head = [nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)]
    return Classifier(nn.Sequential(*layers, *head).eval(), mean=(0.5,) * 3, std=(0.25,) * 3, size=(32, 32))


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_it_equals_captums_where_relus_are_modules():
    classifier, y = vgg_like(), torch.tensor([3, 7])
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    start = filled(x, "blur")
    ours = DeepLIFT("blur")(classifier, x, y)
    theirs = CaptumDeepLift(classifier).attribute(x.clone().requires_grad_(), baselines=start, target=y).detach()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
    gradient = Gradient()(classifier, x, y) * (x - start)
    assert (ours - gradient).norm() > 0.1 * ours.norm()


def test_all_classes_share_two_forward_passes():
    classifier = small()
    with count_passes(classifier) as passes:
        DeepLIFT()(classifier, torch.rand(2, 3, 16, 16), torch.tensor([[0, 1, 2], [2, 3, 4]]))
    assert (passes.forwards, passes.backwards) == (4, 6)


class Gated(Lambda):
    def __init__(self):
        super().__init__(F.relu)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.head((x * torch.sigmoid(x.mean((2, 3), keepdim=True))).mean((2, 3)))


class AmaxPooled(Lambda):
    def __init__(self):
        super().__init__(F.relu)

    def forward(self, x):
        return self.head(F.relu(self.conv(x)).amax((2, 3)))


@pytest.mark.parametrize("make", [Gated, AmaxPooled])
def test_a_step_that_has_no_rule_is_found(make):
    torch.manual_seed(0)
    with pytest.raises(MethodError, match="must add up"):
        DeepLIFT("blur")(Classifier(make().eval()), torch.rand(2, 3, 8, 8), torch.tensor([1, 2]))


class Wavering(nn.Module):
    """One ReLU more on bright images."""

    def forward(self, x):
        x = F.relu(x.flatten(1))
        return (F.relu(x) if x.mean() > 0.1 else x)[:, :4]


def test_a_model_that_does_other_steps_for_other_images_is_refused():
    with pytest.raises(MethodError, match="same steps for every image"):
        DeepLIFT()(Classifier(Wavering()), torch.rand(2, 3, 8, 8), torch.tensor([1, 2]))


@pytest.mark.parametrize(("activation", "name"), [(nn.GELU(), "GELU"), (nn.LeakyReLU(), "LeakyReLU")])
def test_other_activations_are_refused_by_name(activation, name):
    with pytest.raises(MethodError, match=name):
        DeepLIFT()(with_activation(activation, 1.0), torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_a_dead_network_is_named():
    with pytest.warns(WhyfooledWarning, match="zero at every pixel"):
        DeepLIFT()(linear(torch.zeros(3, 192)), torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_an_unknown_baseline_is_named():
    with pytest.raises(ParameterError, match="`baseline` must be one of zero, mean, blur; got black"):
        DeepLIFT.__post_init__(type("Bad", (), {"baseline": "black"})())
