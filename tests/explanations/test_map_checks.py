"""When an explanation checks its maps: where it is asked to, or that takes little; and what is said if it cannot."""

import json

import pytest
import torch

from tests.helpers.models import SmallNet, small
from whyfooled import BIM, PGD, Classifier, Gradient, SmoothGrad, explain
from whyfooled.errors import ModelError

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))


class Unique(SmallNet):
    def __deepcopy__(self, memo):
        raise RuntimeError("There is one of me")


def test_maps_are_checked_where_that_takes_little_beside_all_else(tmp_path):
    explanation = explain(small(), IMAGE, attack=BIM(epsilon=0.3, steps=4), methods=[Gradient()])
    passes = explanation.passes["map checks"]
    others = [stage for name, stage in explanation.passes.items() if name != "map checks"]
    assert passes.forwards + passes.backwards <= 0.2 * sum(stage.forwards + stage.backwards for stage in others)
    # The clean image, 3 with noise, all weights random and each of 3 parts, by two methods; and a pass for the parts.
    assert passes.forwards == 2 * (4 + 4) + 1
    folder = explanation.save(tmp_path / "out")
    numbers = json.loads((folder / "explanation.json").read_text())["checks"]
    assert [method["method"] for method in numbers["methods"]] == ["enhanced", "gradient"]
    page = (folder / "report.html").read_text()
    assert "Do the maps pass sanity checks?" in page
    assert "--checks" not in page
    assert numbers["methods"][0]["verdict"] in ("passes", "fragile", "ignores weights")


def test_they_are_not_where_it_takes_much_or_is_not_wanted_and_the_report_says_how(tmp_path):
    costly = explain(small(), IMAGE, attack=BIM(epsilon=0.3, steps=4), methods=[SmoothGrad(samples=50)])
    assert costly.checks is None
    page = (costly.save(tmp_path / "out") / "report.html").read_text()
    words = ["whyfooled", "explain", "PHOTOGRAPH", "--checks"]
    # A line is broken between words alone: a phone must not break an option at its hyphen.
    assert " ".join(f"<span>{word}</span>" for word in words) in page
    assert explain(small(), IMAGE, attack=BIM(epsilon=0.3, steps=4), methods=[Gradient()], checks=False).checks is None


def test_asked_for_they_run_an_attack_that_has_a_seed_once_more():
    attack = PGD(epsilon=0.3, steps=3, step_size=0.1)
    explanation = explain(small(), IMAGE, attack=attack, methods=[Gradient()], checks=True)
    assert "attack seed" in explanation.checks.methods[0].likeness
    more, less = explanation.passes["map checks"], explain(small(), IMAGE, attack=attack, methods=[Gradient()]).passes
    assert more.backwards > less["map checks"].backwards
    plain = explain(small(), IMAGE, attack=BIM(epsilon=0.3, steps=3), methods=[Gradient()], checks=True)
    assert "attack seed" not in plain.checks.methods[0].likeness


def test_a_model_that_cannot_be_copied_is_explained_without_them():
    classifier = Classifier(Unique().eval(), size=(16, 16))
    explanation = explain(classifier, IMAGE, attack=BIM(epsilon=0.3, steps=4), methods=[Gradient()])
    expected = (
        "Whether the maps are stable, and depend on the model, is not shown. The model cannot be copied, to randomise "
        "its weights: There is one of me."
    )
    assert expected in explanation.notes
    with pytest.raises(ModelError, match="The model cannot be copied, to randomise its weights"):
        explain(classifier, IMAGE, attack=BIM(epsilon=0.3, steps=4), methods=[Gradient()], checks=True)
