"""Explaining many photographs: a report each, an index, going on after a stop, and what fails."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.models import small
from whyfooled import BIM, Classifier, Gradient, GuidedBackprop, explain, explain_files
from whyfooled.errors import ImageError, MethodError, OutputError, ParameterError
from whyfooled.explanations import of_files
from whyfooled.explanations.report.index import IndexEntry, write_index, write_index_sentences
from whyfooled.explanations.report.recovery import Standing
from whyfooled.images import read_photograph
from whyfooled.tensors.randomness import choose

ATTACK, METHODS = BIM(epsilon=0.3, steps=3), [Gradient()]
TWO = ["a/two #2.png", "three.png"]
NAMES = ["a/one.png", "a/two #2.png", "b/one.png", "three.png"]


def photograph(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photographs(tmp_path):
    return write_photographs(tmp_path / "photographs")


def write_photographs(folder, names=NAMES):
    for number, name in enumerate(names):
        photograph(folder / name, number)
    return folder


def run(photographs, folder, **more):
    return explain_files(small(), [photographs], folder, **{"attack": ATTACK, "methods": METHODS, **more})


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Explain two photographs; return them, the folder and the table. Not to be changed."""
    place = tmp_path_factory.mktemp("real")
    photographs = write_photographs(place / "photographs", TWO)
    return photographs, place / "out", run(photographs, place / "out")


@pytest.fixture(scope="module")
def explanation():
    return explain(small(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4)), attack=ATTACK)


@pytest.fixture
def quick(monkeypatch, explanation):
    """Let every photograph that can be read have the same explanation, in a report of two files."""

    def explain_quickly(classifier, image, **options):
        read_photograph(image)
        options["progress"](0, 1, "attack")
        return explanation

    def write_quickly(explained, numbers, folder, figures):
        (folder / "report.html").write_text("the report")
        (folder / "pictures").mkdir()
        (folder / "pictures" / "delta.png").write_text("a picture")

    monkeypatch.setattr(of_files, "explain", explain_quickly)
    monkeypatch.setattr(of_files, "write_files", write_quickly)


@pytest.fixture
def finished(quick, photographs, tmp_path):
    """Return photographs, their finished reports and the table."""
    return photographs, tmp_path / "out", run(photographs, tmp_path / "out")


def finish_again(photographs, folder, **more):
    """Run once more; return the table, how many were there already, and the photographs that were explained."""
    told = []
    table = run(photographs, folder, report=told.append, **more)
    return table, told[0].done, [standing.photograph for standing in told if standing.said]


def numbers_of(report):
    """Return the numbers of a report but for what differs from run to run."""
    numbers = json.loads(report.read_text())
    numbers["parameters"].pop("image")
    return {key: value for key, value in numbers.items() if not key.startswith("seconds")}


def test_a_report_of_many_is_the_one_that_a_photograph_has_alone(real, tmp_path):
    photographs, folder, table = real
    for name in TWO[1:]:
        alone = explain(small(), photographs / name, attack=ATTACK, methods=METHODS).save(tmp_path / name)
        assert numbers_of(folder / name / "explanation.json") == numbers_of(alone / "explanation.json")
        written = {path.relative_to(alone).as_posix() for path in alone.rglob("*")}
        assert {path.relative_to(folder / name).as_posix() for path in (folder / name).rglob("*")} == {
            *written,
            "entry.json",
        }
    assert json.loads((folder / TWO[0] / "explanation.json").read_text())["parameters"]["image"] == TWO[0]
    assert table["file"].tolist() == TWO


def test_a_row_says_what_its_report_says(real):
    _, folder, table = real
    read = pd.read_csv(folder / "index.csv", keep_default_na=False)
    assert read["file"].tolist() == TWO
    for _, row in read.iterrows():
        numbers = json.loads((folder / row["report"]).with_name("explanation.json").read_text())
        before, after = (numbers["predictions"][image][0] for image in ("clean", "adversarial"))
        assert (row["clean_prediction"], row["prediction"]) == (before["index"], after["index"])
        assert row["probability"] == after["probability"]
        assert [row[norm] for norm in ("l0", "l1", "l2", "linf")] == [
            numbers["perturbation"][norm] for norm in ("l0", "l1", "l2", "linf")
        ]
        assert row["random_changes_fooling"] == numbers["fooled_by_chance"]["fooled"]
        page = (folder / row["report"]).read_text()
        assert [row["happened"], row["trusted"]] == re.findall(r'<p class="answer">([^<]*)</p>', page)
        if row["shares_right"] != "":
            assert f"at {row['shares_right']} of {row['shares']} shares" in page
    assert str(table["l0"].dtype) == "Int64"


