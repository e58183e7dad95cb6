"""What a model's classes are called is asked once, and of no file of this machine."""

import subprocess
import sys

import pytest

from whyfooled.app import classes
from whyfooled.app.classes import Classes
from whyfooled.app.keeper import Keeper
from whyfooled.app.request import Started

STARTED = Started("mine.py:Net", ("--mean", "0.5"), models=("lite0",), dissection=("--units", "folder"))


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Let each model have the classes cat and dog, but for one that cannot be loaded; note what is asked."""
    heard = []
    script = "import sys; print('cat\\ndog'); sys.exit('timm:broken' in sys.argv)"

    class Scripted(subprocess.Popen):
        def __init__(self, command, **more):
            heard.append(command[3:])
            super().__init__([sys.executable, "-S", "-c", script, *command], **more)

    keeper = Keeper(tmp_path / "uploads", tmp_path)
    monkeypatch.setattr(classes.subprocess, "Popen", Scripted)
    yield Classes(STARTED, keeper), heard
    keeper.close()


def test_names_are_asked_once_for_each_model(asked):
    found, heard = asked
    for _ in range(2):
        assert found.find("mine.py:Net") == ("cat", "dog")
        assert found.find("lite0") == ("cat", "dog")
    assert heard == [
        ["classes", "--model", "mine.py:Net", "--mean", "0.5"],
        ["classes", "--model", "lite0", "--weights", "random"],
    ]


def test_a_model_without_names_and_one_that_may_not_be_chosen_have_none(asked):
    found, heard = asked
    assert found.find("timm:broken") == ()
    assert len(heard) == 1
    assert found.find("/etc/passwd.py:f") == found.find("nonsense") == found.find("a\nb") == ()
    assert len(heard) == 1
