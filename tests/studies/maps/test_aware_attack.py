"""The study of attacks that know the explanation, on a small network."""

import json

import pandas as pd
import pytest
import torch

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import Enhanced, Gradient, GuidedBackprop, run_attack
from whyfooled.attacks import ExplanationAware
from whyfooled.classifier.goals import Untargeted
from whyfooled.errors import MethodError, ParameterError
from whyfooled.saliency import LIME
from whyfooled.sources import open_source
from whyfooled.studies import AwareAttack, run_study
from whyfooled.studies.maps.aware_attack_account import _say_what_is_forged, match_name
from whyfooled.tensors.medians import filter_median
from whyfooled.tensors.statistics import FEWEST

ATTACK = ExplanationAware(epsilon=0.3, steps=6)
NAME = "Enhanced guided backpropagation"
MATCHED = "plain attack, with the margin of: Enhanced guided backpropagation"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aware")
    classifier = small(side=10)
    plain = write_images(folder / "plain.npz", count=8, side=10)
    images = torch.stack([sample.fitted(classifier.fit) for sample in open_source(plain)])
    labels = classifier.predict(images).tolist()
    labels[7] = (labels[7] + 1) % 5
    given = write_images(folder / "images.npz", count=8, side=10, labels=labels)
    study = AwareAttack(attack=ATTACK, attacked=(Enhanced(),), methods=(Enhanced(), GuidedBackprop()), median=True)
    return run_study(study, given, folder / "out", model=classifier), images, labels


def test_its_numbers_are_those_of_the_attack_and_the_maps(result):
    study, images, _ = result
    classifier, image = small(side=10), images[2:3]
    true = classifier.predict(image)
    runner_up = classifier(image).scatter(1, true.unsqueeze(1), -1e9).argmax(1)
    made = run_attack(ATTACK, classifier, image, Untargeted(true))
    maps = Enhanced()(classifier, made.attempted, made.predictions, contrast=true).sum(1).flatten()
    clean = Enhanced()(classifier, image, true, contrast=runner_up).sum(1).flatten()
    rows = study.table.read(where=[("index", "==", 2), ("made_by", "==", NAME), ("method", "==", NAME)])
    assert rows["outcome"].tolist() == ["fooled"]
    assert float(rows["cosine"].iloc[0]) == pytest.approx(float(torch.cosine_similarity(maps, clean, dim=0)), abs=1e-3)
    assert float(rows["l2"].iloc[0]) == pytest.approx(float(made.l2[0]), rel=1e-3)
    assert float(rows["passes"].iloc[0]) == float(made.forwards[0] + made.backwards[0])


def test_the_aware_attack_forges_and_the_plain_ones_do_not(result):
    means = result[0].table.read().groupby(["made_by", "method"])["cosine"].mean()
    assert means[NAME, NAME] > means[MATCHED, NAME] + 0.2
    assert f"Of fewer than {FEWEST} images nothing can be said about which maps are forged." in result[0].summary


def test_each_aware_attack_is_compared_with_a_plain_one_of_its_own_margin(result):
    rows = result[0].table.read(where=[("method", "==", NAME)]).set_index("index")
    margins = [rows[rows["made_by"] == made_by]["margin"].sort_index() for made_by in (NAME, MATCHED)]
    assert len(margins[0]) == 7
    # What is found by halving may have a little more, and never less.
    assert ((margins[1] >= margins[0] * (1 - 1e-4)) & (margins[1] <= margins[0] * 1.05)).all()


def test_it_says_which_maps_come_nearer_and_which_do_not():
    plain = match_name("Forged")
    cosines = {
        (plain, "Forged"): 0.2, ("Forged", "Forged"): 0.8, (plain, "Other"): 0.3, ("Forged", "Other"): 0.3,
    }  # fmt: skip
    rows = [
        {"index": index, "made_by": made_by, "method": method, "cosine": mean + 0.01 * (-1) ** (index // 2)}
        for index in range(24)
        for (made_by, method), mean in cosines.items()
    ]
    for row in rows:
        if row["method"] == "Other" and row["made_by"] == "Forged":
            row["cosine"] += 0.05 * (-1) ** row["index"]
    table = pd.DataFrame(rows).astype({"made_by": "category", "method": "category"})
    said = list(_say_what_is_forged(table, 0))
    assert said == [
        "An attack that knows forged brings nearer to the clean map than the plain attack at the same margin: Forged "
        "0.80 (0.20). Not shown to be nearer: Other 0.30 (0.30).",
        "In each pair: mean cosine similarity under that attack, and under the plain one. Judged by tests of the "
        "paired "
        "differences, corrected (Holm) for 2 comparisons.",
    ]


def test_someone_who_looks_at_the_median_sees_its_maps(result):
    study, images, _ = result
    classifier, image = small(side=10), images[2:3]
    true = classifier.predict(image)
    made = run_attack(ATTACK, classifier, image, Untargeted(true))
    clean = GuidedBackprop()(classifier, filter_median(image, 2), true).abs().sum(1).flatten()
    name = "Guided backpropagation, of the median"
    rows = study.table.read(where=[("index", "==", 2), ("made_by", "==", NAME), ("method", "==", name)])
    assert float(rows["cosine"].iloc[0]) == pytest.approx(
        float(torch.cosine_similarity(_sizes(classifier, made), clean, dim=0)), abs=1e-3
    )


def _sizes(classifier, made):
    maps = GuidedBackprop()(classifier, filter_median(made.attempted, 2), made.predictions)
    return maps.abs().sum(1).flatten()


def test_an_image_is_compared_with_another_of_its_class_and_never_with_itself(result):
    study, _, labels = result
    rows = study.table.read(where=[("made_by", "==", "another clean image of the class")])
    assert set(rows["index"]) == {number for number in range(7) if labels.count(labels[number]) > 1}
    assert (rows["cosine"] < 0.999).all()


def test_what_is_misclassified_is_left_out(result):
    rows = result[0].table.read()
    assert rows[rows["index"] == 7]["outcome"].tolist() == ["already wrong"]
    assert "7 images are attacked; 1 were misclassified before and are left out." in result[0].summary


def test_the_tables_have_a_row_for_each_attack(result):
    cosines, _, takes = json.loads((result[0].folder / "study.json").read_text())["results"]
    knows = [row["the attack knows"] for row in cosines["rows"]]
    assert knows[:3] == ["plain attack", MATCHED, NAME]
    assert [row["the attack knows"] for row in takes["rows"]] == knows[:3]
    assert all(row["success"]["mean"] == 1 for row in takes["rows"])


def test_bad_parameters_are_named():
    with pytest.raises(ParameterError, match="`attack` must be aware, with the decoy clean and a weight above 0"):
        AwareAttack(attack=ExplanationAware(decoy="square"))
    with pytest.raises(MethodError, match="The maps of lime cannot be differentiated"):
        AwareAttack(attacked=(Gradient(), LIME()))
