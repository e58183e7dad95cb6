"""``whyfooled detect`` as a user runs it: photographs, adversarial images, tables, mistakes."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.command_line import MODELS, run, without_progress
from tests.helpers.models import small
from whyfooled import Fit, load_adversaries, load_classifier
from whyfooled.defences import DETECTORS, LargestSoftmax, calibrate, files
from whyfooled.defences.evaded import say_evaded
from whyfooled.defences.files import _file_reader
from whyfooled.images import read_photograph

COMMAND = ["detect", "--model", "nets.py:Net", "--mean", "0", "--clean", "clean"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    (folder / "nets.py").write_text(MODELS)
    for name, count in {"clean": 24, "photographs": 3}.items():
        (folder / name).mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number + 100 * len(name)).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((224, 224)).save(folder / name / f"{number}.png")
    code, _, err = run(
        folder,
        "attack",
        "photographs",
        "--attack",
        "fmn(steps=10)",
        "--model",
        "nets.py:Net",
        "--mean",
        "0",
        "-q",
        "-o",
        "adv",
    )
    assert code == 0, err
    return folder


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_photographs_and_adversarial_images_are_judged(folder):
    code, out, err = run(folder, *COMMAND, "photographs/1.png", "adv", "-o", "out/judged.csv", "--detector", "softmax")
    assert (code, without_progress(err)) == (0, "")
    rows = rows_of(folder / "out" / "judged.csv")
    assert list(rows[0]) == ["file", "prediction", "detector", "score", "threshold", "p_value", "flagged"]
    assert [row["file"] for row in rows] == ["1.png", "adv/0.png", "adv/1.png", "adv/2.png"]
    classifier = load_classifier(str(folder / "nets.py:Net"))

    def prepared(path):
        return classifier.prepare(read_photograph(path))

    clean = torch.cat([prepared(path) for path in sorted((folder / "clean").iterdir(), key=lambda path: path.name)])
    calibration = calibrate(LargestSoftmax(), classifier, clean)
    judged = torch.cat([prepared(folder / "photographs" / "1.png"), load_adversaries(folder / "adv")[:].attempted])
    expected = calibration.judge(judged)
    assert [float(row["score"]) for row in rows] == pytest.approx(expected.scores.tolist(), rel=1e-3, abs=1e-6)
    assert [float(row["p_value"]) for row in rows] == pytest.approx(expected.p_values.tolist())
    assert [row["flagged"] for row in rows] == [str(flag) for flag in expected.flagged.tolist()]
    assert [float(row["threshold"]) for row in rows] == pytest.approx([calibration.threshold] * 4, rel=1e-3)
    flagged = int(expected.flagged.sum())
    assert (
        f"softmax flags {flagged} of 4 images; of as many clean ones it would flag about 0.2 (0.05 of them, as it "
        "learned from 24).\n"
    ) in out
    assert say_evaded(["softmax"]) in out
    assert out.endswith("\nWritten: out/judged.csv\n")


def test_several_detectors_are_judged_together_and_written_as_json(folder):
    options = ["--detector", "softmax,bit-depth(bits=3)", "--detector", "softmax", "-o", "judged.json"]
    code, out, err = run(folder, *COMMAND, "photographs", *options)
    assert (code, without_progress(err)) == (0, "")
    written = json.loads((folder / "judged.json").read_text())
    assert [row["detector"] for row in written["rows"]] == ["softmax", "bit-depth(bits=3)", "together"] * 3
    assert [row["threshold"] is None for row in written["rows"]] == [False, False, True] * 3
    assert written["clean_images"] == {"softmax": 24, "bit-depth(bits=3)": 24}
    assert written["false_positives"] == 0.05
    assert written["command"].startswith("whyfooled detect")
    assert all(line in out for line in written["summary"])


def test_what_cannot_be_read_is_left_out_and_said(folder):
    (folder / "mixed").mkdir()
    (folder / "mixed" / "torn.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (224, 224)).save(folder / "mixed" / "black.png")
    code, _, err = run(folder, *COMMAND, "mixed", "-q", "-o", "mixed.csv")
    assert code == 0
    assert err.startswith("Left out: mixed/torn.png: ")
    assert [row["file"] for row in rows_of(folder / "mixed.csv")] == ["mixed/black.png"]


def test_a_clean_image_is_not_judged_by_itself(folder):
    code, _, err = run(folder, *COMMAND, "clean/3.png", "-q", "-o", "itself.csv")
    assert code == 0
    assert err == (
        "Warning: 3.png: among the clean images, at least in 8 bits a channel. What is known to be clean cannot be "
        "judged by itself.\n"
    )


def test_a_tensor_is_judged_as_it_is(folder):
    attempted = load_adversaries(folder / "adv")[:1].attempted
    save_file({"adversarial": attempted[0]}, folder / "one.safetensors")
    for name in ("one.safetensors", "adv"):
        assert run(folder, *COMMAND, name, "-q", "-o", f"{name}.csv", "--detector", "softmax")[0] == 0
    score, expected = (float(rows_of(folder / f"{name}.csv")[0]["score"]) for name in ("one.safetensors", "adv"))
    assert score == pytest.approx(expected, rel=1e-4)


def test_files_of_one_name_are_told_apart(folder):
    code, _, _ = run(folder, *COMMAND, "photographs/1.png", "clean/1.png", "adv", "-q", "-o", "names.csv")
    assert code == 0
    names = [row["file"] for row in rows_of(folder / "names.csv")]
    assert names == ["clean/1.png", "photographs/1.png", "adv/0.png", "adv/1.png", "adv/2.png"]


def test_detectors_are_listed(folder):
    code, out, _ = run(folder, "detect", "--list")
    assert code == 0
    for detector in DETECTORS:
        assert f"\n  {detector.card.name}  {detector.card.title}: " in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["detect", "--clean", "clean"],
            "`IMAGES` must be photographs or folders of them; got none. To see the detectors: --list.",
        ),
        (
            ["detect", "photographs"],
            "`--clean` must be a folder of clean images; got none. What a score means is told by clean images: "
            "photographs that nobody has attacked.",
        ),
        ([*COMMAND, "photographs", "-o", "a.txt"], "`--output` must end in .csv or .json; got 'a.txt'."),
        (
            [*COMMAND, "photographs", "--detector", "medain"],
            "`--detector` must be the name of a known detector; got 'medain'. Did you mean median or margin?",
        ),
        (
            [*COMMAND, "photographs", "--detector", "mahalanobis"],
            "`--clean` must be at least 38 images for a share of 0.05 false positives, half of which mahalanobis is "
            "fitted to; got 24.",
        ),
        (
            [*COMMAND, "photographs", "--false-positives", "0.01", "--count", "50"],
            "`--count` must be at least 99; got 50.",
        ),
        ([*COMMAND, "nowhere"], "There is no image file or folder nowhere."),
        (
            ["detect", "adv", "--clean", "clean", "--model", "nets.py:Small"],
            "None of the 3 images could be read. adv/0.png.safetensors holds an image of (3, 224, 224); the model's "
            "input is (3, 32, 32). Attack the photographs with this model.",
        ),
    ],
)
def test_a_mistake_is_one_sentence(folder, words, sentence):
    small = "\n\ndef Small():\n    from whyfooled import Classifier\n    return Classifier(Net(), size=32)\n"
    (folder / "nets.py").write_text(MODELS + small)
    code, out, err = run(folder, *words)
    assert (code, out, without_progress(err)) == (2, "", f"Error: {sentence}\n")
    assert not list(folder.glob("detections*"))


def test_a_detector_that_was_never_attacked_is_named(monkeypatch):
    monkeypatch.setattr("whyfooled.defences.evaded.MEASURED", {"median": 0.0123})
    assert say_evaded(["median(size=3)", "other", "median"]) == (
        "No detector withstands an attacker who knows it: under an attack with the score in its loss the area "
        "under its curve is median 0.012, where 0.5 is chance (measured on a ResNet-20 for CIFAR-10, at 4/255 in "
        "l-infinity). What is left of other was never measured."
    )
    assert files.say_evaded is say_evaded


def test_a_report_says_what_a_detector_that_learned_from_clean_photographs_would(folder):
    options = [
        "--attack",
        "bim(epsilon=0.1)",
        "--methods",
        "gradient",
        "--model",
        "nets.py:Net",
        "--mean",
        "0",
        "-o",
        "out/report",
    ]
    code, out, err = run(
        folder, "explain", "photographs/1.png", *options, "--detector", "softmax", "--clean", "clean", "--no-checks"
    )
    assert (code, without_progress(err)) == (0, "")
    found = json.loads((folder / "out" / "report" / "explanation.json").read_text())["detection"]
    assert (found["detector"], found["clean_images"]) == ("softmax", 24)
    assert "Would it have been flagged? " in out
    judge = ["out/report/tensors.safetensors", "-o", "judged.csv", "--detector", "softmax"]
    code, _, err = run(folder, *COMMAND, *judge)
    assert code == 0, err
    (row,) = rows_of(folder / "judged.csv")
    assert float(row["score"]) == pytest.approx(found["adversarial"]["score"], rel=1e-3)
    assert row["flagged"] == str(found["adversarial"]["flagged"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--detector", "median"], "`--detector` goes together with --clean; got no --clean."),
        (["--clean", "clean"], "`--clean` goes together with --detector; got no --detector."),
        (["--detector", "medium", "--clean", "clean"], "`--detector` must be the name of a known detector"),
    ],
)
def test_a_report_needs_both_a_detector_and_clean_photographs(folder, options, sentence):
    code, out, err = run(
        folder, "explain", "photographs/1.png", "--model", "nets.py:Net", "--mean", "0", *options, "-o", "none"
    )
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.split())
    assert not (folder / "none").exists()


def test_a_picture_of_the_inputs_size_may_be_what_the_model_was_fed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "seen.png")
    Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)).save(tmp_path / "photograph.png")
    as_it_is = small(16)
    cropped = as_it_is.with_module(as_it_is.module, fit=Fit((16, 16), shorter_side=20))
    for classifier, name, adversarial, warns in (
        (cropped, "seen", True, True),
        (cropped, "seen", False, False),
        (cropped, "photograph", True, False),
        (as_it_is, "seen", True, False),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _file_reader(tmp_path / f"{name}.png", adversarial)(classifier)
        assert ["as large as the model's input" in str(one.message) for one in caught] == [True] * warns
