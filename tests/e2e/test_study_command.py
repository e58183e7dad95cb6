"""``whyfooled study`` and ``whyfooled figure`` as a user runs them: killed, resumed, listed, misused."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command_line import MODELS, command, killed_when, run, without_progress
from whyfooled.sources import SOURCES
from whyfooled.studies import STUDIES

COMMAND = [
    "study",
    "filtering-effect(methods=[gradient, guided])",
    "--images",
    "photographs",
    "--mean",
    "0",
    "--model",
    "nets.py:Slow",
]
SMALL = ["--shard-size", "2", "--batch-size", "1", "--workers", "1", "-o", "out"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(MODELS)
    (tmp_path / "photographs").mkdir()
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((240, 230)).save(tmp_path / "photographs" / f"{number}.png")
    return tmp_path


def shards(folder, output):
    return len(list((folder / output / "shards").glob("*.parquet")))


def kill_after(folder, enough):
    code, _ = killed_when(folder, lambda: shards(folder, "out") >= enough, signal.SIGKILL, *COMMAND, *SMALL)
    return code


@pytest.mark.nightly
def test_a_study_that_is_killed_twice_ends_in_the_same_table(folder):
    code, out, err = run(folder, *COMMAND, *SMALL[:-1], "whole")
    assert (code, without_progress(err)) == (0, "")
    assert "# The filtering effect" in out
    assert "Written: whole" in out
    for enough in (1, 3):
        code = kill_after(folder, enough)
        assert code == -signal.SIGKILL
        assert enough <= shards(folder, "out") < 5
        assert not (folder / "out" / "table.parquet").exists()
    assert run(folder, *COMMAND, *SMALL)[0] == 0
    for name in ("table.parquet", "summary.md", "summary.tex", "figure.png"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()


@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_how_to_go_on_and_gives_the_folder_free(folder, how, exit_code):
    code, err = killed_when(folder, lambda: shards(folder, "out") >= 1, how, *COMMAND, *SMALL)
    assert code == exit_code, err
    assert not list((folder / "out").glob(".*"))
    assert without_progress(err).strip() == "Stopped. Finished shards are kept: the same command goes on from there."


def test_a_finished_study_is_drawn_again(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    command(monkeypatch, *COMMAND[:-1], "nets.py:Net", "-o", "out", "--quiet")
    assert capsys.readouterr() == ("", "")
    before = (folder / "out" / "figure.png").read_bytes()
    (folder / "out" / "figure.png").unlink()
    command(monkeypatch, "figure", "out")
    assert capsys.readouterr().out == "Written: out: figure.png, figure.pdf, summary.md, summary.tex\n"
    assert (folder / "out" / "figure.png").read_bytes() == before


def test_the_list_describes_every_study_and_source(capsys, monkeypatch):
    assert command(monkeypatch, "study", "--list") == 0
    out = capsys.readouterr().out
    for study in STUDIES:
        assert f"\n  {study.card.name}  {study.card.title}" in out
    for card in SOURCES.values():
        assert card.form in out
    assert "fractions=[0.005, 0.01, 0.02" in out.replace("\n", "")


def test_methods_and_attacks_are_options_of_their_own(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    options = ["--attack", "fgsm(epsilon=0.1),bim(epsilon=0.1)", "--methods", "gradient,enhanced(norm=max)"]
    options += ["--model", "nets.py:Net"]
    code = command(
        monkeypatch, "study", "attack-outcome", "--images", "photographs", "--model", "nets.py:Net", *options
    )
    assert code == 0
    about = json.loads((folder / "runs" / "attack-outcome" / "study.json").read_text())
    assert about["study"] == (
        "attack-outcome(attacks=[fgsm(epsilon=0.1), bim(epsilon=0.1)], methods=[gradient, enhanced(norm=max)])"
    )
    assert "Written: runs/attack-outcome" in capsys.readouterr().out


NEAR = """
from torch import nn


