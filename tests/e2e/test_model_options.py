"""What is said of a model on the command line: in the words of the options that were given."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.command_line import MODELS, command
from whyfooled.cli._app import plain_warnings
from whyfooled.cli._model import ModelOptions
from whyfooled.cli._spelling import spell_options
from whyfooled.errors import hearing

SIGMOIDS = """
class Labels(Net):
    def forward(self, x):
        return super().forward(x).sigmoid()

class One(Net):
    def forward(self, x):
        return super().forward(x)[:, :1]
"""
NET = ("--model", "models.py:Net", "--mean", "0", "--std", "1", "--size", "16")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS + SIGMOIDS)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    (tmp_path / "one.txt").write_text("cat\n")
    return tmp_path


INPUT = "what a model of one's own takes (mean, std, channels, layout, scale, size)"
REFUSED = {
    "models.py:Net has 4 classes, and two.txt names 2, from cat to dog. Give 4 names.": ("--class-names", "two.txt"),
    "`--ask` must be a class index, because this model has no class names; got 'cow'.": ("--ask", "cow"),
    "`--label` must be a class index from 0 to 3, or a class name; got 7.": ("--label", "7"),
    "`--target` is for a model with one answer: a label is": ("--several-labels", "--target", "1"),
    "`--model-output` must be in what the model returns; got 'x'.": ("--model-output=x",),
    "models.py:Net cannot take images of the shape (n, 16, 16, 3), which is what `--layout` and `--size` say. ": (
        "--layout",
        "nhwc",
    ),
    f"`--mean`, `--std`, `--size` say {INPUT}; got them for lite0.": ("--model", "lite0"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_options_are_called_as_they_are_spelt(said, folder, monkeypatch, capsys):
    assert command(monkeypatch, "explain", "noise.png", "-q", "--no-checks", *NET, *REFUSED[said]) == 2
    assert capsys.readouterr().err.startswith(f"Error: {said}")


def test_parameters_that_no_option_set_stay_as_they_are():
    message = "`steps` must be at least 1; got 0. `class_names` too, and `inputs`."
    assert spell_options(message, ["explain", "--attack", "pgd(steps=0)"]) == message
    assert spell_options(message, ["--steps", "0", "--class-names=a/b.txt", "--size", "8"]) == (
        "`--steps` must be at least 1; got 0. a/b.txt too, and `--size`."
    )


EXPLAIN = ("explain", "noise.png", "--attack", "fgsm", "--methods", "gradient", "--no-checks", "-o", "out")


def read_report(folder):
    return json.loads((folder / "out" / "explanation.json").read_text())


def test_one_name_is_enough_for_a_model_of_one_logit(folder, monkeypatch, capsys):
    options = ("--model", "models.py:One", *NET[2:], "--class-names", "one.txt")
    assert command(monkeypatch, *EXPLAIN, *options) in (0, None), capsys.readouterr().err
    report = read_report(folder)
    assert {report["true"]["name"], report["wrong"]["name"]} == {"cat", "not cat"}
    assert command(monkeypatch, *EXPLAIN, *NET, "--class-names", "one.txt") == 2
    assert "models.py:Net has 4 classes, and one.txt names 1: cat. Give 4 names." in capsys.readouterr().err


def test_several_sigmoids_are_asked_about_in_the_report(folder, monkeypatch, capsys):
    options = ("--model", "models.py:Labels", *NET[2:])
    assert command(monkeypatch, *EXPLAIN, *options) in (0, None), capsys.readouterr().err
    said = [note for note in read_report(folder)["notes"] if "ends in a sigmoid of each of its outputs" in note]
    assert len(said) == 1
    assert "--several-labels" in said[0]
    for said_so in ({"several_labels": True}, {"ask": "1"}):
        with hearing() as heard:
            classifier = ModelOptions("models.py:Labels", mean="0", size="16", num_classes=4, **said_so).load("cpu", 0)
            classifier.logits(torch.rand(1, 3, 16, 16))
        assert heard == []


def test_a_label_that_is_asked_about_has_others_beside_it(folder, monkeypatch, capsys):
    assert command(monkeypatch, *EXPLAIN, *NET, "--ask", "2") in (0, None), capsys.readouterr().err
    notes = read_report(folder)["notes"]
    assert any("The model gives 4 labels at once" in note and "one of them, class 2" in note for note in notes)
    assert any(note.startswith(("The other 3 labels stay", "The perturbation switches other labels")) for note in notes)


def test_the_converters_own_warnings_are_not_shown():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with plain_warnings():
            warnings.warn_explicit("inside", UserWarning, "/lib/onnx2torch/node_converters/slice.py", 63)
            warnings.warn_explicit("outside", UserWarning, "/lib/other/slice.py", 63)
    assert [str(warning.message) for warning in shown] == ["outside"]


def test_whole_names_all_labels_again():
    from whyfooled import Classifier

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    classifier = Classifier(module, size=2, class_names=["a", "b", "c"], several_labels=True)
    whole = classifier.ask("b").float32().whole
    assert (whole.class_names, whole.several_labels, whole.label) == (("a", "b", "c"), True, None)
    images = torch.rand(2, 3, 2, 2)
    assert torch.equal(whole.logits(images), classifier.logits(images))
    assert classifier.whole is classifier
