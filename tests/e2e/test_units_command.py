"""``whyfooled units explain`` and ``whyfooled explain --units``, as a user runs them."""

import json
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers.unit_pairs import LAST, a_pair, detecting, dissection_of, pooled
from whyfooled.cli import main
from whyfooled.images import to_picture

MODEL = """
from tests.helpers.unit_pairs import pooled


def make():
    return pooled()


def other():
    made = pooled()
    made.module.head.bias.data += 1
    return made
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    (folder / "models.py").write_text(MODEL)
    clean, adversarial = (one[0].contiguous() for one in a_pair())
    save_file({"clean": clean, "adversarial": adversarial}, folder / "both.safetensors")
    save_file({"adversarial": adversarial}, folder / "adversarial.safetensors")
    to_picture(clean).save(folder / "clean.png")
    dissection_of(pooled(), LAST, threshold=torch.full((5,), 0.1), **detecting(0, 1, -1, 0, 2)).save(
        folder / "dissection"
    )
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model="make"):
        given = [str(folder / one) if (folder / one).exists() else one for one in arguments]
        command = ["whyfooled", *given, "--model", f"{folder / 'models.py'}:{model}", "-o", "out"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_a_pair_is_explained_and_written(run, tmp_path):
    code, out, err = run("units", "explain", "clean.png", "adversarial.safetensors", "--dissection", "dissection")
    assert (code, err) == (0, "")
    assert "more under the attack than under any of 4 random perturbations of the same length" in out
    assert out.endswith("Report: out/report.html\n")
    written = tmp_path / "out"
    found = json.loads((written / "units.json").read_text())
    assert [layer["layer"] for layer in found["units"]["layers"]] == [LAST]
    assert found["parameters"]["dissection"].endswith("dissection")
    assert (written / "report.html").read_text().startswith("<!doctype html>")
    assert len((written / "units.csv").read_text().splitlines()) == 6
    assert load_file(written / "tensors.safetensors")["units/body.3/effect"].shape == (2, 5)
    with Image.open(next((written / "pictures").glob("units-body_3-*-clean.png"))) as picture:
        assert picture.size == (224, 224)


def test_one_file_with_both_images_will_do_and_the_seed_counts(run, tmp_path):
    arguments = ("units", "explain", "both.safetensors", "--units", "dissection", "--quiet")
    tables = []
    for more in ([], [], ["--seed", "1"]):
        assert run(*arguments, *more)[:2] == (0, "")
        tables.append((tmp_path / "out" / "units.csv").read_text())
    assert tables[0] == tables[1] != tables[2]


def test_an_explanation_has_the_section_too(run, tmp_path):
    code, out, _ = run(
        "explain", "clean.png", "--attack", "bim(epsilon=0.1)", "--methods", "gradient", "--units", "dissection"
    )
    assert code == 0
    assert "of the 5 units of body.3 change" in out
    written = tmp_path / "out"
    assert json.loads((written / "explanation.json").read_text())["parameters"]["units"].endswith("dissection")
    page = (written / "report.html").read_text()
    assert "What does it do to hidden units?" in page
    assert "Where does the perturbation act?" in page
    change = torch.tensor(
        list(json.loads((written / "explanation.json").read_text())["units"]["logit_change"].values())
    )
    effect = load_file(written / "tensors.safetensors")["units/body.3/effect"]
    torch.testing.assert_close(effect.sum(1), change, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["units", "explain", "clean.png", "--units", "dissection"], "must be given where CLEAN is a photograph"),
        (["units", "explain", "both.safetensors", "--units", "empty"], "holds no dissection"),
        (["units", "explain", "both.safetensors", "--units", "nothere"], "holds no dissection"),
        (
            ["units", "explain", "both.safetensors", "--units", "dissection/index.html"],
            "is a file. Give the folder that `whyfooled dissect` wrote: ",
        ),
        (["explain", "clean.png", "--units", "empty"], "holds no dissection"),
        (
            ["units", "explain", "clean.png", "clean.png", "--units", "dissection"],
            "there is no perturbation to explain",
        ),
        (
            ["units", "explain", "both.safetensors", "--units", "dissection", "--label", "1", "--target", "1"],
            "must be another class than the true one",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(run, tmp_path, arguments, reason):
    code, out, err = run(*arguments)
    errors = [line for line in err.splitlines() if not line.startswith("Warning")]
    assert (code, out) == (2, "")
    assert len(errors) == 1
    assert reason in errors[0]
    assert not (tmp_path / "out").exists()


def test_another_models_dissection_is_refused(run, tmp_path):
    for command in (["units", "explain", "both.safetensors"], ["explain", "clean.png"]):
        code, _, err = run(*command, "--units", "dissection", model="other")
        assert code == 2
        assert err.count("must be of the model that was attacked") == 1
        assert "got one of pooled. Dissect this one" in err
        assert not (tmp_path / "out").exists()


def test_a_dissection_must_be_given(run):
    code, _, err = run("units", "explain", "both.safetensors")
    assert code == 2
    assert "--dissection" in err