class Near(nn.Module):
    def forward(self, x):
        return 100 * x.mean((2, 3))
"""


def test_folders_of_several_attacks_are_compared_on_the_same_photographs(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "near.py").write_text(NEAR)
    model = ["--model", "near.py:Near", "--quiet"]
    for name, attack in (("first", "fgsm(epsilon=0.2)"), ("second", "fmn(steps=10)")):
        assert command(monkeypatch, "attack", "photographs", "--attack", attack, "-o", name, *model) == 0
    images = ["--images", "first", "--images", "second"]
    assert command(monkeypatch, "study", "effect-mix(cell=56)", *images, "-o", "out", *model) == 0
    about = json.loads((folder / "out" / "study.json").read_text())
    assert about["attacked_with"] == "fgsm(epsilon=0.2), fmn(steps=10)"
    assert [row["attack"] for row in about["results"][0]["rows"]] == ["fgsm(epsilon=0.2)", "fmn(steps=10)"]
    capsys.readouterr()
    assert command(monkeypatch, "study", "recovery", *images, *model) == 2
    assert "must be adversarial images of one attack for recovery" in capsys.readouterr().err
    assert command(monkeypatch, "study", "effect-mix", *images, "--attack", "bim", *model) == 2
    assert "`--attack` has no place here: the images are saved adversarial ones" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study"], "`NAME` must be the name of a study; got none. To see them: --list."),
        (["study", "recovery"], "`--images` must say where the images come from; got nothing."),
        (["study", "recover", "--images", "photographs"], "`study` must be the name of a known study; got 'recover'"),
        (["study", "recovery", "--images", "nowhere"], "There is no image file or folder nowhere."),
        (["study", "recovery", "--images", "empty"], "No photographs"),
        (["study", "recovery", "--images", "photographs", "--attack", "bam"], "`--attack` must be the name of a known"),
        (["study", "recovery(random_orders=0)", "--images", "photographs"], "`random_orders` must be at least 1"),
        (
            ["study", "filtering-effect", "--images", "photographs", "--attack", "bim"],
            "`--attack` must be left out with",
        ),
        (["study", "recovery", "--images", "imagenet:nowhere"], "There is no folder nowhere."),
        (["study", "recovery", "--images", "photographs", "--labels", "labels.csv"], "`--labels` must say what every"),
        (["study", "recovery", "--images", "photographs", "-o", "nets.py"], "nets.py"),
        (["study", "recovery", "--images", "photographs", "-o", ""], "`--output` must be a path; got ''."),
        (["study", "recovery", "--images", "photographs", "-o", "a" * 300], "cannot be used: File name too long."),
        (
            ["study", "recovery", "--images", "photographs", "--engine", "ray", "--address", "127.0.0.1:9"],
            "`--address` must be that of a running Ray cluster; got 127.0.0.1:9",
        ),
        (["study", "recovery", "--images", "photographs", "--attack", "bim,fgsm"], "`--attack` must be one attack"),
        (["study", "recovery", "--images", ""], "`--images` must say where the images come from; got ''"),
        (["study", "recovery", "--images", "photographs", "-o", "photographs"], "photographs holds other files"),
        (["figure", "photographs"], "photographs holds no study"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(folder, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "labels.csv").write_text("file,label\n0.png,1\n")
    own = ["--model", "nets.py:Net"] if "--images" in arguments else []
    assert command(monkeypatch, *arguments, *own) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert said in err
    assert err.count("\n") == 1


def test_an_unfinished_study_is_not_drawn(folder, capsys, monkeypatch):
    killed_when(folder, lambda: shards(folder, "out") >= 1, signal.SIGKILL, *COMMAND, *SMALL)
    monkeypatch.chdir(folder)
    assert command(monkeypatch, "figure", "out") == 2
    assert "The study in out is not finished. Run the same command again" in capsys.readouterr().err
