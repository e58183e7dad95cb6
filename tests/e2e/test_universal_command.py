"""``whyfooled universal fit`` and ``test``, and ``explain --trust``, as a user runs them."""

import json
import signal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.helpers.command_line import MODELS, command, killed_when, without_progress
from whyfooled.registry import available, parameters
from whyfooled.universal import UNIVERSAL, UniversalPerturbation
from whyfooled.universal.evaluation import DIRECTIONS

OTHERS = """

class Other(Net):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 8, 3, stride=8)
        self.head = nn.Linear(8, 4)
"""

QUICK = ["--method", "grad(passes=1, images_per_step=2)", "--epsilon", "2"]
MODEL = ["--model", "nets.py:Net", "--device", "cpu"]


def make_folder(folder, patch):
    (folder / "nets.py").write_text(MODELS + OTHERS)
    for name, numbers in (("photographs", range(4)), ("unseen", range(4, 7))):
        (folder / name).mkdir()
        for number in numbers:
            pixels = np.random.default_rng(number).integers(0, 255, (16, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((240, 230)).save(folder / name / f"{number}.png")
    patch.chdir(folder)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return make_folder(tmp_path, monkeypatch)


def fit(monkeypatch, *more):
    return command(monkeypatch, "universal", "fit", *QUICK, "--images", "photographs", *MODEL, *more)


def check(monkeypatch, *more):
    return command(monkeypatch, "universal", "test", "delta.safetensors", "--images", "unseen", *MODEL, *more)


def test_a_perturbation_is_fitted_tested_and_used(folder, monkeypatch, capsys):
    assert fit(monkeypatch) == 0
    out, err = capsys.readouterr()
    assert without_progress(err) == ""
    for said in (
        "one perturbation of 3 x 224 x 224 values",
        "l2 2 (of values from 0 to 255: 510)",
        "l2 ball of radius 2 for values from 0 to 1, which is 510 for values from 0 to 255",
        "Fitted to change the maps of gradient of nets.py:Net, on 4 images; none left out.",
        "From the first to the last of 2 steps: dissimilarity ",
        # A look at each image, and two maps, one of them differentiated.
        "12 forward and 12 backward passes",
        "whyfooled universal test delta.safetensors",
    ):
        assert said in out
    found = UniversalPerturbation.load("delta.safetensors")
    assert found.method == "grad(epsilon=2.0, passes=1, images_per_step=2)"
    assert (found.images, found.wrong) == (4, 0)

    assert check(monkeypatch, "-o", "tested", "--record") == 0
    out, err = capsys.readouterr()
    assert without_progress(err) == ""
    for said in (
        "# Test of a universal perturbation",
        "under random directions of the same norm",
        "The prediction changes on ",
        "It alters the maps of ",
        "Images evaluated: 3; none left out.",
        "The images have no labels: each counts as what the classifier sees in it.",
        "Intervals of means over fewer than 20 images are too narrow.",
        "| universal | not clipped |",
        "| random | clipped |",
        "| brightness | clipped |",
        "Written: tested",
    ):
        assert said in out
    assert "transfer" not in out
    table = pd.read_parquet("tested/table.parquet")
    pd.testing.assert_frame_equal(table, pd.read_csv("tested/table.csv"))
    assert len(table) == 3 * 2 * (2 + DIRECTIONS + 2)
    assert (folder / "tested" / "summary.md").read_text() in out
    assert "\\begin{table}" in (folder / "tested" / "summary.tex").read_text()
    assert Image.open("tested/figure.png").width > 1000

    explained = ["explain", "unseen/5.png", "--attack", "bim(epsilon=0.1)", "--methods", "gradient", *MODEL]
    assert command(monkeypatch, *explained, "--trust", "delta.safetensors", "-o", "out") == 0
    said = capsys.readouterr().out
    assert "Under the universal perturbation (ℓ2 2) the prediction " in said
    assert "Of 3 other images it alters " in said
    assert "Gradient: the map keeps " in said
    numbers = json.loads((folder / "out" / "explanation.json").read_text())
    assert numbers["parameters"]["trust"] == "delta.safetensors"
    assert [one["method"] for one in numbers["trust"]["methods"]] == ["enhanced", "gradient"]


def test_quiet_says_nothing_and_the_same_fit_writes_the_same_file(folder, monkeypatch, capsys):
    for name in ("one", "two"):
        # Batches are shards: what is added up together does not depend on the machine.
        assert fit(monkeypatch, "--quiet", "--batch-size", "2", "-o", f"below/{name}.safetensors") == 0
    assert capsys.readouterr() == ("", "")
    one, two = (folder / "below" / f"{name}.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in (folder / "below").iterdir()) == ["one.safetensors", "two.safetensors"]


def test_labels_leave_out_what_the_model_gets_wrong(folder, monkeypatch, capsys):
    assert fit(monkeypatch, "--method", "random", "--quiet") == 0
    found = UniversalPerturbation.load("delta.safetensors")
    assert (found.images, found.wrong) == (4, 0)
    seen = {}
    for number in range(4):
        (folder / "labels.csv").write_text("file,label\n" + "".join(f"{n}.png,{number}\n" for n in range(4)))
        code = fit(monkeypatch, "--method", "random", "--labels", "labels.csv", "-o", "labelled.safetensors")
        out, err = capsys.readouterr()
        if code:
            assert "None of the 4 images is classified as what it shows" in err
            continue
        labelled = UniversalPerturbation.load("labelled.safetensors")
        assert labelled.images + labelled.wrong == 4
        if labelled.wrong:
            assert f"{labelled.wrong} left out, because the classifier misclassifies them" in out
        seen[number] = labelled.images
    assert sum(seen.values()) == 4


def test_epsilon_is_read_on_the_scale_that_is_given(folder, monkeypatch, capsys):
    assert fit(monkeypatch, "--method", "random", "--scale", "255", "--epsilon", "8", "--ball", "linf", "--quiet") == 0
    found = UniversalPerturbation.load("delta.safetensors")
    assert found.ball == "linf"
    assert found.linf == pytest.approx(8 / 255)
    assert capsys.readouterr() == ("", "")


def test_another_model_another_method_and_another_size_are_said(folder, monkeypatch, capsys):
    assert fit(monkeypatch, "--quiet") == 0
    assert check(monkeypatch, "--model", "nets.py:Other", "--saliency", "gradcam(layer=conv)", "--count", "2") == 0
    out = capsys.readouterr().out
    assert "The universal perturbation was made on another model, nets.py:Net: what it does here is transfer." in out
    assert "It was fitted to the maps of gradient, and evaluated on those of gradcam(layer=conv)." in out
    assert "Images evaluated: 2" in out
    assert check(monkeypatch, "--model", "nets.py:Tiny", "--resize") == 0
    assert "resized from 224 x 224 to 32 x 32 pixels; its norm is as it was" in capsys.readouterr().out
    tiny = ["explain", "unseen/5.png", "--model", "nets.py:Tiny", "--methods", "gradient", "--quiet", "-o", "out"]
    assert command(monkeypatch, *tiny, "--trust", "delta.safetensors", "--resize") == 0
    assert command(monkeypatch, *tiny, "--trust", "delta.safetensors") == 2
    assert "--resize" in capsys.readouterr().err


def test_the_lists_describe_every_way_to_find_one(capsys, monkeypatch):
    assert command(monkeypatch, "universal", "fit", "--list") == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert command(monkeypatch, "methods") == 0
    short = " ".join(capsys.readouterr().out.split())
    assert len(available("universal")) >= len(UNIVERSAL)
    for method in available("universal").values():
        for text in (listed, short):
            assert f"{method.card.name} {method.card.title}: " in text
        for name in parameters(method):
            assert f" {name}=" in listed


def test_ctrl_c_leaves_nothing_behind(folder):
    started = folder / "started"
    (folder / "slow.py").write_text(
        MODELS + "\n\nclass Mark(Slow):\n    def forward(self, x):\n"
        f"        open({str(started)!r}, 'w').close()\n        return super().forward(x)\n"
    )
    before = {path.name for path in folder.iterdir()}
    code, err = killed_when(
        folder,
        started.exists,
        signal.SIGINT,
        *[
            "universal",
            "fit",
            "--method",
            "grad(passes=50)",
            "--images",
            "photographs",
            "--mean",
            "0",
            "--model",
            "slow.py:Mark",
        ],
    )
    assert code == 130, err
    assert without_progress(err) == "Stopped. Nothing was written.\n"
    assert {path.name for path in folder.iterdir()} - before <= {"started", "__pycache__"}


FIT = ["universal", "fit", "--images", "photographs"]
TEST = ["universal", "test", "delta.safetensors", "--images", "unseen"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["universal", "fit"], "`--images` must say where the images come from; got nothing."),
        ([*FIT, "--images", ""], "`--images` must say where the images come from; got ''."),
        ([*FIT, "-o", "delta.pt"], "`--output` must be a .safetensors file; got delta.pt."),
        ([*FIT, "-o", "nets.py/delta.safetensors"], "nets.py/delta.safetensors cannot be written: Not a directory."),
        ([*FIT, "-o", "folder.safetensors"], "folder.safetensors is a folder; give a file."),
        ([*FIT, "--epsilon", "0"], "`--epsilon` must be a finite number above 0; got 0.0."),
        ([*FIT, "--epsilon", "4", "--ball", "linf"], "Did you mean 4/255?"),
        ([*FIT, "--scale", "100"], "`--scale` must be the value of white, 1 or 255; got 100."),
        ([*FIT, "--scale", "big"], "`--scale` must be a whole number; got 'big'."),
        ([*FIT, "--method", "pcaa"], "`--method` must be the name of a known universal perturbation; got 'pcaa'."),
        ([*FIT, "--saliency", "lime"], "The maps of lime cannot be differentiated with respect to the image; take "),
        ([*FIT, "--saliency", "gradiant"], "`--saliency` must be the name of a known saliency method"),
        ([*FIT, "--images", "nowhere"], "There is no image file or folder nowhere."),
        ([*FIT, "--labels", "none.csv"], "none.csv"),
        ([*FIT, "--batch-size", "0"], "`--batch-size` must be at least 1; got 0."),
        ([*FIT, "--count", "0"], "`--count` must be at least 1; got 0."),
        ([*FIT, "--workers", "0"], "`--workers` must be at least 1; got 0."),
        ([*FIT, "--seed", "9" * 20], "`--seed` must be a whole number from 0 to 2^63 − 1; got 9999"),
        ([*FIT, "--engine", "spark"], "`--engine` must be one of local, ray; got spark."),
        (["universal", "test", "delta.safetensors"], "`--images` must say where the images come from; got nothing."),
        (["universal", "test", "none.safetensors", "--images", "unseen"], "There is no file none.safetensors with a"),
        (["universal", "test", "cut.safetensors", "--images", "unseen"], "cut.safetensors is not a universal pert"),
        (["universal", "test", "nets.py", "--images", "unseen"], "nets.py is not a universal perturbation"),
        (["universal", "test", "delta.safetensors", "--images", "renamed"], "1 of 1 that it was, such as other.png"),
        ([*TEST, "--images", "nowhere"], "There is no image file or folder nowhere."),
        ([*TEST, "--saliency", "grad"], "`--saliency` must be the name of a known saliency method; got 'grad'."),
        ([*TEST, "--model", "nets.py:Tiny"], "The perturbation must have the size of the images, (3, 32, 32); got"),
        ([*TEST, "--record", "--resize"], "`--record` is for the perturbation as it is; got --resize too."),
        ([*TEST, "-o", "nets.py"], "The output path nets.py is a file; give a folder."),
        (["explain", "unseen/5.png", "--resize"], "`--resize` is for the perturbation of --trust; got no --trust."),
        (["explain", "unseen/5.png", "--trust", "cut.safetensors"], "cut.safetensors is not a universal perturbation"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(folder, made, capsys, monkeypatch, arguments, said):
    (folder / "delta.safetensors").write_bytes(made)
    (folder / "cut.safetensors").write_bytes(made[: len(made) // 2])
    (folder / "folder.safetensors").mkdir()
    (folder / "renamed").mkdir()
    (folder / "renamed" / "other.png").write_bytes((folder / "photographs" / "1.png").read_bytes())
    before = sorted(folder.rglob("*"))
    own = [] if "--model" in arguments else ["--model", "nets.py:Net", "--mean", "0"]
    assert command(monkeypatch, *arguments, *own) == 2
    out, err = capsys.readouterr()
    err = without_progress(err)
    assert out == ""
    assert err.startswith("Error: ")
    assert said in err
    assert err.count("\n") == 1
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the file of a perturbation fitted to the photographs."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        make_folder(folder, patch)
        assert command(patch, *FIT, "--method", "random", *MODEL, "--quiet") == 0
    return (folder / "delta.safetensors").read_bytes()
