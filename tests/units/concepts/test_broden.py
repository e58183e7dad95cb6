"""Broden's published layout."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.annotated_images import (
    BRODEN_HEADER,
    BRODEN_INDEX,
    BRODEN_LABELS,
    BRODEN_MAPS,
    BRODEN_MEMBERS,
    numbers,
    save_red_green,
    write_broden,
    write_csv,
)
from tests.helpers.pictures import pixels, write
from whyfooled.errors import ImageError
from whyfooled.units import NOTHING, open_concepts


@pytest.fixture
def root(tmp_path):
    write_broden(tmp_path)
    return tmp_path


def test_it_reads_back_exactly(root):
    concepts = open_concepts(f"broden:{root}")
    assert concepts.images == ("d/one.jpg", "e/two.jpg", "e/three.jpg")
    assert concepts.categories == tuple(BRODEN_MEMBERS)
    # One label of two categories is two concepts.
    members = [(category, label) for category, labels in BRODEN_MEMBERS.items() for label in labels]
    assert [
        (concepts.categories[category], name)
        for category, name in zip(concepts.category_of, concepts.names, strict=True)
    ] == [(category, BRODEN_LABELS[label]) for category, label in members]

    def shown(category: str, label_map) -> list:
        return [[NOTHING if label == 0 else members.index((category, label)) for label in row] for row in label_map]

    one, two, three = concepts
    assert one.maps.tolist() == [
        shown("color", BRODEN_MAPS["d/one_color.png"]),
        shown("object", BRODEN_MAPS["d/one_object_1.png"]),
        shown("object", BRODEN_MAPS["d/one_object_2.png"]),
    ]
    assert one.whole == (members.index(("material", 3)), members.index(("scene", 700)))
    assert one.categories == (0, 1, 2, 3)
    assert two.maps.tolist() == [shown("color", BRODEN_MAPS["e/two_color.png"])]
    # A scene too rare to have a label is annotated, and none of the others.
    assert (two.whole, two.categories) == ((), (0, 3))
    assert three.maps.shape == (0, 1, 1)
    assert three.maps.dtype == torch.int64
    assert three.whole == (members.index(("object", 2)), members.index(("object", 3)))
    assert three.categories == (1,)
    for seed, annotated in enumerate((one, two, three)):
        assert np.array_equal(np.asarray(annotated.image), pixels(seed))


def test_every_label_up_to_65535_is_read(tmp_path):
    write_broden(tmp_path)
    labels = [1, 255, 256, 257, 511, 512, 32767, 32768, 65535]
    save_red_green(tmp_path / "images" / "d" / "one_object_1.png", numbers(5, [0, *labels], (9, 8)))
    write_csv(tmp_path / "label.csv", ["number", "name"], [[label, f"n{label}"] for label in {*labels, *BRODEN_LABELS}])
    for category, members in BRODEN_MEMBERS.items():
        own = labels if category == "object" else members
        listed = dict.fromkeys([*own, *members])
        write_csv(tmp_path / f"c_{category}.csv", ["number", "name"], [[label, f"n{label}"] for label in listed])
    concepts = open_concepts(f"broden:{tmp_path}")
    found = concepts[0].maps[1]
    names = [[concepts.names[place] if place >= 0 else "n0" for place in row] for row in found.tolist()]
    written = numbers(5, [0, *labels], (9, 8))
    assert names == [[f"n{label}" for label in row] for row in written.tolist()]


def message(root) -> str:
    with pytest.raises(ImageError) as caught:
        open_concepts(f"broden:{root}")
    return str(caught.value).removeprefix(f"{root}/")


def changed(line: int, column: str, value: str) -> list[list[object]]:
    """Return the index with another value; lines count from 1, the header's."""
    rows = [list(row) for row in BRODEN_INDEX]
    rows[line - 2][BRODEN_HEADER.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("line", "column", "value", "reason"),
    [
        (2, "image", "", "image must be a file below images; got ''"),
        (3, "image", "e/none.jpg", "image must be a file below images; got 'e/none.jpg'"),
        (3, "image", "d/one.jpg", "image d/one.jpg is on line 2 already"),
        (4, "ih", "ten", "ih must be a whole number of pixels, at least 1; got 'ten'"),
        (4, "sw", "0", "sw must be a whole number of pixels, at least 1; got '0'"),
        (4, "sh", "-3", "sh must be a whole number of pixels, at least 1; got '-3'"),
        (4, "iw", "1.5", "iw must be a whole number of pixels, at least 1; got '1.5'"),
        (
            2,
            "object",
            "1",
            "object must have labels of c_object.csv, 0 for nothing, or PNG files below images; got '1'",
        ),
        (2, "scene", "99", "scene must have labels of c_scene.csv, 0 for nothing, or PNG files below images; got '99'"),
        (
            2,
            "color",
            "d/none.png",
            "color must have labels of c_color.csv, 0 for nothing, or PNG files below images; got 'd/none.png'",
        ),
        (
            2,
            "color",
            "d/one.jpg",
            "color must have labels of c_color.csv, 0 for nothing, or PNG files below images; got 'd/one.jpg'",
        ),
        (
            2,
            "color",
            "red",
            "color must have labels of c_color.csv, 0 for nothing, or PNG files below images; got 'red'",
        ),
        (
            2,
            "object",
            "2;-3",
            "object must have labels of c_object.csv, 0 for nothing, or PNG files below images; got '-3'",
        ),
    ],
)
def test_a_damaged_row_is_reported_by_line(root, line, column, value, reason):
    write_csv(root / "index.csv", BRODEN_HEADER, changed(line, column, value))
    assert message(root) == f"index.csv has 1 damaged line: line {line}: {reason}."


