"""``whyfooled perturbation``, as a user runs it."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import without_progress
from tests.helpers.models import SmallNet
from whyfooled import Classifier
from whyfooled.cli import main

MODEL = """
from tests.helpers.models import small


def make():
    return small()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perturbation")
    (folder / "models.py").write_text(MODEL)
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "clean.png")
    clean = (torch.from_numpy(pixels).permute(2, 0, 1) / 255).contiguous()
    delta = 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    adversarial = (clean + delta).clamp(0, 1).contiguous()
    save_file({"adversarial": adversarial}, folder / "adversarial.safetensors")
    save_file({"clean": clean, "adversarial": adversarial}, folder / "both.safetensors")
    labels = np.zeros((16, 16), dtype=np.uint8)
    labels[:, 8:] = 1
    Image.fromarray(labels).save(folder / "halves.png")
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        given = [str(folder / one) if (folder / one).is_file() else one for one in arguments]
        command = ["whyfooled", "perturbation", *given, "--model", f"{folder / 'models.py'}:make", "-o", "out"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_a_pair_is_explained_and_written(run, tmp_path):
    code, out, err = run("clean.png", "adversarial.safetensors", "--cell", "4")
    assert (code, without_progress(err)) == (0, "")
    assert "of the effect" in out
    assert out.endswith("Report: out/report.html\n")
    found = json.loads((tmp_path / "out" / "perturbation.json").read_text())
    assert found["effect"]["regions"]["count"] == 16
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    assert load_file(tmp_path / "out" / "tensors.safetensors")["regions/score"].shape == (16,)


def test_one_file_with_both_images_will_do(run, tmp_path):
    assert run("both.safetensors", "--quiet")[:2] == (0, "")
    pair = json.loads((tmp_path / "out" / "perturbation.json").read_text())
    assert pair["perturbation"]["l2"] > 1


def test_regions_may_be_superpixels_or_a_label_map(run, tmp_path):
    assert run("both.safetensors", "--superpixels", "6", "-q")[0] == 0
    assert "superpixels" in (tmp_path / "out" / "report.html").read_text()
    assert run("both.safetensors", "--regions", "halves.png", "--cam", "gradcampp", "-q")[0] == 0
    found = json.loads((tmp_path / "out" / "perturbation.json").read_text())["effect"]
    assert found["regions"]["count"] == 2
    assert found["cam"]["method"] == "gradcampp"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["clean.png"], "must be given where CLEAN is a photograph"),
        (["clean.png", "none.npy"], "There is no file none.npy with an adversarial image"),
        (["clean.png", "clean.png"], "there is no perturbation to explain"),
        (["both.safetensors", "--cell", "17"], "`--cell` must fit into the image of 16 × 16 pixels; got 17"),
        (["both.safetensors", "--cell", "0"], "`--cell` must be at least 1"),
        (["both.safetensors", "--cell", "4", "--superpixels", "5"], "`--superpixels` excludes --cell"),
        (["both.safetensors", "--regions", "adversarial.safetensors"], "is not an image of a known format"),
        (["both.safetensors", "--cam", "gradcan"], "`--cam` must be the name of a known saliency method"),
        (["nothere.png"], "There is no image file nothere.png"),
        (["both.safetensors", "--label", "1", "--target", "1"], "must be another class than the true one"),
        (["both.safetensors", "--target", "5"], "class"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(run, tmp_path, arguments, reason):
    code, out, err = run(*arguments)
    errors = [line for line in err.splitlines() if not line.startswith("Warning")]
    assert (code, out) == (2, "")
    assert len(errors) == 1
    assert reason in errors[0]
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_size_is_named(folder, tmp_path, monkeypatch):
    # The tensors must be those that were fed to the model.
    monkeypatch.chdir(tmp_path)
    other = Classifier(SmallNet().eval(), size=(24, 24))
    from whyfooled import explain_perturbation
    from whyfooled.errors import ImageError

    with pytest.raises(ImageError, match=r"must have the shape of the classifier's input, \(3, 24, 24\)"):
        explain_perturbation(other, folder / "both.safetensors", folder / "both.safetensors")
