"""Models that give several labels at once, each on or off by itself."""

import pytest
import torch
from torch import nn

from tests.helpers.models import SmallNet
from whyfooled import (
    UPIPCA,
    Classifier,
    EnhancedGuidedBackprop,
    Gradient,
    MedianFilter,
    PredictionDifference,
    choose_targets,
)
from whyfooled.errors import MethodError, ModelError, ParameterError
from whyfooled.registry import make_every
from whyfooled.saliency.recovery import recovery_curve

IMAGES = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 3, 1])


def several(**more) -> Classifier:
    return Classifier(SmallNet(4), size=(12, 12), several_labels=True, **more)


def test_one_label_is_asked_about():
    classifier = several(class_names=["cat", "dog, hound", "tree", "car"])
    asked = classifier.ask("hound")
    logit = SmallNet(4)(IMAGES)[:, 1]
    assert torch.allclose(asked.logits(IMAGES), torch.stack([-logit, logit], 1) / 2, atol=1e-7)
    assert asked.class_names == ("not dog", "dog, hound")
    assert (asked.name, asked.several_labels, classifier.several_labels) == ("SmallNet, label dog", False, True)
    assert asked.predict(IMAGES).tolist() == (logit > 0).tolist()
    assert asked.digest() == classifier.digest()
    assert several().ask(2).class_names == ("not class 2", "class 2")


def test_other_uses_of_the_module_ask_the_same():
    asked = several().ask(2)
    for made in (asked.with_module(asked.module), asked.copy("to see")):
        assert torch.equal(made.logits(IMAGES), asked.logits(IMAGES))
    assert several().copy("to see").several_labels


def alone(net: SmallNet, label: int) -> Classifier:
    """Make a classifier of one logit, that of a label."""
    single = SmallNet(1)
    every = net.state_dict().items()
    single.load_state_dict({name: value[label, None] if "head" in name else value for name, value in every})
    return Classifier(single, size=(12, 12))


@pytest.mark.filterwarnings("ignore::whyfooled.errors.WhyfooledWarning")
@pytest.mark.parametrize("method", make_every("saliency"), ids=lambda method: type(method).__name__)
def test_a_label_is_explained_as_by_a_model_of_it_alone(method):
    classes, explained = torch.tensor([0, 1]), []
    for classifier in (several().ask(2), alone(several().module, 2)):
        try:
            explained.append(method(classifier, IMAGES[:2], classes))
        except MethodError as error:
            explained.append(str(error))
    first, second = explained
    assert first == second if isinstance(second, str) else torch.allclose(first, second, rtol=1e-4, atol=1e-7)


class Ending(nn.Module):
    """A network of four labels, the last of whose layers is followed by what `end` does."""

    def __init__(self, end):
        super().__init__()
        self.net, self.end = SmallNet(4), end

    def forward(self, x):
        return self.end(self.net(x))


ENDS = {
    "sigmoid": torch.sigmoid,
    "places": lambda z: z[:, :, None, None],
    "another order": lambda z: z.view(-1, 2, 2).transpose(1, 2).flatten(1),
    "written into": lambda z: z.clone().mul_(2),
    "moved": lambda z: z + 1,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_logit_of_a_label_is_its_own_whatever_follows_its_layer(end):
    classifier = Classifier(Ending(end), size=(12, 12), several_labels=True)
    for label in range(4):
        logit = classifier.logits(IMAGES)[:, label]
        assert torch.allclose(classifier.ask(label).logits(IMAGES)[:, 1], logit / 2, atol=1e-6)


class OfTokens(nn.Module):
    """A layer of one output for each of the tokens, which stand for the labels."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Conv2d(3, 4, 3), nn.Linear(100, 1)

    def forward(self, x):
        return self.head(self.mix(x).flatten(2)).squeeze(2).sigmoid()


def test_labels_may_be_tokens():
    classifier = Classifier(OfTokens(), size=(12, 12), several_labels=True)
    assert classifier.logits(IMAGES).shape == (3, 4)
    assert torch.allclose(classifier.ask(3).logits(IMAGES)[:, 1], classifier.logits(IMAGES)[:, 3] / 2)


@pytest.mark.parametrize("method", [Gradient(output="probability"), PredictionDifference(evidence="odds", samples=2)])
def test_the_probability_of_a_label_is_its_own(method):
    maps = method(several(), IMAGES[:1], CLASSES[:1])
    asked = method(several().ask(0), IMAGES[:1], torch.tensor([1]))
    torch.testing.assert_close(maps, asked, rtol=1e-4, atol=1e-7)


def test_labels_are_contrasted_with_one_another():
    contrast = torch.tensor([1, 1, 2])
    maps = EnhancedGuidedBackprop()(several(), IMAGES, CLASSES, contrast=contrast)
    single = EnhancedGuidedBackprop()(Classifier(SmallNet(4), size=(12, 12)), IMAGES, CLASSES, contrast=contrast)
    assert torch.equal(maps, single)


def test_there_is_no_one_answer():
    classifier = several(class_names=["cat", "dog", "tree", "car"])
    refused = (
        lambda: classifier.predict(IMAGES),
        lambda: choose_targets(classifier, IMAGES, "random"),
        lambda: recovery_curve(classifier, IMAGES, CLASSES, IMAGES),
        lambda: UPIPCA().fit(classifier, (IMAGES, CLASSES)),
        lambda: MedianFilter()(classifier, IMAGES),
    )
    for act in refused:
        with pytest.raises(ModelError) as raised:
            act()
        assert str(raised.value) == (
            "The model gives several labels at once, and this is about a model with one answer. Ask about one of its "
            "labels: classifier.ask('cat'), on the command line --ask 'cat'."
        )


def test_a_model_with_one_answer_has_no_labels_to_ask_about():
    with pytest.raises(ParameterError, match="`label` is for a model that gives several labels at once; got 1"):
        Classifier(SmallNet(4)).ask(1)
    with pytest.raises(ParameterError, match=r"`label` must be a class index from 0 to 3.*; got 4"):
        several().ask(4)


def test_one_logit_is_no_label():
    classifier = Classifier(nn.Sequential(SmallNet(1), nn.Sigmoid()), size=(12, 12), several_labels=True)
    for label in (0, 1):
        with pytest.raises(ModelError) as raised:
            classifier.ask(label).logits(IMAGES)
        assert str(raised.value) == (
            "A model of several labels must give a logit for each; this one gives one logit for an image, which is two "
            "classes already. Leave out several_labels, on the command line --several-labels and --ask."
        )
