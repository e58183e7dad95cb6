"""Could the explanation have been forged: the search, the numbers, the sentences and the page."""

import json

import pytest
import torch

from tests.helpers.models import small
from whyfooled import BIM, LIME, CarliniWagner, Enhanced, Targeted, explain, run_attack
from whyfooled.attacks import ExplanationAware, run_aware
from whyfooled.attacks.forgery import find_size
from whyfooled.errors import MethodError
from whyfooled.explanations.report.forgery import write_forgery_sentence


@pytest.fixture(scope="module")
def forged():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return image, explain(small(), image, attack=BIM(epsilon=0.3, steps=5), methods=["gradient"], forge=True)


def test_the_forgery_is_the_aware_attack_in_the_attacks_own_ball(forged):
    image, explanation = forged
    forgery = explanation.forgery
    assert (forgery.method, forgery.ball, forgery.failed) == ("enhanced", "linf", "")
    assert forgery.epsilon == pytest.approx(0.3 * forgery.factor)
    goal = Targeted(torch.tensor([explanation.wrong]))
    made = run_attack(ExplanationAware(epsilon=forgery.epsilon), small(), image, goal)
    assert torch.equal(forgery.image, made.attempted[0])
    true, wrong = torch.tensor([explanation.true]), torch.tensor([explanation.wrong])
    runner_up = small()(image).scatter(1, true.unsqueeze(1), -1e9).argmax(1)
    clean = Enhanced()(small(), image, true, contrast=runner_up).sum(1).flatten()
    for seen, cosine in ((explanation.adversarial, forgery.honest), (forgery.image, forgery.forged)):
        shown = Enhanced()(small(), seen.unsqueeze(0), wrong, contrast=true).sum(1).flatten()
        assert cosine == pytest.approx(float(torch.cosine_similarity(clean, shown, dim=0)), abs=1e-4)
    assert forgery.chance < forgery.forged
    beside = run_aware(ExplanationAware(epsilon=forgery.epsilon), small(), image, goal)
    assert forgery.matched == pytest.approx(float(beside.cosines[0, 2]), abs=1e-4)
    assert forgery.forged - forgery.matched >= (1 - forgery.matched) / 2
    torch.testing.assert_close(forgery.maps[0].flatten(), clean / clean.sum(), rtol=1e-3, atol=1e-6)


def test_the_report_has_it_everywhere(forged, tmp_path):
    explanation = forged[1]
    folder = explanation.save(tmp_path / "out")
    numbers = json.loads((folder / "explanation.json").read_text())
    assert numbers["forgery"]["cosine"]["forged"] == pytest.approx(explanation.forgery.forged)
    assert numbers["parameters"]["forge"] is True
    assert numbers["passes"]["forgery"]["forwards"] > 100
    assert "Could this explanation have been forged? Yes: under a perturbation" in explanation.summary()
    page = (folder / "report.html").read_text()
    assert page.count("Could this explanation have been forged?") == 1
    assert "of one that does not look at the map" in page
    assert {path.name for path in (folder / "pictures").glob("forgery*")} == {
        "forgery.png", "forgery-map-clean.png", "forgery-map-honest.png", "forgery-map-forged.png",
    }  # fmt: skip


def test_without_it_nothing_is_said():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    explanation = explain(small(), image, attack=BIM(epsilon=0.3, steps=3), methods=["gradient"])
    assert explanation.forgery is None
    assert "forge" not in json.dumps(explanation.to_dict())


def numbers(failed="", factor=1, ball="linf", epsilon=4 / 255):
    return {
        "failed": failed,
        "factor": factor,
        "ball": ball,
        "epsilon": epsilon,
        "prediction": {"name": "cat"},
        "cosine": {"honest": 0.2, "matched": 0.13, "forged": 0.84, "chance": 0.15},
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {},
            "Yes: under a perturbation of at most ℓ∞ 4/255, like this attack's, made with the map in view, the model "
            "sees cat and the map has a cosine similarity of 0.84 with that of the clean image, each of the class seen "
            "there (under this attack 0.20, under a plain one of the same margin 0.13, by chance 0.15).",
        ),
        (
            {"failed": "map", "factor": 4, "ball": "l2", "epsilon": 1.25},
            "No: a perturbation of at most ℓ2 1.25, 4 times this attack's, made to keep the map has the model see "
            "cat, but its map has a cosine similarity of 0.84 only with that of the clean image, each of the class "
            "seen there (under this attack 0.20, under a plain one of the same margin 0.13, by chance 0.15).",
        ),
        (
            {"failed": "class", "factor": 4},
            "No: a perturbation of at most ℓ∞ 4/255, 4 times this attack's, that keeps the map does not make the "
            "model see another class (it sees cat).",
        ),
    ],
    ids=["forged", "map", "class"],
)
def test_it_says_which_part_failed(given, sentence):
    assert write_forgery_sentence(numbers(**given)) == sentence


def test_an_attack_without_a_radius_has_the_length_of_its_perturbation():
    delta = torch.full((1, 3, 2, 2), 0.5)
    assert find_size(BIM(epsilon=0.1), delta) == (0.1, "linf")
    assert find_size(CarliniWagner(), delta) == (pytest.approx(12**0.5 / 2), "l2")
    assert find_size(None, delta) == (pytest.approx(12**0.5 / 2), "l2")


def test_where_there_is_nothing_to_forge_it_says_so():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    wrong = (int(small().predict(image)) + 1) % 5
    explanation = explain(small(), image, label=wrong, methods=["gradient"], forge=True)
    assert explanation.forgery is None
    assert "The explanation was not tried to be forged: the attack changed nothing." in explanation.notes


def test_a_method_that_cannot_be_forged_is_named():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    with pytest.raises(MethodError, match=r"The maps of enhanced\(base=lime\) cannot be differentiated"):
        explain(small(), image, attack=BIM(epsilon=0.3), methods=[Enhanced(base=LIME())], forge=True)


def test_a_report_of_an_attack_with_a_decoy_of_its_own_is_written(tmp_path):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    attack = ExplanationAware(epsilon=0.3, steps=2, decoy=torch.ones(16, 16))
    explanation = explain(small(), image, attack=attack, methods=["gradient"])
    folder = explanation.save(tmp_path / "out")
    given = json.loads((folder / "explanation.json").read_text())["parameters"]
    assert given["attack"].startswith("aware(epsilon=0.3, decoy=<float32 16 x 16, ")
    assert given["attack_parameters"]["decoy"].startswith("<float32 16 x 16, ")
