"""Would a detector have flagged the image, and one of an attack that knows it: numbers, sentences, page."""

import json

import pytest
import torch

from tests.helpers.models import small
from whyfooled import BIM, Evading, MedianFilter, Targeted, calibrate, explain, run_attack
from whyfooled.defences.detection import check_calibration, find_detection
from whyfooled.errors import ParameterError
from whyfooled.explanations.report.detection import write_detection_sentences

GENERATOR = torch.Generator().manual_seed(4)
IMAGE = torch.rand(1, 3, 16, 16, generator=GENERATOR)
CLEAN = torch.rand(30, 3, 16, 16, generator=GENERATOR)


@pytest.fixture(scope="module")
def calibration():
    return calibrate(MedianFilter(), small(), CLEAN, false_positives=0.1)


@pytest.fixture(scope="module")
def explained(calibration):
    return explain(small(), IMAGE, attack=BIM(epsilon=0.3, steps=5), methods=["gradient"], detector=calibration)


def test_the_scores_are_the_detectors_and_the_attack_that_knows_it_has_the_attacks_ball(explained, calibration):
    found = explained.detection
    for image, scored in ((IMAGE, found.clean), (explained.adversarial[None], found.adversarial)):
        judged = calibration.judge(image)
        assert (scored.score, scored.p_value) == (float(judged.scores), float(judged.p_values))
        assert scored.flagged == (scored.score > found.threshold) == bool(judged.flagged)
    assert (found.clean_images, found.false_positives, found.ball) == (30, 0.1, "linf")
    assert found.epsilon == pytest.approx(min(1, 0.3 * found.factor))
    attack = Evading((MedianFilter(),), epsilon=found.epsilon)
    made = run_attack(attack, small(), IMAGE, Targeted(torch.tensor([explained.wrong])))
    assert found.evading.score == float(calibration.judge(made.attempted).scores)
    assert found.fooled == bool(made.success)
    assert found.evaded == (found.fooled and not found.evading.flagged)


def test_more_room_is_given_until_the_detector_is_evaded(calibration, explained):
    tiny = find_detection(calibration, IMAGE, explained.adversarial[None], explained.wrong, (1e-6, "linf"))
    assert (tiny.factor, tiny.epsilon, tiny.fooled, tiny.evaded) == (4, 4e-6, False, False)
    large = find_detection(calibration, IMAGE, explained.adversarial[None], explained.wrong, (0.5, "linf"))
    assert (large.factor, large.evaded) == (1, True)


def test_the_report_has_it_everywhere(explained, tmp_path):
    folder = explained.save(tmp_path / "out")
    numbers = json.loads((folder / "explanation.json").read_text())
    assert numbers["detection"]["adversarial"]["score"] == explained.detection.adversarial.score
    assert numbers["parameters"]["detector"] == "median"
    assert numbers["passes"]["detector"]["backwards"] >= 100
    assert "Would it have been flagged? " in explained.summary()
    page = (folder / "report.html").read_text()
    assert page.count("Would it have been flagged?") == 1
    assert "No detector withstands an attack that has its score in the loss" in page


def numbers(**given):
    scored = {"score": 0.5, "p_value": 0.02, "flagged": True}
    quiet = {"score": 0.01, "p_value": 0.9, "flagged": False}
    return {
        "title": "Median filter",
        "false_positives": 0.05,
        "clean_images": 40,
        "threshold": 0.25,
        "clean": quiet,
        "adversarial": scored,
        "evading": quiet,
        "epsilon": 4 / 255,
        "ball": "linf",
        "factor": 1,
        "fooled": True,
        **given,
    }


QUIET = {"score": 0.2, "p_value": 0.3, "flagged": False}
LOUD = {"score": 0.75, "p_value": 0.024, "flagged": True}
YES = "Yes: Median filter alone gives it a score of 0.5, above the 0.25 that 5.0 % of clean images may exceed "
YES += "(p = 0.02, among 40)."
SIZE = "a perturbation of at most ℓ∞ 4/255, like this attack's"


@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        (
            {},
            [
                YES,
                f"An attack that knows the detector, with {SIZE}, makes the model see soup, and is not flagged "
                "(score 0.01).",
            ],
        ),
        (
            {"adversarial": QUIET, "evading": LOUD, "factor": 4, "epsilon": 0.5, "ball": "l2"},
            [
                "No: Median filter alone gives it a score of 0.2, not above the 0.25 that 5.0 % of clean images may "
                "exceed (p = 0.3, among 40).",
                "An attack that knows the detector, with a perturbation of at most ℓ2 0.5, 4 times this attack's, "
                "makes the model see soup, and is flagged as well (score 0.75).",
            ],
        ),
        (
            {"clean": LOUD, "fooled": False},
            [
                YES,
                "So would the clean image (score 0.75): the flag says nothing of the attack.",
                f"An attack that knows the detector does not make the model see soup with {SIZE}.",
            ],
        ),
    ],
)
def test_the_sentences(given, sentences):
    assert write_detection_sentences(numbers(**given), "soup") == sentences


def test_an_image_that_is_misclassified_anyway_is_not_scored(calibration):
    wrong = (small().predict(IMAGE) + 1) % 5
    made = explain(
        small(), IMAGE, adversarial=0.9 * IMAGE, label=int(wrong), methods=["gradient"], detector=calibration
    )
    assert "The detector was not asked: the image is misclassified before any attack." in made.notes
    assert made.detection is None
    assert "detection" not in made.to_dict()


@pytest.mark.parametrize(
    ("detector", "sentence"),
    [
        (MedianFilter(), "`detector` must be calibrated on clean images; got MedianFilter. Give calibrate("),
        (
            calibrate(MedianFilter(), small(seed=1), CLEAN),
            "must be calibrated on the model that is explained, since each gives clean images other scores",
        ),
    ],
)
def test_a_detector_that_does_not_know_this_models_clean_images_is_refused(detector, sentence):
    with pytest.raises(ParameterError) as raised:
        check_calibration(detector, small())
    assert sentence in str(raised.value)
