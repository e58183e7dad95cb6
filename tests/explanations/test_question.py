"""Explaining models with one logit, and one label of models that give several."""

import pytest
import torch
from torch import nn

from tests.helpers.models import SmallNet
from whyfooled import Classifier, Switched, explain, explain_perturbation, run_attack
from whyfooled.attacks import CarliniWagner
from whyfooled.errors import ParameterError

NAMES = ["cat", "dog", "tree", "car"]
IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
OPPOSITE = (
    "The logits of the two classes are one logit, halved, with either sign. Whatever holds one down lifts the other by "
    "as much, so the shares of the one and of the other say nothing here."
)
QUICK = {"attack": "fmn(steps=10)", "methods": ["gradient"]}


class Shifted(nn.Module):
    """A small network whose logits, of the image, are given; so strong that a small perturbation changes them."""

    def __init__(self, wanted):
        super().__init__()
        self.net, self.wanted = SmallNet(len(wanted)), torch.tensor(wanted)
        self.register_buffer("base", self.net(IMAGE).detach())

    def forward(self, x):
        return 50 * (self.net(x) - self.base) + self.wanted


def several(*wanted) -> Classifier:
    return Classifier(Shifted(wanted), size=(16, 16), class_names=NAMES, several_labels=True)


@pytest.fixture(scope="module")
def switched():
    return explain(several(2.0, 0.5, -1.0, -3.0), IMAGE, label="dog", **QUICK)


def test_one_label_is_switched_and_the_others_stay(switched):
    assert (switched.names, switched.outcome) == (("not dog", "dog"), "fooled")
    assert (switched.true, switched.wrong) == (1, 0)
    assert torch.allclose(switched.clean_logits, torch.tensor([-0.25, 0.25]), atol=1e-4)
    after = several(2.0, 0.5, -1.0, -3.0).logits(switched.adversarial[None])[0]
    assert (after > 0).tolist() == [True, False, False, False]
    assert torch.allclose(switched.logits, torch.stack([-after[1], after[1]]) / 2, atol=1e-4)
    numbers = switched.to_dict()
    assert numbers["true"]["probability"]["clean"] == pytest.approx(torch.tensor(0.5).sigmoid().item(), abs=1e-4)


def test_the_others_are_named(switched):
    after = several(2.0, 0.5, -1.0, -3.0).logits(switched.adversarial[None])[0].sigmoid()
    assert switched.notes == (
        "The model gives 4 labels at once, each on or off by itself. This is about one of them, dog, and its two "
        "classes are that it is on and that it is not.",
        f"The other 3 labels stay as they were. On in the clean image: cat (88.1 %, then {100 * after[0]:.1f} %).",
        OPPOSITE,
    )


def test_passes_of_the_attack_are_counted(switched):
    assert switched.passes["attack"].forwards >= 20
    assert switched.passes["attack"].backwards >= 10


@pytest.mark.parametrize("ask", [False, True])
def test_passes_through_the_whole_model_count_whether_it_was_asked_before_or_not(ask, monkeypatch):
    forward, seen = Shifted.forward, []
    monkeypatch.setattr(Shifted, "forward", lambda net, images: seen.append(len(images)) or forward(net, images))
    model = several(2.0, 0.5, -1.0, -3.0)
    found = explain_perturbation(model.ask("dog") if ask else model, IMAGE, (IMAGE + 0.02).clamp(0, 1))
    assert sum(passes.forwards for passes in found.passes.values()) == sum(seen)
    assert found.passes["labels"].forwards == 1


def test_a_failed_attack_on_two_classes_names_the_other():
    stubborn = Classifier(SmallNet(2), size=(16, 16), class_names=["cat", "dog"])
    seen = int(stubborn.predict(IMAGE))
    said = explain(stubborn, IMAGE, attack="fgsm(epsilon=1e-6)", methods=["gradient"]).notes[0]
    names = stubborn.class_names
    assert f"The attack failed: the image was to be taken for {names[1 - seen]} and is taken for {names[seen]}." in said


def test_maps_are_those_of_the_two_classes(switched):
    gradient = next(evidence for evidence in switched.evidence if evidence.method == "gradient")
    assert torch.allclose(gradient.maps[:, 0], -gradient.maps[:, 1])
    assert gradient.maps.any()


def test_the_strongest_label_is_switched_unless_told_otherwise():
    assert explain(several(2.0, 0.5, -1.0, -3.0), IMAGE, **QUICK).names == ("not cat", "cat")


def test_a_label_is_switched_on():
    switched = explain(several(2.0, 0.5, -0.5, -3.0), IMAGE, label=2, **QUICK)
    assert (switched.true, switched.wrong, switched.outcome) == (0, 1, "fooled")


def test_an_attack_that_takes_others_with_it_has_failed():
    classifier = several(0.1, 0.5, 0.1, -3.0)
    failed = explain(classifier, IMAGE, label="dog", attack="fgsm(epsilon=0.1)", methods=["gradient"])
    assert failed.outcome == "failed"
    assert "but the attack was to leave the other labels as they were" in failed.summary()
    assert failed.notes[0] == (
        "The attack failed: dog was to be switched off, and the other labels to stay as they were. What it tried last "
        "is explained."
    )
    assert failed.notes[-2].startswith(
        "The perturbation switches other labels too: tree (off). On in the clean image: "
    )


def test_an_image_made_elsewhere_is_explained():
    classifier = several(2.0, 0.5, -1.0, -3.0)
    goal = Switched.of(classifier.logits(IMAGE), torch.tensor([1]))
    made = run_attack(CarliniWagner(steps=10, rounds=1), classifier, IMAGE, goal)
    explained = explain_perturbation(classifier, IMAGE, made.attempted, label="dog")
    assert explained.names == ("not dog", "dog")
    assert explained.notes[-2].startswith("The other 3 labels stay as they were. On in the clean image: cat (")


def test_a_label_is_no_target():
    with pytest.raises(ParameterError) as raised:
        explain(several(2.0, 0.5, -1.0, -3.0), IMAGE, target="tree")
    assert str(raised.value) == (
        "`target` is for a model with one answer: a label is switched, on or off; got 'tree'. Name the label to switch "
        "with label (--label)."
    )


def test_one_logit_is_two_classes(tmp_path):
    classifier = Classifier(nn.Sequential(Shifted([1.5]), nn.Sigmoid()), size=(16, 16), class_names=["weapon"])
    explained = explain(classifier, IMAGE, **QUICK)
    assert explained.names == ("not weapon", "weapon")
    assert torch.allclose(explained.clean_logits, torch.tensor([-0.75, 0.75]), atol=1e-4)
    assert (explained.true, explained.wrong, explained.outcome) == (1, 0, "fooled")
    assert explained.notes == (OPPOSITE,)
    assert "% of the effect holds" not in explained.summary()
    assert "The effect lies " in explained.summary()
    assert "The model saw weapon (81.8 %) and now sees not weapon (50." in explained.summary()
    assert (explained.save(tmp_path / "report") / "report.html").is_file()
