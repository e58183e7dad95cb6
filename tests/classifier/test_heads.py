"""Models that end in a softmax, a log-softmax or a sigmoid: their logits, and a model that nothing was done to."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.models import SmallNet
from tests.helpers.untouched import state
from whyfooled import FGSM, LRP, Classifier, GradCAM, Gradient, GuidedBackprop, Untargeted, explain, run_attack
from whyfooled.classifier.layers import LAST_STAGE, choose_layers
from whyfooled.errors import WhyfooledWarning, hearing

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([1, 3])


class Ending(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.net, self.end = SmallNet(), end

    def forward(self, x):
        return self.end(self.net(x))


def plain():
    return Classifier(SmallNet(), size=12)


ENTRIES = {
    "logits": lambda classifier: classifier.logits(IMAGES),
    "gradient": lambda classifier: Gradient()(classifier, IMAGES, CLASSES),
    "guided": lambda classifier: GuidedBackprop()(classifier, IMAGES, CLASSES),
    "lrp": lambda classifier: LRP()(classifier, IMAGES, CLASSES),
    "gradcam": lambda classifier: GradCAM()(classifier, IMAGES, CLASSES),
    "attack": lambda classifier: run_attack(FGSM(), classifier, IMAGES, Untargeted(CLASSES)).adversarial,
}
WATCHED = {
    "Softmax": nn.Softmax(1),
    "Softmax without an axis": nn.Sequential(nn.Softmax(-1), nn.Identity()),
    "LogSoftmax": nn.LogSoftmax(1),
    "Sigmoid": nn.Sigmoid(),
    "F.softmax": lambda z: F.softmax(z, dim=-1),
    "x.softmax": lambda z: z.softmax(1),
    "x.log_softmax": lambda z: z.log_softmax(1),
    "torch.softmax, named": lambda z: torch.softmax(input=z, dim=1),
    "torch.special.expit": torch.special.expit,
    "places": lambda z: z[:, :, None, None].softmax(1).squeeze(-1),
    "dropout": lambda z: F.dropout(z.softmax(1), training=False).float(),
    "softmax with a temperature": lambda z: (z * 1.0).softmax(1),
}


_LABELS = "ignore:.* ends in a sigmoid of each of its outputs"


@pytest.mark.filterwarnings("error", _LABELS)
@pytest.mark.parametrize("name", WATCHED)
def test_the_last_step_is_taken_off_and_nothing_is_said(name):
    module = Ending(WATCHED[name])
    before, weights = state(module), copy.deepcopy(module.state_dict())
    classifier = Classifier(module, size=12)
    for entry in ENTRIES.values():
        assert torch.equal(entry(classifier), entry(plain()))
    assert state(module) == before
    assert all(torch.equal(weights[key], value) for key, value in module.state_dict().items())
    # The model itself gives what it gave.
    assert torch.equal(module(IMAGES), WATCHED[name](SmallNet()(IMAGES)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("first", list(ENTRIES))
def test_whatever_is_asked_first_the_answers_are_the_same(first):
    classifier = Classifier(nn.Sequential(SmallNet(), nn.Softmax(1)), size=12)
    assert torch.equal(ENTRIES[first](classifier), ENTRIES[first](plain()))
    assert choose_layers(classifier, LAST_STAGE)[0].name == "0.second"


@pytest.mark.filterwarnings("error")
def test_a_softmax_elsewhere_stays_where_it_is():
    class Attending(SmallNet):
        def __init__(self):
            super().__init__()
            self.softmax = nn.Softmax(1)

        def forward(self, x):
            z = super().forward(x)
            return self.softmax(z * self.softmax(z))

    z = SmallNet()(IMAGES)
    module = Attending()
    assert torch.equal(Classifier(module).logits(IMAGES), z * z.softmax(1))
    for end in (lambda z: z.softmax(1) * 2, lambda z: z.softmax(1) - 0.1, torch.relu, torch.tanh, lambda z: -z.abs()):
        assert torch.equal(Classifier(Ending(end)).logits(IMAGES), end(z))


@pytest.mark.parametrize("answer", [[[0.5, 0.5], [0.5, 0.6]], [[0.25, 0.75], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
@pytest.mark.filterwarnings("error")
def test_logits_that_happen_to_be_small_stay_as_they_are(answer):
    class Fitting(nn.Module):
        """Gives what looks like probabilities for these images, and other numbers for others."""

        def forward(self, x):
            return torch.tensor(answer) * (1 + (x - IMAGES).flatten(1).norm(dim=1, keepdim=True))

    assert torch.equal(Classifier(Fitting(), size=12).logits(IMAGES), torch.tensor(answer))


def by_hand(z):
    return z.exp() / z.exp().sum(1, keepdim=True)


RECOVERED = {
    "scripted": (lambda: torch.jit.script(nn.Sequential(SmallNetAsLayers(), nn.Softmax(1))), "probabilities (none neg"),
    "scripted sigmoid": (lambda: torch.jit.script(nn.Sequential(SmallNetAsLayers(), nn.Sigmoid())), "probabilities of"),
    "by hand": (lambda: Ending(by_hand), "probabilities (none negative, each row sums to 1)"),
    "logarithms by hand": (lambda: Ending(lambda z: z - z.logsumexp(1, keepdim=True)), "logarithms of probabilities ("),
}


def SmallNetAsLayers():
    net = SmallNet()
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(net.first, nn.ReLU(), net.second, nn.ReLU(), *pooled, net.head)


@pytest.mark.parametrize("name", RECOVERED)
def test_where_nobody_can_watch_logits_are_recovered_and_that_is_said_once(name):
    make, found = RECOVERED[name]
    classifier = Classifier(make(), size=12, name="this one")
    with pytest.warns(WhyfooledWarning) as warned:
        logits = classifier.logits(IMAGES)
    with hearing() as heard:
        classifier.logits(IMAGES)
        found_map = Gradient()(classifier, IMAGES, CLASSES)
    assert heard == list(dict.fromkeys(str(each.message) for each in warned))
    assert [" ends in a sigmoid of each of its outputs" in each for each in heard[1:]] == [True] * ("sigmoid" in name)
    assert heard[0].startswith(f"The answers of this one are {found}")
    assert heard[0].endswith("Give the model without its last step to have them exactly.")
    expected, map_of = plain().logits(IMAGES), Gradient()(plain(), IMAGES, torch.arange(5).expand(2, 5))
    map_expected = map_of[torch.arange(2), CLASSES]
    if "sigmoid" not in name:
        expected = expected - expected.mean(1, keepdim=True)
        map_expected = map_expected - map_of.mean(1)
    assert torch.allclose(logits, expected, atol=1e-4)
    assert torch.allclose(found_map, map_expected, atol=1e-4)


def test_probabilities_that_round_to_0_and_1_are_finite_logits():
    def end(z):
        return by_hand(200 * (z - z.amax(1, keepdim=True)))

    with pytest.warns(WhyfooledWarning):
        logits = Classifier(Ending(end), size=12).logits(IMAGES)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits.argmax(1), end(SmallNet()(IMAGES)).argmax(1))


def test_an_explanation_says_that_logits_were_recovered():
    options = {"attack": FGSM(epsilon=0.2), "methods": ["gradient"]}
    notes = explain(Classifier(Ending(by_hand), size=12), IMAGES[:1], **options).notes
    assert sum("Logits are recovered from them" in note for note in notes) == 1
    notes = explain(Classifier(Ending(torch.sigmoid), size=12), IMAGES[:1], **options).notes
    assert not any("recovered" in note for note in notes)


@pytest.mark.filterwarnings("error")
def test_inside_of_inference_mode_it_is_taken_off_too():
    with torch.inference_mode():
        assert torch.equal(Classifier(Ending(nn.Softmax(1)), size=12).logits(IMAGES), plain().logits(IMAGES))


@pytest.mark.filterwarnings("error")
def test_a_last_step_that_is_put_on_later_is_taken_off():
    module = nn.Sequential(SmallNet())
    classifier = Classifier(module, size=12)
    expected = classifier.logits(IMAGES)
    module.append(nn.Softmax(1))
    assert torch.equal(classifier.logits(IMAGES), expected)


@pytest.mark.filterwarnings("error")
def test_no_images_have_no_logits():
    classifier = Classifier(Ending(nn.Softmax(1)), size=12)
    assert classifier.logits(IMAGES[:0]).shape == (0, 5)
    assert torch.equal(classifier.logits(IMAGES), plain().logits(IMAGES))


@pytest.mark.filterwarnings("error")
def test_threads_do_not_disturb_each_other():
    module, expected, found = Ending(nn.Softmax(1)), plain().logits(IMAGES), []

    def work():
        found.extend(torch.equal(Classifier(module, size=12).logits(IMAGES), expected) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20
