"""Models that end in a softmax, its logarithm or a sigmoid, or in one logit: the same as without, bit for bit."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import SmallNet
from tests.helpers.untouched import state
from whyfooled import (
    CAM,
    LRP,
    Classifier,
    ContrastiveLRP,
    DeepLIFT,
    Enhanced,
    EnhancedGuidedBackprop,
    GradCAM,
    Gradient,
    GuidedBackprop,
)
from whyfooled.classifier.layers import list_layers
from whyfooled.errors import ModelError

SIDE = 12
IMAGES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


class Ending(nn.Module):
    """A small network, and what it does with its logits."""

    def __init__(self, end, classes=5, seed=0):
        super().__init__()
        self.net, self.end = SmallNet(classes, seed), end

    def forward(self, x):
        return self.end(self.net(x))


def classifier_of(module, **more):
    return Classifier(module, size=SIDE, **more)


MODULES = [nn.Softmax(1), nn.LogSoftmax(-1), nn.Sigmoid(), nn.Sequential(nn.Softmax(1), nn.Flatten())]
FUNCTIONS = [
    lambda z: z.softmax(1),
    lambda z: torch.softmax(z, dim=-1).double(),
    lambda z: F.log_softmax(z, dim=1),
    lambda z: F.softmax(z[..., None, None], 1),
    lambda z: torch.special.expit(z),
    lambda z: z.clone().sigmoid_(),
    lambda z: {"logits": z.softmax(1).contiguous()},
]


@pytest.mark.filterwarnings("ignore::whyfooled.errors.WhyfooledWarning")
class TestProbabilities:
    @pytest.mark.parametrize("end", MODULES + FUNCTIONS)
    def test_logits_are_what_the_ending_is_given_whatever_comes_first(self, end):
        plain, labels = classifier_of(SmallNet()), torch.tensor([1, 3])
        for method in (Gradient(), GuidedBackprop(), LRP(), CAM()):
            # A new one each time: what comes first finds out how the model ends.
            classifier = classifier_of(Ending(end))
            assert torch.equal(method(classifier, IMAGES, labels), method(plain, IMAGES, labels)), method
            assert torch.equal(classifier.logits(IMAGES), plain.logits(IMAGES))
            assert torch.equal(classifier(IMAGES.requires_grad_()).detach(), plain.logits(IMAGES))

    @pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
    def test_where_it_has_rounded_to_0_and_1_the_logits_are_all_there(self, end):
        classifier = classifier_of(nn.Sequential(Ending(lambda z: 1e4 * z), end))
        logits = 1e4 * SmallNet()(IMAGES)
        assert torch.equal(classifier.logits(IMAGES), logits)
        assert Gradient()(classifier, IMAGES, torch.tensor([0, 1])).abs().amax((1, 2, 3)).min() > 1

    @pytest.mark.parametrize("end", [nn.Softmax(1), lambda z: z.sigmoid()])
    def test_nothing_about_the_module_is_changed(self, end):
        module = Ending(end).train()
        before = state(module)
        Gradient()(classifier_of(module), IMAGES, torch.tensor([0, 1]))
        assert state(module) == before
        if isinstance(end, nn.Module):
            assert torch.allclose(module(IMAGES).sum(1), torch.ones(2))

    def test_attention_and_gates_inside_are_left_alone(self):
        class Gated(SmallNet):
            def forward(self, x):
                h = F.relu(self.first(x)).mean((2, 3))
                weights = h.softmax(1)
                return (h.sigmoid() * weights) @ torch.ones(12, 4) / 100

        classifier = classifier_of(Gated())
        assert torch.equal(classifier.logits(IMAGES), Gated()(IMAGES))

    def test_several_threads_see_their_own_passes(self):
        classifier, net, failed = classifier_of(Ending(nn.Softmax(1))), SmallNet(), []

        def run(seed):
            images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
            for _ in range(5):
                if not torch.equal(classifier.logits(images), net(images)):
                    failed.append(seed)

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed

    def test_a_softmax_taken_off_later_by_the_user_is_no_matter(self):
        module = nn.Sequential(SmallNet(), nn.Softmax(1))
        classifier = classifier_of(module)
        first = classifier.logits(IMAGES)
        module[1] = nn.Identity()
        assert torch.equal(classifier.logits(IMAGES), first)
        assert torch.equal(copy.deepcopy(classifier).logits(IMAGES), first)


def test_a_softmax_of_one_number_is_refused():
    with pytest.raises(ModelError, match=r"ends in a softmax of one number, which is the same for every image\."):
        classifier_of(Ending(nn.Softmax(1), 1)).logits(IMAGES)


WEIGHT = torch.linspace(-1, 1, 3 * 4 * 4).view(1, -1)
PIXELS = torch.full((1, 3, 4, 4), 0.5)


class OneLinear(nn.Module):
    """z = w·x + 0.3, whose values can be worked out by hand; at 0.5 everywhere, z = 0.3 since w sums to 0."""

    def __init__(self, end=lambda z: z):
        super().__init__()
        self.flat, self.end = nn.Linear(48, 1), end
        self.flat.weight.data, self.flat.bias.data = WEIGHT.clone(), torch.tensor([0.3])

    def forward(self, x):
        return self.end(self.flat(x.flatten(1)))


def with_two_logits(net):
    """Make a small network whose last layer gives −z/2 and z/2 in place of z."""
    two = SmallNet(2)
    head = {f"head.{key}": torch.cat([-value, value]) / 2 for key, value in net.head.state_dict().items()}
    two.load_state_dict(net.state_dict() | head)
    return two


ENDS = [lambda z: z, lambda z: z[:, 0], lambda z: z.view(-1, 1, 1, 1), nn.Sigmoid(), lambda z: z.sigmoid().squeeze(-1)]


@pytest.mark.filterwarnings("ignore::whyfooled.errors.WhyfooledWarning")
class TestOneLogit:
    @pytest.mark.parametrize("end", ENDS)
    def test_two_classes_have_half_of_it_each(self, end):
        classifier = Classifier(OneLinear(end), size=4, class_names=["tumour"])
        logits = classifier.logits(PIXELS)
        assert torch.allclose(logits, torch.tensor([[-0.15, 0.15]]), atol=1e-6)
        assert torch.allclose(logits.softmax(1)[:, 1], torch.tensor([0.3]).sigmoid())
        assert classifier.class_names == ("not tumour", "tumour")
        assert (classifier.class_count(), classifier.predict(PIXELS).tolist()) == (2, [1])

    @pytest.mark.parametrize("end", ENDS)
    def test_maps_by_hand(self, end):
        classifier = Classifier(OneLinear(end), size=4)
        w = WEIGHT.view(1, 3, 4, 4)
        for label, sign in ((1, 1), (0, -1)):
            classes = torch.tensor([label])
            assert torch.allclose(Gradient()(classifier, PIXELS, classes), sign * w / 2)
            # Of both maps the positive part, divided by its largest value, 1/2: nothing is common to the two.
            enhanced = Enhanced(Gradient(), norm="max")(classifier, PIXELS, classes, contrast=1 - classes)
            assert torch.allclose(enhanced, (sign * w).clamp_min(0))

    @pytest.mark.parametrize("end", [lambda z: z, nn.Sigmoid()])
    def test_maps_are_those_of_a_last_layer_for_two_classes(self, end):
        classifier, labels = classifier_of(Ending(end, 1)), torch.tensor([1, 0])
        two = with_two_logits(classifier.module.net)
        methods = (Gradient(), GuidedBackprop(), LRP(), ContrastiveLRP(), GradCAM(), CAM(), DeepLIFT(), Enhanced())
        for method in methods:
            assert torch.allclose(method(classifier, IMAGES, labels), method(classifier_of(two), IMAGES, labels)), (
                method
            )
            assert method(classifier, IMAGES, labels).any(), method

    def test_layers_are_found(self):
        names = [layer.name for layer in list_layers(classifier_of(SmallNet(1)))]
        assert names == ["first", "second", "head"]

    def test_one_of_two_probabilities_is_the_sigmoid_of_the_difference(self):
        classifier = classifier_of(Ending(lambda z: z.softmax(1)[:, 1], 2))
        logits = SmallNet(2)(IMAGES)
        assert torch.allclose(classifier.logits(IMAGES).diff(dim=1), logits.diff(dim=1), atol=1e-6)
        assert EnhancedGuidedBackprop()(classifier, IMAGES, torch.tensor([1, 1])).any()


@pytest.mark.parametrize(
    ("end", "factor", "shift"),
    [
        (lambda z: z.mul_(2), 2, 0),
        (lambda z: z.flatten().add_(1)[:, None], 1, 1),
        (lambda z: z.mul_(2).sigmoid(), 2, 0),
    ],
)
def test_what_is_written_into_the_one_logit_counts(end, factor, shift):
    classifier, plain = classifier_of(Ending(end, classes=1)), SmallNet(1)(IMAGES.detach()).detach()
    for _ in range(2):
        logits = classifier.logits(IMAGES)
        torch.testing.assert_close(logits[:, 1:] - logits[:, :1], factor * plain + shift, rtol=1e-4, atol=1e-5)