def test_the_page_shows_every_row_and_links_its_report(real):
    page = (real[1] / "index.html").read_text()
    assert re.findall(r'<a href="([^"]*report.html)">([^<]*)</a>', page) == [
        (f"{name.replace(' ', '%20').replace('#', '%23')}/report.html", name) for name in TWO
    ]
    assert page.count('alt="three.png before"') == page.count('alt="three.png after"') == 1
    assert "So far" not in page


class StopError(BaseException):
    """As Ctrl-C."""


def test_a_run_that_is_stopped_goes_on_where_it_was(quick, photographs, tmp_path):
    def stop(standing):
        if standing.done == 2 and standing.doing:
            raise StopError

    with pytest.raises(StopError):
        run(photographs, tmp_path / "out", report=stop)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "So far 2 of 4: the run is not finished. The same command goes on from here." in page
    assert not list((tmp_path / "out").glob(".*"))
    table, already, explained = finish_again(photographs, tmp_path / "out")
    assert (already, explained) == (2, NAMES[2:])
    assert len(table) == 4
    assert "So far" not in (tmp_path / "out" / "index.html").read_text()


def test_a_finished_run_has_nothing_left_to_do_and_writes_the_same_index(finished):
    photographs, folder, first = finished
    before = {name: (folder / name).read_bytes() for name in ("index.html", "index.csv")}
    table, already, explained = finish_again(photographs, folder)
    assert (already, explained) == (4, [])
    pd.testing.assert_frame_equal(table, first)
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("part", ["report.html", "pictures/delta.png", "entry.json"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_what_is_missing_or_damaged_is_made_again_and_nothing_else(finished, part, how):
    photographs, folder, _ = finished
    path = folder / "b/one.png" / part
    before = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(before + b"x")
    _, already, explained = finish_again(photographs, folder)
    assert (already, explained) == (3, ["b/one.png"])
    assert path.read_bytes() == before


def test_another_photograph_under_the_same_name_is_explained(finished):
    photograph(finished[0] / "three.png", 77)
    _, already, explained = finish_again(*finished[:2])
    assert (already, explained) == (3, ["three.png"])


def test_a_photograph_that_fails_is_a_row_with_its_reason_and_the_rest_goes_on(quick, photographs, tmp_path):
    (photographs / "b" / "one.png").write_text("not an image")
    folder = tmp_path / "out"
    table, _, explained = finish_again(photographs, folder)
    assert explained == NAMES
    reason = "one.png is not an image of a known format (JPEG, PNG, WebP, BMP, TIFF)."
    assert table["error"].tolist() == ["", "", reason, ""]
    assert pd.read_csv(folder / "index.csv")["error"].fillna("").tolist() == table["error"].tolist()
    assert f'<td class="across" colspan="8">{reason}</td>' in (folder / "index.html").read_text()
    assert "Could not be explained: 1; the table says why." in (folder / "index.html").read_text()
    # It is not tried again until it is another file.
    assert finish_again(photographs, folder)[1:] == (4, [])
    photograph(photographs / "b" / "one.png", 2)
    table, *rest = finish_again(photographs, folder)
    assert rest == [3, ["b/one.png"]]
    assert table["error"].tolist() == [""] * 4


def test_a_report_of_what_cannot_be_read_any_more_goes(finished):
    (finished[0] / "three.png").write_text("not an image")
    table, already, _ = finish_again(*finished[:2])
    assert already == 3
    assert table["error"].iloc[3].startswith("three.png is not an image")
    assert [path.name for path in (finished[1] / "three.png").iterdir()] == ["entry.json"]


def test_a_method_that_fails_on_one_photograph_alone_does_not_end_the_run(quick, photographs, tmp_path, monkeypatch):
    explain_quickly = of_files.explain

    def fail_on_one(classifier, image, **options):
        if image.parent.name == "b":
            raise MethodError("Not on this one.")
        return explain_quickly(classifier, image, **options)

    monkeypatch.setattr(of_files, "explain", fail_on_one)
    assert run(photographs, tmp_path / "out")["error"].tolist() == ["", "", "Not on this one.", ""]


def test_names_that_no_folder_can_have_are_rows_with_their_reasons(quick, tmp_path):
    names = [os.fsdecode(b"\xff.png"), "index.html", "one.png"]
    content = photograph(tmp_path / "one.png", 0).read_bytes()
    photographs = [tmp_path / name for name in names]
    for path in photographs:
        path.write_bytes(content)
    table = explain_files(small(), photographs, tmp_path / "out", attack=ATTACK, methods=METHODS).set_index("file")
    assert table["error"].to_dict() == {
        "index.html": "Its name is that of a file of the index. Rename it.",
        "one.png": "",
        "\\udcff.png": "Its name is not text in UTF-8, so no file can be named after it. Rename it.",
    }


def test_none_that_can_be_explained_is_an_error(tmp_path):
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_text("not an image")
    with pytest.raises(ImageError, match=r"^None of the 2 photographs could be explained\. one\.png: one\.png is not"):
        run(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (
            {"attack": BIM(epsilon=0.2, steps=3)},
            "its attack was bim(epsilon=0.3, steps=3), now it is bim(epsilon=0.2, ste",
        ),
        ({"methods": None}, "its methods was ['gradient'], now it is None"),
        ({"seed": 1}, "its seed was 0, now it is 1"),
        ({"figures": "svg"}, "its figures was None, now it is svg"),
        ({"count": 2}, "its count was None, now it is 2"),
        ({"about": {"weights": "mine"}}, "its weights was None, now it is mine"),
    ],
)
def test_the_folder_of_another_run_is_refused(finished, more, difference):
    before = {path: path.read_bytes() for path in finished[1].rglob("*") if path.is_file()}
    with pytest.raises(OutputError) as refused:
        run(*finished[:2], **more)
    assert f"holds another run: {difference}" in str(refused.value)
    assert {path: path.read_bytes() for path in finished[1].rglob("*") if path.is_file()} == before


def test_reports_below_the_photographs_are_no_photographs(quick, photographs):
    for _ in range(2):
        assert run(photographs, photographs / "out", count=1)["file"].isin(NAMES).all()
    assert finish_again(photographs, photographs / "out", count=1)[1:] == (1, [])


def test_the_photographs_own_folder_cannot_be_the_output(photographs):
    before = sorted(photographs.rglob("*"))
    with pytest.raises(ImageError, match=r"^No photographs were found but those in the output folder"):
        run(photographs, photographs)
    with pytest.raises(OutputError, match=r"the report of one\.png would go to a folder of that name"):
        run(photographs / "b" / "one.png", photographs / "b")
    assert sorted(photographs.rglob("*")) == before


def test_some_are_drawn_at_random(quick, photographs, tmp_path):
    table = run(photographs, tmp_path / "out", count=2, seed=3)
    assert table["file"].tolist() == [NAMES[index] for index in choose(4, 2, 3)]


def linear():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).eval(), size=(16, 16))


