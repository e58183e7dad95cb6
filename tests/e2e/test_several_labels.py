"""Models that give several labels at once, on the command line."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.command_line import MODELS, command
from whyfooled import load_adversaries


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path


MODEL = ("--model", "models.py:Net", "--size", "32")


def test_one_label_is_attacked_by_itself(folder, monkeypatch, capsys):
    attack = ("attack", "noise.png", "--attack", "fmn(steps=50)", *MODEL)
    study = ("study", "recovery", "--images", "noise.png", *MODEL)
    for refused in (attack, study):
        assert command(monkeypatch, *refused, "--several-labels") == 2
        assert "gives several labels at once, and this is about a model with one answer" in capsys.readouterr().err
    assert command(monkeypatch, *attack, "--ask", "2", "-o", "out") == 0
    attacked = load_adversaries("out")[0]
    assert attacked.logits.shape == (1, 2)
    assert torch.equal(attacked.logits[:, 0], -attacked.logits[:, 1])


def test_one_label_is_explained(folder, monkeypatch, capsys):
    explain = ("explain", "noise.png", "--attack", "fmn(steps=20)", "--methods", "gradient", *MODEL, "-o", "out")
    assert command(monkeypatch, *explain, "--several-labels", "--label", "1") in (0, None)
    said = capsys.readouterr().out
    assert "The model gives 4 labels at once, each on or off by itself. This is about one of them, class 1" in said
    assert command(monkeypatch, *explain, "--several-labels", "--target", "1") == 2
    assert "`--target` is for a model with one answer: a label is switched" in capsys.readouterr().err
