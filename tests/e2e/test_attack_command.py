"""``whyfooled attack`` as a user runs it: stopped at any moment, resumed, listed, misused."""

import csv
import re
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command_line import MODELS, command, killed_when, run, without_progress
from tests.helpers.forked import CommandProcess
from whyfooled import load_adversaries
from whyfooled.attacks import ATTACKS
from whyfooled.registry import parameters

COMMAND = ["attack", "photographs", "--attack", "fmn(steps=10)", "--batch-size", "2", "--mean", "0", "--model"]
SLOW, QUICK = [*COMMAND, "nets.py:Slow"], [*COMMAND, "nets.py:Net"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(MODELS)
    (tmp_path / "several.csv").write_text("file,label\n1.png,3\n0.png,1;2\n")
    (tmp_path / "photographs").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((240, 230)).save(tmp_path / "photographs" / f"{number}.png")
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.nightly
def test_a_run_that_is_killed_twice_ends_in_the_same_files(folder):
    code, out, err = run(folder, *SLOW, "-o", "whole")
    assert (code, without_progress(err)) == (0, "")
    assert "of 6 photographs reached the goal" in out
    stopped = folder / "stopped"
    for count in (1, 3):
        code, _ = killed_when(
            folder,
            lambda count=count: len(list(stopped.glob("*.safetensors*"))) >= count,
            signal.SIGKILL,
            *SLOW,
            "-o",
            "stopped",
        )
        assert code == -signal.SIGKILL
        assert not (stopped / "table.csv").exists()
    assert run(folder, *SLOW, "-o", "stopped")[0] == 0
    assert contents(stopped) == contents(folder / "whole")
    assert len(load_adversaries(stopped)) == 6


@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_how_to_go_on_and_gives_the_folder_free(folder, how, exit_code):
    code, err = killed_when(folder, lambda: list((folder / "out").glob("*.safetensors")), how, *SLOW, "-o", "out")
    assert code == exit_code, err
    assert not list((folder / "out").glob(".*"))
    assert err.splitlines()[-1] == "Stopped. What was finished is kept: the same command goes on from there."
    assert load_adversaries(folder / "out").parameters["attack"] == "fmn(steps=10)"


def test_the_same_command_again_says_that_the_first_is_running(folder):
    first = CommandProcess(folder, *SLOW, "-o", "out")
    deadline = time.monotonic() + 60
    while not (folder / "out" / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    code, out, err = run(folder, *QUICK, "-o", "out")
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"Error: out is in use: a run is working there \(process \d+ on this machine, since .*\)\. .*\n", err
    )
    assert first.end()[0] == 0
    assert len(load_adversaries(folder / "out")) == 6


def test_a_saved_image_goes_into_explain(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert command(monkeypatch, *QUICK, "-o", "out", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    saved = ["--adversarial", "out/0.png.safetensors", "--methods", "gradient", "-o", "explained"]
    assert command(monkeypatch, "explain", "photographs/0.png", "--model", "nets.py:Net", *saved) == 0
    out, err = capsys.readouterr()
    assert without_progress(err) == ""
    assert "The model saw class " in out


def test_labels_come_from_a_csv_file(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((f"{number}.png", 9 % 4) for number in range(5))])
    assert command(monkeypatch, *QUICK, "-o", "out", "--labels", "labels.csv") == 0
    assert without_progress(capsys.readouterr().err) == "Left out: 5.png: The labels do not say what it shows.\n"
    assert load_adversaries(folder / "out")[:].goal.classes.tolist() == [1] * 5


def test_the_list_describes_every_attack_and_parameter(capsys, monkeypatch):
    assert command(monkeypatch, "attack", "--list") == 0
    listed = " ".join(capsys.readouterr().out.split())
    for method in ATTACKS:
        assert f"{method.card.name} {method.card.title}" in listed
        for name in parameters(method):
            assert f" {name}=" in listed
    assert "epsilon=4/255 Radius of the ball, for values in [0, 1]: the largest change of a pixel" in listed
    assert "step_size=None Length of a step; a quarter of epsilon if None." in listed


def test_a_cluster_that_is_not_there_is_one_sentence(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    given = ["photographs", "--engine", "ray", "--address", "127.0.0.1:9"]
    assert command(monkeypatch, "attack", "--model", "nets.py:Net", *given) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: `--address` must be that of a running Ray cluster; got 127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`IMAGES` must be photographs or folders of them; got none. To see the attacks: --list."),
        (["nowhere"], "There is no image file or folder nowhere."),
        (["photographs", "--epsilon", "4", "--attack", "bim"], "Did you mean 4/255?"),
        (
            ["photographs", "--attack", "cv"],
            "`--attack` must be the name of a known attack; got 'cv'. Did you mean cw?",
        ),
        (["photographs", "--label", "1", "--labels", "x.csv"], "`--labels` takes the place of --label"),
        (["photographs", "--labels", "x.csv"], "x.csv: No such file"),
        (["photographs", "--labels", "nets.py"], "with the columns file and label"),
        (
            ["photographs", "--labels", "several.csv"],
            "one label for each photograph; got 2 for 0.png",
        ),
        (["photographs", "--target", "lynx"], "`--target` must be"),
        (["photographs", "--batch-size", "0"], "`--batch-size` must be at least 1"),
        (["photographs", "--engine", "spark"], "`--engine` must be one of local, ray; got spark."),
        (["photographs", "-o", ""], "Error: `--output` must be a path; got ''."),
        (["photographs", "-o", "a" * 300], "cannot be used: File name too long."),
        (["photographs", "-o", "nets.py"], "The output folder nets.py cannot be used: it is a file."),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    code = command(monkeypatch, "attack", "--model", "nets.py:Net", *arguments)
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.startswith("Error: ")
    assert message in said.err
    assert not (folder / "adversaries").exists()
