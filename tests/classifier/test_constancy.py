"""Models whose answer to an image is not a function of it alone: said, or refused where no number has a meaning."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import SmallNet, resnet20, small
from tests.helpers.torchvision_families import SIDES, build
from whyfooled import (
    FGSM,
    AttackResult,
    Classifier,
    GradCAM,
    Gradient,
    GuidedBackprop,
    Untargeted,
    count_passes,
    explain,
    run_attack,
)
from whyfooled.classifier.constancy import check_constancy
from whyfooled.classifier.passes import Passes
from whyfooled.errors import ModelError, WhyfooledWarning

EACH_TIME = "gives the same image another answer each time"
BESIDE = "depends on the images beside it in the batch"


class After(nn.Module):
    """A small network, and something that is done to its logits."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change, self.passes = SmallNet(), change, 0

    def forward(self, x):
        self.passes += 1
        return self.change(self, self.net(x))


class Normalised(nn.Module):
    def __init__(self, norm):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.norm, self.head = nn.Conv2d(3, 6, 3), norm, nn.Linear(6, 4)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.first(x))).amax((2, 3)))


def by_batch():
    return Normalised(nn.BatchNorm2d(6, track_running_stats=False))


def lead_of(z):
    """Make one class lead by far, so that what changes is not the prediction."""
    return z * torch.tensor([1.0, 1, 1, 1, 0]) + torch.tensor([0.0, 0, 0, 0, 9])


CHANGES = {
    "dropout": (lambda module, z: lead_of(F.dropout(z, 0.5)), EACH_TIME),
    "noise": (lambda module, z: lead_of(z) + 0.01 * torch.randn_like(z), EACH_TIME),
    "state": (lambda module, z: lead_of(z) + torch.arange(5) * 0.01 * module.passes, EACH_TIME),
    "mean": (lambda module, z: lead_of(z) - 0.3 * z.mean(0) * torch.arange(5), BESIDE),
}


def classifier_of(module, side=12):
    return Classifier(module.eval(), size=(side, side))


def images_of(count, side=12):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def check(classifier, images):
    check_constancy(classifier, images, classifier.logits(images))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("default::whyfooled.errors.WhyfooledWarning")
def test_what_else_the_logits_depend_on_is_said(name, count):
    change, said = CHANGES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with pytest.warns(WhyfooledWarning, match=said):
            check(classifier_of(After(change)), images_of(count))


@pytest.mark.parametrize("count", [1, 3])
def test_a_class_that_changes_is_refused(count):
    at_random = After(lambda module, z: z.roll(module.passes, 1))
    with pytest.raises(ModelError, match=rf"{EACH_TIME}: once class \d, once class \d\. .* switch that off\.$"):
        check(classifier_of(at_random), images_of(count))
    by_neighbours = After(lambda module, z: z.roll(len(z), 1))
    with pytest.raises(
        ModelError, match=rf"{BESIDE}: once class \d, once class \d\. .*Classifier\(OneByOne\(model\)\)"
    ):
        check(classifier_of(by_neighbours), images_of(count))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "module",
    [
        SmallNet(),
        resnet20().module.train(),
        Normalised(nn.InstanceNorm2d(6)),
        Normalised(nn.BatchNorm2d(6)).train(),
        After(lambda module, z: 0 * z),
        After(lambda module, z: z + 1e4),
        After(lambda module, z: z.bfloat16()),
    ],
    ids=lambda module: type(module).__name__,
)
@pytest.mark.filterwarnings("ignore:The model computes in")
def test_rounding_is_no_change(module, count):
    check(Classifier(module, size=(12, 12)), images_of(count))


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vit_b_16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_models_of_torchvision_have_one_answer(name, layout):
    side = SIDES.get(name, 64)
    check(classifier_of(build(name).to(memory_format=layout), side), images_of(1, side))


def test_it_takes_few_passes():
    classifier = small(side=12)
    for count, expected in ((0, 0), (1, 3), (5, 2)):
        logits = classifier.logits(images_of(count))
        with count_passes(classifier) as passes:
            check_constancy(classifier, images_of(count), logits)
        assert passes == Passes(expected, 0)


def test_a_model_that_takes_one_image_at_a_time_is_left_to_who_sends_more():
    def alone(module, z):
        assert len(z) == 1, "one at a time"
        return z

    classifier = classifier_of(After(alone))
    check(classifier, images_of(1))
    with pytest.raises(ModelError, match=r"AssertionError: one at a time\. .*Classifier\(OneByOne\(model\)\)"):
        classifier.logits(images_of(2))


@pytest.mark.parametrize("method", [Gradient(), GuidedBackprop(), GradCAM()], ids=repr)
def test_maps_of_a_batch_that_is_normalised_together_are_warned_of(method):
    classifier, classes = classifier_of(by_batch()), torch.tensor([0, 1])
    with pytest.warns(WhyfooledWarning, match=BESIDE):
        together = method(classifier, images_of(2), classes)
    alone = method(classifier, images_of(2)[:1], classes[:1])
    assert not torch.allclose(together[:1], alone, rtol=1e-2)
    # Nothing to say where images keep to themselves.
    method(classifier_of(Normalised(nn.InstanceNorm2d(6))), images_of(2), classes)
    method(Classifier(Normalised(nn.BatchNorm2d(6)).train(), size=(12, 12)), images_of(2), classes)


def test_its_two_lines_make_it_right():
    class OneByOne(torch.nn.Sequential):
        def forward(self, x):
            return torch.cat(list(map(super().forward, x.split(1))))

    classifier, classes = classifier_of(OneByOne(by_batch())), torch.tensor([0, 1])
    check(classifier, images_of(2))
    together = Gradient()(classifier, images_of(2), classes)
    assert torch.equal(together[:1], Gradient()(classifier_of(by_batch()), images_of(2)[:1], classes[:1]))


def test_attacks_and_explanations_say_it():
    classifier, image = classifier_of(After(CHANGES["state"][0])), images_of(1)
    with pytest.warns(WhyfooledWarning, match=EACH_TIME):
        run_attack(FGSM(), classifier, image, Untargeted(torch.tensor([4])))
    with pytest.warns(WhyfooledWarning, match=EACH_TIME):
        AttackResult.from_images(classifier, image, image)
    explanation = explain(classifier, image, attack=FGSM(), methods=["gradient"])
    (note,) = [note for note in explanation.notes if EACH_TIME in note]
    assert note in explanation.summary()


def test_the_passes_are_those_of_the_attack_and_the_check():
    classifier, image = small(side=12), images_of(1)
    spent = run_attack(FGSM(), classifier, image, Untargeted(classifier.predict(image)))
    explanation = explain(classifier, image, attack=FGSM(), methods=["gradient"])
    # Two predictions of the clean image, three passes of the check, one verification.
    assert explanation.passes["attack"] == Passes(int(spent.forwards) + 6, int(spent.backwards))
