"""Regions with names: label maps go the way of their photograph, and the report says what happens on each."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.helpers.models import SmallNet, small
from whyfooled import BIM, Classifier, Fit, explain, explain_perturbation
from whyfooled.errors import ImageError, ParameterError
from whyfooled.explanations.named import read_named_regions
from whyfooled.explanations.report.named import write_named_sentences
from whyfooled.units.concepts.named_regions import ELSE


def photograph(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def names_file(tmp_path, text="background\ncup\n", suffix=".txt"):
    path = tmp_path / f"names{suffix}"
    path.write_text(text)
    return path


def test_a_label_map_of_the_photographs_size_is_cut_as_the_photograph_is(tmp_path):
    # Enlarged twice and cut in the middle: what is left is columns 2 to 9 of 12, each twice.
    fit = Fit((16, 16), shorter_side=16)
    classifier = Classifier(SmallNet().eval(), size=(16, 16), fit=fit)
    picture = photograph(8, 12)
    label_map = torch.arange(12).expand(8, -1)
    found = read_named_regions(classifier, picture, classifier.prepare(picture), label_map, None)
    assert found.names == tuple(f"region {column}" for column in range(2, 10))
    assert found.labels[0].tolist() == [column // 2 for column in range(16)]
    assert torch.equal(found.labels, found.labels[:1].expand(16, -1))


def test_a_label_map_of_the_input_size_goes_in_as_it_is(tmp_path):
    label_map = torch.zeros(16, 16, dtype=torch.int64)
    label_map[:4] = 1
    clean = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for image in (clean, photograph(30, 40)):
        found = read_named_regions(small(), image, clean, label_map, names_file(tmp_path))
        assert found.names == ("background", "cup")
        assert torch.equal(found.labels, label_map)
    assert torch.equal(found.find("cup", "attack_in")[0, 0], label_map == 1)
    with pytest.raises(ParameterError, match="`attack_in` must be a region of the image: background, cup; got 'spoon'"):
        found.find("spoon", "attack_in")


def test_labels_of_one_name_are_one_region_and_those_without_are_everything_else(tmp_path):
    label_map = torch.tensor([[0, 1], [2, 255]]).repeat_interleave(8, 0).repeat_interleave(8, 1)
    names = names_file(tmp_path, "cup\nvoid\ncup\n")
    found = read_named_regions(small(), None, torch.zeros(1, 3, 16, 16), label_map, names)
    assert found.names == ("cup", ELSE)
    assert torch.equal(found.labels, ((label_map == 1) | (label_map == 255)).long())


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        ([0, 7], "a\nb\n", "the label map has the label 7, and .*names.txt names none such"),
        ([0, 255], "a\nb\n", "has 0 and 255 alone: is 255 the object of a mask, or what was left out"),
    ],
)
def test_labels_that_mean_nothing_are_said(tmp_path, values, names, message):
    label_map = torch.tensor([values]).repeat_interleave(16, 0).repeat_interleave(8, 1)
    with pytest.raises(ImageError, match=message):
        read_named_regions(small(), None, torch.zeros(1, 3, 16, 16), label_map, names_file(tmp_path, names))
    mask = names_file(tmp_path, "label,name\n0,background\n255,cup\n7,cup\n", ".csv")
    assert read_named_regions(small(), None, torch.zeros(1, 3, 16, 16), label_map, mask).names == ("background", "cup")


def test_a_label_map_of_another_size_is_said():
    with pytest.raises(ImageError, match=r"must be of 30 × 40, as the photograph, or 16 × 16, the classifier's input"):
        read_named_regions(
            small(), photograph(30, 40), torch.zeros(1, 3, 16, 16), torch.zeros(3, 5, dtype=torch.int64), None
        )


def region(name, area, energy, index):
    return {"name": name, "area": area, "energy": energy, "prediction": {"index": index}}


def test_sentences_say_where_the_perturbation_is_densest_and_what_cleaning_does():
    numbers = {"regions": [region("table", 0.8, 0.3, 1), region("cup", 0.2, 0.7, 0)]}
    assert write_named_sentences(numbers, {"name": "espresso", "index": 0}) == [
        "70 % of the perturbation's squared length lies on cup; by chance it would be 20 %, its share of the pixels.",
        "Cleaned on cup alone, the image is seen as espresso.",
    ]
    oak, elm = {"name": "oak", "index": 5}, {"name": "elm", "index": 1}
    assert write_named_sentences(numbers, oak)[1] == "Cleaned in no region alone is it seen as oak."
    numbers["regions"].append(region("spoon", 0.0, 0.0, 1))
    said = "Cleaned on any one of table and spoon alone, the image is seen as elm."
    assert write_named_sentences(numbers, elm)[1] == said
    numbers["regions"][1]["prediction"]["index"] = 1
    said = "Cleaned on any one of the regions alone, the image is seen as elm."
    assert write_named_sentences(numbers, elm)[1] == said


def test_a_report_has_the_regions_and_an_attack_may_act_in_one_alone(tmp_path):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    label_map = torch.zeros(16, 16, dtype=torch.int64)
    label_map[:, 8:] = 1
    Image.fromarray(label_map.numpy().astype(np.uint8)).save(tmp_path / "mask.png")
    given = {"regions": tmp_path / "mask.png", "names": names_file(tmp_path)}
    found = explain(small(), image, attack=BIM(epsilon=0.3), attack_in="cup", methods=["gradient"], **given)
    assert not found.delta[:, :, :8].any()
    assert found.delta[:, :, 8:].any()
    assert found.named.energy.tolist() == [0.0, 1.0]
    assert found.parameters["attack_in"] == "cup"
    folder = found.save(tmp_path / "out")
    page = (folder / "report.html").read_text()
    assert "On which named region does it act?" in page
    numbers = json.loads((folder / "explanation.json").read_text())["named"]
    assert [one["name"] for one in numbers["regions"]] == ["background", "cup"]
    # All of the perturbation is there, so cleaning the one undoes the attack and cleaning the other nothing.
    assert numbers["regions"][1]["prediction"]["index"] == found.true
    assert numbers["regions"][0]["true_change"] == 0
    assert numbers["regions"][1]["true_change"] == pytest.approx(
        float(found.logits[found.true] - found.clean_logits[found.true]), abs=1e-5
    )
    assert pd.read_csv(folder / "named.csv")["region"].tolist() == ["background", "cup"]
    assert (folder / "pictures" / "named.png").is_file()
    with pytest.raises(ParameterError, match="`names` is about the regions of `regions`"):
        explain(small(), image, names=given["names"])
    with pytest.raises(ParameterError, match="`attack_in` and `adversarial` exclude each other"):
        explain(small(), image, adversarial=image, attack_in="cup", **given)


def test_a_pair_has_the_regions_too(tmp_path):
    clean = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    label_map = torch.zeros(16, 16, dtype=torch.int64)
    label_map[:4] = 1
    adversarial = (clean + 0.05 * (label_map == 0)).clamp(0, 1)
    found = explain_perturbation(small(), clean, adversarial, regions=label_map, names=names_file(tmp_path), target=0)
    assert found.effect.sensitivity.score.shape == (1, 2)
    assert found.named.names == ("background", "cup")
    assert found.named.energy.tolist() == [1.0, 0.0]
    assert any("lies on background" in line for line in found.summary().splitlines())
    with pytest.raises(ParameterError, match="`names` is about the regions of a label map"):
        explain_perturbation(small(), clean, adversarial, names=names_file(tmp_path))