@dataclass(frozen=True)
class Counted:
    """An attack that is counted."""

    calls: ClassVar[list[int]] = []

    def __call__(self, classifier, images, goal):
        self.calls.append(len(images))
        return (images + 0.2).clamp(0, 1)


def test_a_method_that_does_not_work_on_the_model_ends_the_run_before_any_attack(photographs, tmp_path):
    Counted.calls.clear()
    with pytest.raises(MethodError, match="This method needs a network with"):
        explain_files(linear(), [photographs], tmp_path / "out", attack=Counted(), methods=[GuidedBackprop()])
    assert Counted.calls == []


def test_a_class_that_does_not_exist_is_said_before_anything_is_written(photographs, tmp_path):
    for name in ("label", "target"):
        with pytest.raises(ParameterError, match=f"^`{name}` must be"):
            run(photographs, tmp_path / "out", **{name: 99})
    assert not (tmp_path / "out").exists()


def row(outcome="fooled", standing=None, fooling=0, l2=1.0):
    found = {"outcome": outcome, "l2": l2, "linf": l2 / 255, "random_changes": 19, "random_changes_fooling": fooling}
    judged = {"standing": standing, "random_orders": 5, "shifted_maps": 19}
    return found | (judged if standing else {})


def test_the_sentences_count_right_and_say_what_chance_gives():
    rows = [
        row("fooled", "better", 2, 1.0),
        row("fooled", "no better", 0, 3.0),
        row("fooled", "better", 1, 2.0),
        row("fooled", "worse", 0, 2.5),
        row("failed"),
        {"outcome": "already wrong", "standing": "better", "random_orders": 5, "shifted_maps": 19},
        {"file": "x", "error": "No image."},
    ]
    # Five maps are judged, each better than its 24 controls once in 25 times: 5 / 25.
    assert write_index_sentences(rows) == [
        "The model is fooled on 4 of 5 photographs; of 95 random changes of the same lengths, 3 would be enough.",
        "The changes that fool it have an ℓ2 of 2.25 and an ℓ∞ of 2.25/255 (medians).",
        "Of 5 evidence maps that can be judged, 3 are better than chance, 1 no better and 1 worse; maps that say "
        "nothing would be better 0.2 times, and worse as often, at most.",
        "Taken for a wrong class already, and not attacked: 1.",
        "Could not be explained: 1; the table says why.",
    ]


