"""Whatever a visitor types or drops wrongly is a sentence of the command line, and nothing is written."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command_line import MODELS, command, without_progress
from whyfooled.app.request import FIELDS, Started, write_arguments

WRONG = {
    "images": ("words.txt.jpg", "words.txt.jpg is not an image of a known format"),
    "attack": ("pgd(stepz=3)", "`stepz` must be a parameter of pgd"),
    "target": ("tabby", "`--target` must be a class index"),
    "methods": (["gradint"], "Did you mean gradient"),
    "model": ("timm:resnet0", "`--model` must be a timm model"),
    "adversarial": ("words.safetensors", "words.safetensors cannot be read as a tensor"),
    "label": ("-3", "`--label` must be a class index from 0 to 3"),
    "epsilon": ("4/255", "`--epsilon` must be left out with cw"),
    "steps": ("3.5", "Invalid value for '--steps'"),
    "regions": ("words.npy", "words.npy cannot be read as a label map: it is no .npy file."),
    "names": ("names.txt", "`--names` is about the regions of --regions"),
    "attack_in": ("cup", "`--attack-in` is about the regions of --regions"),
    "trust": ("words.safetensors", "words.safetensors is not a universal perturbation"),
    "weights": ("words.pt", "words.pt is no file of weights"),
    "class_names": ("names.txt", "models.py:Tiny has 4 classes, and names.txt names 1: words. Give 4 names."),
    "figures": ("gif", "`--figures` must be one of pdf, svg, png"),
    "seed": ("one", "Invalid value for '--seed'"),
}
"""For each field a wrong setting, and what the sentence says of it."""


TYPED = [field for field in FIELDS if field.kind not in ("switch", "either")]
"""A switch and a choice of two cannot be set wrongly."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "models.py").write_text(MODELS)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "cat.png")
    for field in TYPED:
        if field.kind == "file":
            (tmp_path / WRONG[field.name][0]).write_text("words")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("field", TYPED, ids=lambda field: field.name)
def test_a_wrong_setting_is_a_sentence(field, folder, monkeypatch, capsys):
    value, sentence = WRONG[field.name]
    arguments = write_arguments({"images": "cat.png", field.name: value}, Started("models.py:Tiny", models=("lite0",)))
    assert command(monkeypatch, "explain", *arguments, "-o", "run") == 2
    said = without_progress(capsys.readouterr().err)
    assert sentence in said
    assert "Traceback" not in said
    assert not (folder / "run").exists()
    assert not list(folder.glob(".whyfooled-*"))
