"""``whyfooled dissect`` and ``whyfooled layers``, as a user runs them."""

import csv
import io
import json
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.helpers.command_line import MODELS, command, killed_when, without_progress
from whyfooled.units import CONCEPTS, load_dissection, open_concepts

OTHERS = """

class Deep(Net):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1))

    def forward(self, x):
        return self.head(self.blocks(self.conv(x)).mean((2, 3)))


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(x.mean((2, 3)))
"""
MASKS = "masks:images,labels,names.txt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(MODELS + OTHERS)
    (tmp_path / "names.txt").write_text("left\nright\nunlabelled\n")
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    for number in range(5):
        generator = np.random.default_rng(number)
        pixels = generator.integers(0, 255, (16, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((240, 230)).save(tmp_path / "images" / f"{number}.png")
        label = generator.integers(0, 3, (23, 24), dtype=np.uint8)
        Image.fromarray(label).save(tmp_path / "labels" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dissect(monkeypatch, *more, model="nets.py:Deep", concepts=MASKS):
    given = ["--concepts", concepts, "--model", model, "--device", "cpu", *more]
    return command(monkeypatch, "dissect", *given)


def test_units_are_dissected_and_everything_is_written(folder, monkeypatch, capsys):
    options = ["--layer", "conv", "--layer", "blocks.*", "--colours", "--top", "0.02", "--cutoff", "0.01"]
    assert dissect(monkeypatch, *options, "--permutations", "3", "--seed", "4", "-o", "below/out") == 0
    out, err = capsys.readouterr()
    assert without_progress(err) == ""
    for said in (
        "# Network dissection",
        "nets.py:Deep: 22 units of 3 layers",
        "units detect a concept (IoU above 0.01)",
        "p cannot be below 0.250 then.",
        "| conv | 8 |",
        "| blocks.1 | object |",
        "| blocks.1 | colour |",
        "Written: below/out: index.html",
    ):
        assert said in out
    place = folder / "below" / "out"
    assert (place / "summary.md").read_text() in out
    assert "whyfooled 0." in out
    assert "\\begin{table}" in (place / "summary.tex").read_text()
    found = load_dissection(place)
    assert [one.layer.name for one in found.layers] == ["conv", "blocks.0", "blocks.1"]
    assert found.parameters["top"] == 0.02
    assert found.parameters["seed"] == 4
    assert (found.cutoff, len(found.layers[0].null_iou)) == (0.01, 3)
    assert {"left", "right", "red", "blue"} <= set(found.concepts)
    assert len(pd.read_parquet(place / "units.parquet")) == 22
    assert json.loads((place / "dissection.json").read_text())["results"][0]["rows"][0]["layer"] == "conv"
    assert sorted(path.name for path in (place / "pictures").iterdir()) == [f"{number}.webp" for number in range(5)]


def test_the_last_stage_is_what_is_dissected_if_nothing_is_said(folder, monkeypatch, capsys):
    assert dissect(monkeypatch, "--quiet", "--permutations", "0", "--top", "0.02") == 0
    assert capsys.readouterr() == ("", "")
    found = load_dissection("whyfooled-out")
    assert [one.layer.name for one in found.layers] == ["blocks"]
    assert not len(found.layers[0].null_iou)


def test_photographs_alone_have_colours(folder, monkeypatch, capsys):
    assert dissect(monkeypatch, "--quiet", "--top", "0.02", concepts="colours:images") == 0
    assert load_dissection("whyfooled-out").categories == ("colour",)


def test_the_list_describes_every_kind_of_concepts(capsys, monkeypatch):
    assert command(monkeypatch, "dissect", "--list") == 0
    out = capsys.readouterr().out
    for card in CONCEPTS.values():
        assert card.form in out


def test_layers_are_listed(folder, capsys, monkeypatch):
    assert command(monkeypatch, "layers", "--model", "nets.py:Deep") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["layer", "class", "output", "units", "places", "dissect"],
        ["conv", "Conv2d", "8x28x28", "8", "784", "yes"],
        ["blocks.0", "Conv2d", "6x28x28", "6", "784", "yes"],
        ["blocks.1", "Conv2d", "8x28x28", "8", "784", "yes"],
        ["blocks", "Sequential", "8x28x28", "8", "784", "last-stage"],
    ]
    assert command(monkeypatch, "layers", "--model", "nets.py:Deep", "--all", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["layer"] for row in rows] == ["conv", "blocks.0", "blocks.1", "blocks", "head"]
    assert rows[-1] == {
        "layer": "head",
        "class": "Linear",
        "output": "4",
        "units": "-",
        "places": "-",
        "dissect": "no",
    }


def test_a_model_without_places_has_layers_but_none_to_dissect(folder, capsys, monkeypatch):
    assert command(monkeypatch, "layers", "--model", "nets.py:Flat", "--all") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["head", "Linear", "4", "-", "-", "no"]
    assert command(monkeypatch, "layers", "--model", "nets.py:Flat") == 2
    assert "it has no units to look at." in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_behind(folder):
    started = folder / "started"
    (folder / "slow.py").write_text(
        MODELS + "\n\nclass Mark(Slow):\n    def forward(self, x):\n"
        f"        open({str(started)!r}, 'w').close()\n        import time\n        time.sleep(30)\n"
        "        return super().forward(x)\n"
    )
    before = {path.name for path in folder.iterdir()}
    code, err = killed_when(
        folder, started.exists, signal.SIGINT, "dissect", "--concepts", MASKS, "--mean", "0", "--model", "slow.py:Mark"
    )
    assert code == 130, err
    said = "Stopped. What was finished of it is kept: the same command goes on from there.\n"
    assert without_progress(err) == said
    assert {path.name for path in folder.iterdir()} - before <= {"started", "__pycache__"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--concepts", ""], "`--concepts` must say where annotated images are; got ''. To see what it takes: --list."),
        (["--concepts", "images"], "Such as masks:IMAGES,LABELS,NAMES."),
        (["--concepts", "maskss:images"], "Did you mean masks?"),
        (["--concepts", "masks:images,nowhere,names.txt"], "nowhere"),
        (["--layer", "blocks.7"], "`--layer` must name a layer of the model, or match some; got 'blocks.7'. Did you m"),
        (["--layer", "head"], "`--layer` must name layers whose output is (n, units, height, width), in any order,"),
        (["--model", "nets.py:Flat"], "so it has no units to look at."),
        (["--top", "0"], "`--top` must be between 0 and 1; got 0.0."),
        (["--cutoff", "1"], "`--cutoff` must be at least 0 and below 1; got 1.0."),
        (["--permutations", "-1"], "`--permutations` must be at least 0; got -1."),
        (["--batch-size", "0"], "`--batch-size` must be at least 1; got 0."),
        (["--memory", "-1"], "`--memory` must be at least 0; got -1.0."),
        (["--memory", "nan"], "`--memory` must be at least 0; got nan."),
        (["--engine", "spark"], "`--engine` must be one of local, ray; got spark."),
        (["--seed", "-1"], "`--seed` must be a whole number from 0 to 2^63 − 1; got -1."),
        (["-o", "nets.py"], "The output path nets.py is a file; give a folder."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(folder, capsys, monkeypatch, arguments, said):
    before = sorted(folder.rglob("*"))
    given = {"--concepts": MASKS, "--model": "nets.py:Deep", **dict([arguments])}
    assert command(monkeypatch, "dissect", *(part for pair in given.items() for part in pair)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert said in err
    assert err.count("\n") == 1
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == before


def test_squashed_all_of_a_picture_is_seen(folder, monkeypatch, capsys):
    assert dissect(monkeypatch, "--layer", "blocks.1", "-o", "cut") == 0
    assert dissect(monkeypatch, "--layer", "blocks.1", "--squash", "-o", "squashed") == 0
    cut, squashed = load_dissection("cut"), load_dissection("squashed")
    # Pictures of 240 × 230 pixels are cut to squares.
    assert [found.parameters["squash"] for found in (cut, squashed)] == [False, True]
    assert int(squashed.area.sum()) > int(cut.area.sum())
    assert any("of the annotated pixels" in note for note in cut.notes)
    assert not any("of the annotated pixels" in note for note in squashed.notes)


def test_some_images_are_drawn(folder, monkeypatch, capsys):
    for seed in (0, 0, 1):
        assert (
            dissect(monkeypatch, "--layer", "blocks.1", "--count", "3", "--seed", str(seed), "-o", f"some{seed}") == 0
        )
    some, others = (load_dissection(f"some{seed}").images for seed in (0, 1))
    assert len(some) == len(others) == 3
    assert some != others
    whole = open_concepts(MASKS)
    assert set(some) < set(whole.images)
    chosen = whole.only([3, 1])
    assert chosen.images == ("3.png", "1.png")
    assert torch.equal(chosen[0].maps, whole[3].maps)
    assert chosen.reader.picture(1).tobytes() == whole[1].image.tobytes()
    assert chosen.digest() != whole.digest()
    assert dissect(monkeypatch, "--count", "0") == 2
    assert "`--count` must be at least 1" in capsys.readouterr().err
