"""Every command of the guides does what it says, on small inputs; those that take long by `pytest -m nightly`."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.helpers.command_line import command
from tests.helpers.doc_pages import ROOT, own_commands
from tests.helpers.guide_workspace import MADE, without_published_networks, write_workspace
from tests.helpers.page_server import PageServer, needs_page

GUIDES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "results.md")]
"""Results has commands for data sets that nobody gets without asking for them."""
COMMANDS = sorted({shlex.join(words) for page in GUIDES for words in own_commands(page)})
OUTPUT = re.compile(r"(?:-o|--output) (\S+)")
QUICK = ("classes", "detect", "dissect", "layers", "methods", "units")


def is_quick(line):
    return line.startswith(QUICK) or line.endswith("--list")


def parameters(lines):
    marks = {True: [], False: [pytest.mark.nightly]}
    return [pytest.param(line, id=line, marks=marks[is_quick(line)]) for line in lines]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guides") / "work"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        without_published_networks(patched)
        write_workspace(folder)
    return folder


@pytest.fixture
def workspace(shared, tmp_path, monkeypatch):
    """Return what a reader of a guide has before a command; each reader has a folder of their own."""

    def prepare(line):
        without_published_networks(monkeypatch)
        monkeypatch.chdir(shared)
        for name, way in MADE.items():
            if re.search(rf"\b{name}(?![\w-])", OUTPUT.sub("", line)) and not (shared / name).exists():
                assert command(monkeypatch, *way.split(), "--quiet") == 0, way
        folder = shutil.copytree(shared, tmp_path / "work")
        monkeypatch.chdir(folder)
        return folder

    return prepare


@pytest.mark.parametrize("line", parameters(line for line in COMMANDS if line.split()[0] != "app"))
def test_a_command_of_a_guide_works(line, workspace, monkeypatch, capsys):
    folder = workspace(line)
    written = [folder / name for name in OUTPUT.findall(line)]
    for path in written:  # by another command of this test
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    code = command(monkeypatch, *shlex.split(line))
    assert code == 0, capsys.readouterr().err
    assert all(path.exists() for path in written)


@needs_page
@pytest.mark.nightly
@pytest.mark.parametrize("line", [line for line in COMMANDS if line.split()[0] == "app"])
def test_the_page_opens_as_a_guide_says(line, workspace):
    server = PageServer(workspace(line), *shlex.split(line)[1:])
    assert Path(server.runs).is_dir()
    assert server.end() == 143
