"""A quicker copy: the same logits and slopes as the model's, or the model itself and a sentence that says why."""

from contextvars import copy_context

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import ResNet20, small
from tests.helpers.untouched import state
from whyfooled import Classifier, Grid, count_passes, recovery_curve, sensitivity
from whyfooled.classifier import folding
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.folding import quicken
from whyfooled.classifier.layers import find_layers, watch_layers
from whyfooled.classifier.workers import LARGE

SIDE = int(LARGE**0.5)


def trained(module):
    """Give batch norms statistics and parameters of their own; without them folding would change nothing."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.running_mean.shape, generator=generator))
            part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
            if part.affine:
                part.weight.data.copy_(torch.rand(part.weight.shape, generator=generator) + 0.5)
                part.bias.data.copy_(torch.randn(part.bias.shape, generator=generator))
    return module


class Net(nn.Module):
    def __init__(self, *layers, seed=0):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(8, 5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for part in self.modules():
                if isinstance(part, nn.Conv2d | nn.Linear):
                    part.reset_parameters()

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


def depthwise():
    return Net(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.BatchNorm2d(16, affine=False),
        nn.ReLU6(inplace=True),
        nn.Conv2d(16, 8, 1, bias=False),
        nn.BatchNorm2d(8),
    )


def vgg():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return Net(*layers, nn.MaxPool2d(2), nn.Conv2d(8, 8, 1))


def make(module, side=SIDE):
    return Classifier(trained(module), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), size=side)


def images(count=3, side=SIDE):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def fold_by_hand(convolution, norm, x):
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    return F.conv2d(
        x, weight, norm.bias + (convolution.bias - norm.running_mean) * scale, convolution.stride, convolution.padding
    )


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (ResNet20, "19 batch norms folded into convolutions"),
        (depthwise, "3 batch norms folded into convolutions, 1 convolution of 1 × 1 by oneDNN"),
        (vgg, "2 batch norms folded into convolutions, 1 convolution of 1 × 1 by oneDNN"),
    ],
)
def test_the_copy_gives_the_models_logits_and_slopes(module, said):
    classifier = make(module())
    before, modes = classifier.digest(), state(classifier.module)
    made = quicken(classifier, images())
    assert (
        f"On a quicker copy of the model, the same function but for rounding ({said}): on an image of noise"
        in made.said
    )
    assert made.forwards == 6
    assert (classifier.digest(), state(classifier.module)) == (before, modes)
    assert [name for name, _ in classifier.module.named_modules()] == [name for name, _ in made.module.named_modules()]
    slopes = []
    for module in (None, made.module):
        x = images().requires_grad_()
        logits = classifier(x, module)
        slopes.append(torch.autograd.grad(logits.logsumexp(1).sum(), x)[0])
    logits = classifier.logits(images(), made.module)
    torch.testing.assert_close(logits, classifier.logits(images()), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in made.module.modules())


def test_a_folded_convolution_is_the_one_made_by_hand():
    classifier = make(vgg())
    made = quicken(classifier, images()).module
    first, norm = classifier.module.layers[0], classifier.module.layers[1]
    torch.testing.assert_close(made.layers[0](images()), fold_by_hand(first, norm, images()))
    assert type(made.layers[1]) is nn.Identity
    # What is not folded is the model's own, and takes no memory.
    assert made.head.weight is classifier.module.head.weight


class Shared(nn.Module):
    """A convolution whose output is read twice, one that runs twice, and one with another weight than its own."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.convolution, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        if self.how == "other weight":
            x = self.norm(F.conv2d(x, self.convolution.weight * 2, self.convolution.bias, padding=1))
        elif self.how == "twice":
            x = self.norm(self.convolution(x)) + self.norm(self.convolution(x.flip(2)))
        elif self.how == "read twice":
            x = self.convolution(x)
            x = x + self.norm(x)
        else:
            x = self.norm(F.relu(self.convolution(x)))
        return self.head(F.relu(self.last(self.second(x))).mean((2, 3)))


@pytest.mark.parametrize("how", ["other weight", "twice", "read twice", "not next to each other"])
def test_a_norm_is_folded_only_into_a_convolution_that_it_alone_reads_once(how):
    classifier = make(Shared(how))
    made = quicken(classifier, images())
    assert "(1 batch norm folded" in made.said
    assert type(made.module.norm) is nn.BatchNorm2d
    assert type(made.module.last) is nn.Identity
    logits = classifier.logits(images(), made.module)
    torch.testing.assert_close(logits, classifier.logits(images()), rtol=1e-5, atol=1e-5)


class Hidden(Shared):
    """Reads what a convolution gives once more, where no graph shows it."""

    def forward(self, x):
        x = self.convolution(x)
        return self.head((self.norm(x) + 0.5 * x.detach()).mean((2, 3)))


def test_a_copy_that_gives_other_logits_is_not_used_and_that_is_said():
    classifier = make(Hidden(""))
    made = quicken(classifier, images())
    assert made.module is None
    assert made.said == "On the model as it is: a copy with batch norms folded gave other logits."


def test_digits_that_are_lost_count_as_other_logits(monkeypatch):
    monkeypatch.setattr(folding, "ROUNDING", 0)
    assert "gave other logits" in quicken(make(ResNet20()), images()).said