def test_maps_of_which_an_image_cannot_tell_are_counted_apart():
    rows = [row(standing=standing) for standing in ("cannot tell", "better", "cannot tell")]
    assert write_index_sentences(rows)[2] == (
        "Of 1 evidence map that can be judged (2 more cannot), 1 is better than chance, 0 no better and 0 worse; maps "
        "that say nothing would be better 0.1 times, and worse as often, at most."
    )
    assert write_index_sentences(rows[:1])[2].startswith(
        "Of 0 evidence maps that can be judged (1 more cannot), 0 are "
    )


def test_photographs_are_sorted_by_how_far_their_map_can_be_trusted(real):
    some = real[2].iloc[0].to_dict() | {
        "error": "",
        "shares": 7,
        "shares_right_random": 2.0,
        "shares_right_shifted": 2.0,
    }
    right = {"worse": 1, "no better": 3, "better": 6, "cannot tell": 7}
    rows = [some | {"standing": one, "trusted": one, "shares_right": right[one]} for one in get_args(Standing)]
    parameters = json.loads((real[1] / TWO[1] / "explanation.json").read_text())["parameters"]
    page = write_index([IndexEntry(row) for row in rows], len(rows), parameters)
    ranks = dict(re.findall(r'data-value="([^"]*)"><span class="answer">([^<]*)', page))
    assert ranks == {"Fooled.": "Fooled.", "0.125": "worse", "1.375": "no better", "2.75": "better", "": "cannot tell"}


def test_what_readers_should_know_first_stands_in_every_report(photographs, tmp_path, quick, monkeypatch):
    noted = []

    def write(explained, numbers, folder, figures):
        noted.append(explained.notes[0])
        (folder / "report.html").write_text("the report")

    monkeypatch.setattr(of_files, "write_files", write)
    run(photographs, tmp_path / "out", notes=["The model is untrained."])
    assert noted == ["The model is untrained."] * len(NAMES)


def test_each_photograph_has_the_class_that_a_file_of_labels_gives_it(
    photographs, tmp_path, quick, monkeypatch, explanation
):
    given = {}

    def explain_noting(classifier, image, **options):
        given[Path(image).name] = options["label"]
        return explanation

    monkeypatch.setattr(of_files, "explain", explain_noting)
    lines = [f"{name},{number % 5}" for number, name in enumerate(NAMES)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]))
    run(photographs, tmp_path / "out", labels=tmp_path / "labels.csv")
    assert given == {Path(name).name: str(number % 5) for number, name in enumerate(NAMES)}
    with pytest.raises(ParameterError, match="`labels` take the place of `label`"):
        run(photographs, tmp_path / "both", labels=tmp_path / "labels.csv", label=1)
    (tmp_path / "wrong.csv").write_text("\n".join(["file,label", *(f"{name},7" for name in NAMES)]))
    with pytest.raises(ParameterError, match="`labels` must be a class index from 0 to 4"):
        run(photographs, tmp_path / "wrong", labels=tmp_path / "wrong.csv")
    (tmp_path / "two.csv").write_text("\n".join(["file,label", *(f"{name},1;2" for name in NAMES)]))
    with pytest.raises(ParameterError, match="`labels` must have one label for each photograph; got several for"):
        run(photographs, tmp_path / "two", labels=tmp_path / "two.csv")