def test_all_damaged_rows_are_reported_together(root):
    text = (root / "index.csv").read_text()
    write(root / "index.csv", text + "e/four.jpg,train\n" + "".join(f"x{n},train,a,1,1,1,,,,\n" for n in range(3)))
    found = message(root)
    assert found.startswith("index.csv has 4 damaged lines: line 5: it must have 10 values; got 2; line 6: ")
    assert found.endswith("line 7: image must be a file below images; got 'x1'; and 2 more, up to line 8.")
    assert found.count("line 6: ") == 2


def test_a_row_that_spans_lines_is_reported_by_its_last(root):
    write(root / "index.csv", (root / "index.csv").read_text().replace("d/one.jpg", '"d/o\nne.jpg"'))
    assert message(root).startswith("index.csv has 1 damaged line: line 3: image must be a file")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("label.csv", "2,sky,", "0,sky,", "line 3: number must be a whole number from 1 to 65535; got '0'"),
        ("label.csv", "2,sky,", "two,sky,", "line 3: number must be a whole number from 1 to 65535; got 'two'"),
        ("label.csv", "2,sky,", "1,sky,", "line 3: label 1 is there already, as 'red-c'"),
        ("label.csv", "2,sky,", "2,,", "line 3: label 2 has no name"),
        ("category.csv", "object,", "color,", "line 3: name must be there, and differ from the others; got 'color'"),
        ("c_object.csv", "2,2,sky", "2,4,sky", "line 3: number must be a label of label.csv; got '4'"),
        ("c_object.csv", "2,2,sky", "2,2,ski", "line 3: label 2 is called 'ski', and 'sky' in label.csv"),
        ("c_object.csv", "2,2,sky", "2,300,wheel", "line 3: label 300, 'wheel', is on line 2 already"),
    ],
)
def test_damaged_lists_are_reported_by_line(root, file, old, new, reason):
    text = (root / file).read_text()
    assert old in text
    write(root / file, text.replace(old, new))
    assert message(root) == f"{file} has 1 damaged line: {reason}."


@pytest.mark.parametrize("file", ["index.csv", "label.csv", "category.csv", "c_object.csv"])
def test_a_missing_list_is_named(root, file):
    (root / file).unlink()
    assert message(root) == f"{file} cannot be read: No such file or directory."
    (root / file).write_bytes(b"\xff\xfe")
    assert message(root) == f"{file} cannot be read: it is not text in UTF-8."
    write(root / file, 'a,b\n"x')
    assert message(root).startswith(f"{file} must have the columns ")


def test_columns_and_categories_belong_together(root):
    text = (root / "index.csv").read_text()
    write(root / "index.csv", text.replace("material", "stuff"))
    assert message(root).endswith("material is missing.")
    write(root / "index.csv", text)
    write(root / "category.csv", "name\ncolor\nobject\nmaterial\n")
    assert message(root) == "index.csv must have columns for the categories of category.csv; got 'scene', too."


def test_a_label_map_of_another_size_or_label_is_refused_when_it_is_read(root):
    path = root / "images" / "d" / "one_object_1.png"
    concepts = open_concepts(f"broden:{root}")
    for labels, reason in (
        (numbers(0, [0, 2], (8, 9)), r"must be 8 × 9 pixels, as index.csv says; got 9 × 8"),
        (numbers(0, [0, 2, 513], (9, 8)), r"must hold labels of c_object.csv, or 0 for nothing; got 513"),
        (numbers(0, [0, 1], (9, 8)), r"must hold labels of c_object.csv, or 0 for nothing; got 1\b"),
    ):
        save_red_green(path, labels)
        with pytest.raises(ImageError, match=rf"one_object_1\.png {reason}"):
            concepts[0]
    Image.new("L", (8, 9)).save(path)
    with pytest.raises(ImageError, match="must have labels in red and green; got a picture of the mode L"):
        concepts[0]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ImageError, match=r"one_object_1\.png"):
        concepts[0]
    # The others are not touched by it.
    assert concepts[1].name == "e/two.jpg"


def test_a_label_map_is_turned_as_its_image_is(root):
    plain = open_concepts(f"broden:{root}")[1].maps
    exif = Image.Exif()
    exif[0x0112] = 3
    path = root / "images" / "e" / "two_color.png"
    Image.open(path).save(path, exif=exif)
    assert torch.equal(open_concepts(f"broden:{root}")[1].maps, plain.flip(1, 2))


def test_a_folder_of_images_that_may_not_be_read_is_named(root, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("/images/d"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match=r"The folder .*/images/d cannot be read: Permission denied"):
        open_concepts(f"broden:{root}")


def test_an_image_of_another_size_is_refused(root):
    Image.new("RGB", (12, 11)).save(root / "images" / "e" / "two.jpg", format="PNG")
    with pytest.raises(ImageError, match=r"two\.jpg must be 12 × 10 pixels, as index.csv says; got 12 × 11"):
        open_concepts(f"broden:{root}")[1]


def test_listing_opens_no_picture(root, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a picture was opened")

    monkeypatch.setattr("PIL.Image.open", refuse)
    assert len(open_concepts(f"broden:{root}")) == 3


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"There is no folder .*nowhere"):
        open_concepts(f"broden:{tmp_path}/nowhere")