class Stubborn(Shared):
    def __deepcopy__(self, memo):
        raise TypeError("I cannot be copied")


def hooked():
    module = vgg()
    module.layers[0].register_forward_hook(print)
    return module


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (lambda: small().module, "On the model as it is: nothing in it could be computed more quickly."),
        (lambda: vgg().double(), "On the model as it is: it is not in single precision."),
        (lambda: Stubborn("twice"), "On the model as it is: a copy of it fails (I cannot be copied)."),
        (hooked, "On the model as it is: parts of it have hooks."),
    ],
)
def test_where_there_is_no_copy_the_reason_is_said(module, said):
    classifier = make(module())
    given = images().to(classifier.mean)
    made = quicken(classifier, given)
    assert (made.said, made.module) == (said, None)


def test_a_model_too_large_to_be_computed_in_double_precision_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(folding, "MOST_VALUES", 100)
    assert "too large to be made sure of" in quicken(make(vgg()), images()).said


def test_the_bundled_classifiers_norms_with_their_activation_are_folded_too():
    from timm.layers import BatchNormAct2d

    module = Net(nn.Conv2d(3, 8, 3), BatchNormAct2d(8, act_layer=nn.ReLU6))
    classifier = make(module)
    made = quicken(classifier, images())
    assert "1 batch norm folded" in made.said
    logits = classifier.logits(images(), made.module)
    torch.testing.assert_close(logits, classifier.logits(images()), rtol=1e-5, atol=1e-5)


def test_no_copy_is_made_while_hooks_act_on_the_model_and_others_hooks_are_no_hindrance():
    classifier = make(vgg())
    elsewhere = copy_context()
    with watch_layers(find_layers(classifier.module, None), lambda *given: None):
        assert quicken(classifier, images()).said == "On the model as it is: parts of it have hooks."
        assert elsewhere.run(quicken, classifier, images()).module is not None


def test_a_copy_is_made_once_in_a_run_and_again_when_the_weights_have_changed():
    classifier = make(vgg())
    with one_thread():
        made = quicken(classifier, images())
        assert quicken(classifier, images(5)) is made
        assert quicken(classifier, images(side=SIDE + 4)) is not made
        with torch.no_grad():
            classifier.module.layers[0].weight.mul_(2)
        other = quicken(classifier, images())
        assert other is not made
        logits = classifier.logits(images(), other.module)
        torch.testing.assert_close(logits, classifier.logits(images()), rtol=1e-5, atol=1e-5)


def test_a_model_that_was_made_in_inference_mode_has_no_versions_to_go_by_and_no_copy():
    with torch.inference_mode():
        classifier = make(vgg())
    clean, changed = images(1), (images(1) + 0.1).clamp(0, 1)
    assert quicken(classifier, clean).said.startswith("On the model as it is: a copy of it fails")
    effects = sensitivity(classifier, clean, changed, torch.tensor([0]), torch.tensor([1]), Grid(SIDE // 2))
    assert effects.true_change.isfinite().all()


def test_small_images_are_not_worth_a_copy():
    assert quicken(make(vgg()), images(side=SIDE - 1)).said == (
        "On the model as it is: images this small go through it many at a time."
    )


def test_regions_are_evaluated_on_a_copy_and_pixels_removed_may_be():
    classifier = make(vgg())
    clean, changed = images(1), (images(1) + 0.1 * torch.rand(1, 3, SIDE, SIDE)).clamp(0, 1)
    with count_passes(classifier) as passes:
        effects = sensitivity(classifier, clean, changed, torch.tensor([0]), torch.tensor([1]), Grid(SIDE // 2))
    assert passes.forwards == 1 + 4
    whole = classifier.logits(changed)
    for number, region in enumerate(effects.labels.unique()):
        without = torch.where(effects.labels == region, clean, changed)
        expected = (whole - classifier.logits(without))[0, :2]
        found = torch.stack([effects.true_change[0, number], effects.target_change[0, number]])
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    liar = quicken(classifier, clean).module
    liar.head = nn.Linear(8, 5)
    curves = [recovery_curve(classifier, changed, torch.tensor([0]), clean, through=module) for module in (None, liar)]
    assert not torch.equal(curves[0].probability, curves[1].probability)


class OfOneSize(nn.Module):
    """Takes images of one size alone, or goes another way with smaller ones."""

    def __init__(self, refuses):
        super().__init__()
        self.refuses = refuses
        self.convolution, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        small = x.shape[-1] < SIDE
        if small and self.refuses:
            raise ValueError("too small")
        x = self.convolution(x)
        # What reads the convolution's output once more has no graph, and happens at the whole size alone.
        return self.head((self.norm(x) + (0 if small or self.refuses else 0.5) * x.detach()).mean((2, 3)))


def test_a_model_for_one_size_alone_is_judged_at_that():
    classifier = make(OfOneSize(refuses=True))
    made = quicken(classifier, images())
    assert "1 batch norm folded" in made.said
    assert made.forwards == 6
    torch.testing.assert_close(classifier.logits(images(), made.module), classifier.logits(images()))


def test_agreement_on_small_images_is_not_enough():
    made = quicken(make(OfOneSize(refuses=False)), images())
    assert (made.module, made.forwards) == (None, 10)
    assert made.said == "On the model as it is: a copy with batch norms folded gave other logits."
