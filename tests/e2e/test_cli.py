"""The command line as a user runs it: in a process of its own, every mistake one sentence and exit code 2."""

import html
import json
import os
import pickle
import pty
import re
import select
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.command_line import MODELS, command, killed_when, run, without_progress
from tests.helpers.forked import CommandProcess
from whyfooled.cli._app import terminable


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "nets.py").write_text(MODELS)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((300, 260)).save(folder / "cat.jpg")
    (folder / "text.jpg").write_text("not an image")
    (folder / "cut.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:2000])
    Image.new("1", (20_000, 10_000)).save(folder / "huge.png")
    save_file({"adversarial": torch.rand(3, 32, 32)}, folder / "small.safetensors")
    save_file({"wrong": torch.rand(3)}, folder / "misfit.safetensors")
    (folder / "pickle.pt").write_bytes(pickle.dumps({"a": os.getcwd}))
    (folder / "file").write_text("mine")
    (folder / "empty").mkdir()
    return folder


def explain(folder, output, *arguments, model="nets.py:Net"):
    given = ["--model", model, "--mean", "0", "--attack", "bim(epsilon=0.1)", "-o", str(output), *arguments]
    return run(folder, "explain", "cat.jpg", *given)


@pytest.fixture(scope="module")
def explained(folder, tmp_path_factory):
    """Explain the photograph; return where the report is, what was printed, and what was said beside it."""
    place = tmp_path_factory.mktemp("explained") / "out"
    code, out, err = explain(folder, place)
    assert code == 0, err
    return place, out, err


def test_help_is_quick_and_imports_nothing_heavy(folder):
    code = (
        "import sys, whyfooled.cli; sys.argv = ['whyfooled', '--help']\n"
        "try: whyfooled.cli.main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert "explain" in found.stdout


def test_version_and_methods(folder):
    assert run(folder, "--version")[1].startswith("whyfooled ")
    listed = run(folder, "methods")[1]
    for name in ("fgsm", "bim", "pgd", "cw", "gradient", "guided", "enhanced", "gradcam"):
        assert name in listed
    assert "real-time-saliency  Real-time image saliency" in listed


def test_methods_shows_one_by_its_name_whatever_its_kind(folder):
    code, out, _ = run(folder, "methods", "ead")
    assert (code, out.count("source:")) == (0, 1)
    assert "beta=0.1" in out
    assert "The weight" in out
    assert run(folder, "methods", "recovery")[1].startswith("Studies")
    assert "is not offered" in run(folder, "methods", "real-time-saliency")[1]
    code, _, error = run(folder, "methods", "eadd")
    assert code == 2
    assert "`NAME` must be the name of a known method; got 'eadd'. Did you mean ead" in error


def test_classes_are_listed_by_their_names(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert command(monkeypatch, "classes") == 0
    names = capsys.readouterr().out.splitlines()
    assert (len(names), names[504]) == (1000, "coffee mug")
    (folder / "four.txt").write_text("a\nb\nc\nd e\n")
    assert command(monkeypatch, "classes", "--model", "nets.py:Tiny", "--class-names", "four.txt") == 0
    assert capsys.readouterr() == ("a\nb\nc\nd e\n", "")
    assert command(monkeypatch, "classes", "--model", "nets.py:Tiny") == 0
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("nets.py:Tiny does not say what its classes are called")


def test_it_writes_the_report_and_prints_the_account(folder, explained, tmp_path):
    place, out, _ = explained
    assert "The model saw class " in out
    assert "Report: " in out
    numbers = json.loads((place / "explanation.json").read_text())
    assert numbers["parameters"]["model"] == "nets.py:Net"
    assert numbers["parameters"]["image"] == "cat.jpg"
    assert "starting and loading the model" in numbers["seconds"]
    assert "threads" not in numbers["parameters"]
    assert set(numbers["parameters"]["digests"]) == {"clean image", "model"}
    # The whole command, but for the folders of files.
    command = f"whyfooled explain cat.jpg --model nets.py:Net --mean 0 --attack 'bim(epsilon=0.1)' -o {place.name}"
    assert numbers["parameters"]["command"] == command
    assert f"<code>{command}</code>" in html.unescape((place / "report.html").read_text())
    assert (place / "report.html").stat().st_mode & 0o044 == 0o044
    assert explain(folder, tmp_path / "again", "--quiet") == (0, "", "")
    other = json.loads((tmp_path / "again" / "explanation.json").read_text())
    assert other["predictions"] == numbers["predictions"]


def test_figures_are_written_for_a_paper_and_regions_are_named(folder, tmp_path):
    labels = np.zeros((260, 300), dtype=np.uint8)
    labels[:, 150:] = 1
    Image.fromarray(labels).save(folder / "mask.png")
    (folder / "names.txt").write_text("wall\ncat\n")
    given = ["--regions", "mask.png", "--names", "names.txt", "--attack-in", "cat", "--figures", "svg"]
    code, out, err = explain(folder, tmp_path / "out", *given)
    assert code == 0, err
    assert "100 % of the perturbation's squared length lies on cat; by chance it would be 50 %" in out
    pictures, figures = (
        {path.stem for path in (tmp_path / "out" / name).iterdir()} for name in ("pictures", "figures")
    )
    assert pictures == figures
    assert {"named", "effect", "recovery-zero", "regions-paper", "gradcam-difference-true"} <= figures
    # A report without figures takes the place of one with them.
    assert explain(folder, tmp_path / "out", "--quiet") == (0, "", "")
    assert not (tmp_path / "out" / "figures").exists()
    assert not (tmp_path / "out" / "named.csv").exists()


def test_an_example_made_elsewhere_is_taken_back_in(folder, explained, tmp_path):
    place, _, _ = explained
    tensors = ["--adversarial", str(place / "tensors.safetensors")]
    code, _, err = run(folder, "explain", "cat.jpg", "--model", "nets.py:Net", *tensors, "-o", str(tmp_path / "two"))
    assert code == 0, err
    one, two = (json.loads((output / "explanation.json").read_text()) for output in (place, tmp_path / "two"))
    assert one["headline"] == two["headline"]


MISTAKES = {
    "missing file": (["explain", "none.jpg"], "There is no image file none.jpg"),
    "truncated file": (["explain", "cut.jpg"], "cut.jpg cannot be read as an image"),
    "text file": (["explain", "text.jpg"], "text.jpg is not an image"),
    "folder without photographs": (["explain", "empty"], "No photographs (.jpg, .jpeg, .png"),
    "a missing one of several": (["explain", "cat.jpg", "none.jpg"], "There is no image file or folder none.jpg"),
    "200 megapixels": (["explain", "huge.png"], "100 megapixels"),
    "unknown model": (["explain", "cat.jpg", "--model", "lite9"], "Did you mean lite"),
    "unknown torchvision model": (["explain", "cat.jpg", "--model", "torchvision:vg16"], "Did you mean vgg16"),
    "model of a library without its name": (
        ["explain", "cat.jpg", "--model", "vgg16"],
        "Did you mean torchvision:vgg16",
    ),
    "missing model file": (["explain", "cat.jpg", "--model", "none.py:Net"], "no file none.py"),
    "missing factory": (["explain", "cat.jpg", "--model", "nets.py:Nett"], "Did you mean Net"),
    "unknown method": (["explain", "cat.jpg", "--methods", "guidde"], "Did you mean guided"),
    "unknown attack": (["explain", "cat.jpg", "--attack", "cww"], "Did you mean cw"),
    "unknown class": (["explain", "cat.jpg", "--target", "tiger sharc"], "Did you mean tiger shark"),
    "unknown label": (["explain", "cat.jpg", "--label", "expresso"], "Did you mean espresso"),
    "class out of range": (["explain", "cat.jpg", "--target", "1000"], "from 0 to 999"),
    "adversarial of another size": (["explain", "cat.jpg", "--adversarial", "small.safetensors"], "(3, 32, 32)"),
    "weights that do not fit": (["explain", "cat.jpg", "--weights", "misfit.safetensors"], "do not fit"),
    "pickle as weights": (["explain", "cat.jpg", "--weights", "pickle.pt"], "was not loaded"),
    "missing weights": (["explain", "cat.jpg", "--weights", "none.pt"], "no weights file"),
    "NaN logits": (["explain", "cat.jpg", "--model", "nets.py:Broken"], "finite logits"),
    "tuple for logits": (["explain", "cat.jpg", "--model", "nets.py:Pair"], "got tuple"),
    "half precision": (
        ["explain", "cat.jpg", "--model", "nets.py:Half"],
        "on the command line --float32",
    ),
    "a model that ends": (["explain", "cat.jpg", "--model", "nets.py:Quitting"], "it called sys.exit(3)"),
    "output is a file": (["explain", "cat.jpg", "-o", "file"], "file is a file"),
    "output below a file": (["explain", "cat.jpg", "-o", "file/out"], "cannot be written"),
    "epsilon of 4": (["explain", "cat.jpg", "--attack", "bim", "--epsilon", "4"], "Did you mean 4/255"),
    "epsilon of no number": (["explain", "cat.jpg", "--attack", "bim", "--epsilon", "4/x"], "fraction such as 4/255"),
    "epsilon for an attack without": (["explain", "cat.jpg", "--epsilon", "4/255"], "must be left out with cw"),
    "attack and adversarial": (
        ["explain", "cat.jpg", "--attack", "bim", "--adversarial", "x.npy"],
        "excludes --attack",
    ),
    "figures of no format": (["explain", "cat.jpg", "--figures", "gif"], "must be one of pdf, svg, png; got gif"),
    "names of no regions": (["explain", "cat.jpg", "--names", "names.txt"], "is about the regions of --regions"),
    "attack in no region": (["explain", "cat.jpg", "--attack-in", "cup"], "is about the regions of --regions"),
    "unknown device": (["explain", "cat.jpg", "--device", "gpu"], "must be a device"),
    "unknown command": (["explian"], "explain"),
    "unknown option": (["explain", "--modle", "lite0"], "--model"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_and_exit_code_2(folder, mistake, monkeypatch, capsys):
    arguments, message = MISTAKES[mistake]
    before = {path.name for path in folder.iterdir()}
    monkeypatch.chdir(folder)
    code = command(monkeypatch, *arguments)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert {path.name for path in folder.iterdir()} - before <= {"__pycache__"}
    if mistake not in ("unknown command", "unknown option"):
        assert err.startswith("Error: ")
        assert len(err.strip().splitlines()) == 1


def test_a_mistake_in_a_process_of_its_own_ends_the_same_way(folder):
    # Without the shape checks of the tests, and with nothing imported before.
    mistake = [sys.executable, "-m", "whyfooled", "explain", "cat.jpg", "--methods", "enhanced(norm=sum)"]
    found = subprocess.run(mistake, cwd=folder, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert found.stderr == "Error: `norm` must be one of channel, energy, max; got sum.\n"


def test_a_folder_that_cannot_be_written_is_found_before_the_work(folder):
    code, _, err = run(folder, "explain", "cat.jpg", "-o", "/proc/whyfooled")
    assert code == 2
    assert "cannot be written" in err


def test_a_softmax_at_the_end_changes_nothing(folder, explained, tmp_path):
    code, out, err = explain(folder, tmp_path / "out", model="nets.py:Probabilities")
    assert code == 0, err
    assert "probabilities" not in err
    assert out.replace(str(tmp_path / "out"), "") == explained[1].replace(str(explained[0]), "")


def test_an_attack_that_fails_is_explained(folder, tmp_path):
    code, out, err = explain(folder, tmp_path / "out", "--epsilon", "1/100000")
    assert code == 0, err
    assert "The attack failed" in out
    assert (tmp_path / "out" / "report.html").exists()


def test_an_image_that_is_wrong_already_is_explained(folder, explained, tmp_path):
    seen = int(re.search(r"The model saw class (\d)", explained[1])[1])
    code, out, err = explain(folder, tmp_path / "two", "--label", str((seen + 1) % 4))
    assert code == 0, err
    assert "nothing to fool" in out


def test_a_terminal_sees_a_bar_for_every_stage_and_a_file_a_line(folder, explained, tmp_path):
    ours, theirs = pty.openpty()
    given = ["--model", "nets.py:Net", "--mean", "0", "--attack", "bim(epsilon=0.1)", "-o", str(tmp_path / "out")]
    process = CommandProcess(folder, "explain", "cat.jpg", *given, terminal=os.ttyname(theirs))
    seen, running = b"", True
    # A terminal has no end as long as this process holds it: what is left when the command has ended is all there is.
    while select.select([ours], [], [], 0.1)[0] or running:
        while select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 4096)
        running = process.is_running()
    os.close(ours)
    os.close(theirs)
    assert process.end()[0] == 0
    for stage in (b"loading", b"attack", b"saliency maps", b"recovery"):
        assert stage in seen
    said = [line.partition(": ")[0] for line in explained[2].splitlines()]
    assert said == ["loading", "attack", "saliency maps", "regions", "recovery", "map checks"]
    assert without_progress(explained[2]) == ""


@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing_behind(folder, tmp_path, how, exit_code):
    started = folder / "started"
    (folder / "marks.py").write_text(
        MODELS + "\n\nclass Mark(Slow):\n    def forward(self, x):\n"
        f"        open({str(started)!r}, 'w').close()\n        return super().forward(x)\n"
    )
    given = [str(folder / "cat.jpg"), "--model", f"{folder}/marks.py:Mark", "-o", "out"]
    code, errors = killed_when(tmp_path, lambda: started.exists() and any(tmp_path.iterdir()), how, "explain", *given)
    assert code == exit_code, errors
    assert "Stopped. Nothing was written." in errors
    assert "Traceback" not in errors
    assert not any(tmp_path.iterdir())


class Deleted:
    """Calls a function while it is deleted, or by a weak reference to it afterwards."""

    def __init__(self, call, by_reference):
        self.call = None if by_reference else call
        self.reference = weakref.ref(self, lambda _: call()) if by_reference else None

    def __del__(self):
        if self.call:
            self.call()


@pytest.mark.parametrize("by_reference", [False, True])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_end_is_not_forgotten_where_python_forgets_what_is_raised(how, by_reference):
    def ask():
        os.kill(os.getpid(), how)
        time.sleep(0.01)

    def work():
        held = [Deleted(ask, by_reference)]
        reference = held[0].reference
        held.clear()
        for _ in range(100):
            time.sleep(0.05)
        return reference

    usual = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), terminable():
        work()
    assert sys.unraisablehook is usual
