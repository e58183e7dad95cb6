"""Runs in the output folder are found, and no file of another place is."""

import json
import os

import pytest

from whyfooled.app.parts import PARTS, find_parts, show_part
from whyfooled.app.runs import delete_run, find_file, find_run, list_runs, name_run
from whyfooled.errors import ImageError


@pytest.fixture
def output(tmp_path):
    account = {
        "outcome": "fooled",
        "true": {"name": "cat"},
        "wrong": {"name": "dog"},
        "parameters": {"command": "whyfooled explain"},
    }
    for name, text, written in (("old", json.dumps(account), 1000), ("new", "{broken", 2000), ("odd", "[1]", 1500)):
        folder = tmp_path / "runs" / name
        (folder / "pictures").mkdir(parents=True)
        (folder / "explanation.json").write_text(text)
        (folder / "pictures" / "clean.png").write_bytes(b"")
        (folder / "report.html").write_text("page")
        os.utime(folder / "report.html", (written, written))
    (tmp_path / "runs" / "no report").mkdir()
    (tmp_path / "runs" / "file").touch()
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "runs"


def test_runs_are_listed_newest_first_whatever_state_they_are_in(output):
    runs = list_runs(output)
    assert [(run.name, run.title) for run in runs] == [("new", "new"), ("odd", "odd"), ("old", "cat, taken for dog")]
    assert [run.command for run in runs] == ["", "", "whyfooled explain"]
    assert runs[0].preview == "clean.png"
    assert list_runs(output / "nowhere") == []


@pytest.mark.parametrize(
    ("seen", "title"),
    [("cat", "cat: not fooled"), ("cow", "cat, taken for cow, not for dog"), ("dog", "cat: not fooled")],
)
def test_a_run_whose_goal_was_not_reached_says_what_became_of_it(output, seen, title):
    account = {
        "outcome": "failed",
        "true": {"name": "cat"},
        "wrong": {"name": "dog"},
        "predictions": {"adversarial": [{"name": seen}]},
        "parameters": {},
    }
    (output / "odd" / "explanation.json").write_text(json.dumps(account))
    assert find_run(output, "odd").title == title


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("old", "../../secret.txt"),
        ("old", "/etc/passwd"),
        ("old", "../new/report.html"),
        ("old", "link/secret.txt"),
        ("old", "pictures"),
        ("old", "a\0b"),
        ("old", ".hidden"),
        ("..", "secret.txt"),
        ("", "secret.txt"),
        (".", "report.html"),
        ("old/..", "old/report.html"),
        ("outside", "secret.txt"),
        ("x" * 5000, "report.html"),
    ],
)
def test_no_file_outside_a_run_is_given(output, run, name):
    (output / "old" / "link").symlink_to(output.parent)
    (output / "old" / ".hidden").touch()
    (output / "outside").symlink_to(output.parent)
    with pytest.raises(ImageError, match="There is no file"):
        find_file(output, run, name)


def test_files_of_a_run_are_given(output):
    assert find_file(output, "old", "pictures/clean.png").samefile(output / "old" / "pictures" / "clean.png")


def test_a_run_is_deleted_whole_and_nothing_else(output):
    (output / "link").symlink_to(output.parent)
    for name in ("", ".", "..", "link", "no report", "old/..", "../runs"):
        delete_run(output, name)
    assert sorted(path.name for path in output.iterdir()) == ["file", "link", "new", "no report", "odd", "old"]
    delete_run(output, "old")
    assert sorted(path.name for path in output.iterdir()) == ["file", "link", "new", "no report", "odd"]


def test_names_of_runs_are_new_and_plain(output):
    first = name_run(output, "/t/my cat's <photo>.jpg")
    assert first.startswith("my-cat-s-photo-20")
    assert name_run(output, "/t/my cat's <photo>.jpg", {first}) in (f"{first}-2", name_run(output, "my cat's <photo>"))
    assert name_run(output, "/t/....").startswith("photograph-")
    assert name_run(output, None).startswith("example-")


def test_parts_are_those_of_the_templates():
    from importlib import resources

    templates = resources.files("whyfooled.explanations.report").joinpath("templates")
    text = "".join(template.read_text() for template in templates.iterdir() if template.name.endswith(".j2"))
    assert find_parts(text) == {part.name for part in PARTS}
    assert find_parts("<section><h2>an old report</h2></section>") == frozenset()
    assert text.count("<section>") == 0


def test_a_part_hides_the_others():
    page = "<html><head></head><body></body></html>"
    assert 'main > :not([data-part="units"]) { display:none }' in show_part(page, "units")
    assert 'main > [data-part]:not([data-part="verdict"]) { display:none }' in show_part(page, "verdict")
