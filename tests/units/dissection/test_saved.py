import dataclasses
import json

import pandas as pd
import pytest
import torch

from tests.helpers.made_dissections import made_dissection
from whyfooled.errors import ImageError, OutputError
from whyfooled.units import load_dissection

FILES = [
    "dissection.json",
    "figure.png",
    "index.html",
    "overlaps.parquet",
    "pictures",
    "summary.md",
    "summary.tex",
    "tensors.safetensors",
    "units.csv",
    "units.parquet",
]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and torch.equal(one.nan_to_num(7), other.nan_to_num(7))
        )
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def dissection():
    found = made_dissection({"blocks.0": 5, "blocks.1.conv": 3})
    # Fewer images than are asked for, a name that is no text, and what floats have to offer.
    found.layers[0].top_images[1, 1] = -1
    found.layers[0].top_values[1, 1] = float("nan")
    images = ("caf\udce9.png", *found.images[1:])
    return dataclasses.replace(found, images=images, cutoff=0.1, seconds={"thresholds": 0.1 + 0.2}, channels=1)


def test_a_dissection_comes_back_exactly(dissection, tmp_path):
    folder = dissection.save(tmp_path / "below" / "out")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    again = load_dissection(folder)
    assert (again.source, again.fit) == (None, None)
    assert same(dataclasses.replace(dissection, source=None, fit=None), again)
    assert not same(dissection.layers[0], dissection.layers[1])


def test_one_that_was_loaded_is_saved_without_pictures(dissection, tmp_path):
    first = dissection.save(tmp_path / "first")
    second = load_dissection(first).save(tmp_path / "second")
    assert sorted(path.name for path in second.iterdir()) == [name for name in FILES if name != "pictures"]
    assert same(load_dissection(first), load_dissection(second))
    assert "without its images: outlines alone" in (second / "index.html").read_text()
    assert "without its images" not in (first / "index.html").read_text()


def test_tables_are_those_of_the_dissection(dissection, tmp_path):
    folder = dissection.save(tmp_path / "out")
    for name, expected in (("units", dissection.to_frame()), ("overlaps", dissection.overlaps())):
        read = pd.read_parquet(folder / f"{name}.parquet")
        # Parquet has one kind of missing.
        pd.testing.assert_frame_equal(read.astype(object).fillna(0), expected.astype(object).fillna(0))
    table = pd.read_csv(folder / "units.csv")
    assert list(table.columns) == list(dissection.to_frame().columns)
    assert len(table) == 8
    about = json.loads((folder / "dissection.json").read_bytes())
    assert [one["detectors"] for one in about["layers"]] == dissection.to_frame().groupby("layer")[
        "detector"
    ].sum().tolist()
    assert about["results"][0]["rows"][1]["units"] == 3


def test_the_same_dissection_gives_the_same_files(dissection, tmp_path):
    one, two = (dissection.save(tmp_path / name) for name in ("one", "two"))
    for path in one.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (two / path.relative_to(one)).read_bytes(), path.name


def test_a_picture_that_cannot_be_read_leaves_nothing(dissection, tmp_path):
    class Gone:
        def read(self, index):
            raise ImageError("There is no image file.")

        def picture(self, index):
            raise ImageError("There is no image file.")

        def files(self):
            return ()

    lost = dataclasses.replace(dissection, source=dataclasses.replace(dissection.source, reader=Gone()))
    with pytest.raises(ImageError, match="no image file"):
        lost.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told(dissection, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file; give a folder"):
        dissection.save(tmp_path / "out")


def test_folders_that_hold_no_whole_dissection_are_told(dissection, tmp_path):
    folder = dissection.save(tmp_path / "out")
    about, tensors = folder / "dissection.json", folder / "tensors.safetensors"
    text, content = about.read_bytes(), tensors.read_bytes()

    def refused(message):
        with pytest.raises(ImageError, match=message):
            load_dissection(folder)

    tensors.write_bytes(content[:-1])
    refused("is damaged or unfinished: tensors.safetensors is missing, or is not the one")
    # As long as before, and readable, but of another dissection.
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused("is damaged or unfinished")
    tensors.unlink()
    refused("is damaged or unfinished")
    tensors.write_bytes(content)
    later = {key: value for key, value in json.loads(text).items() if key != "seal"} | {"format": 3}
    about.write_text(json.dumps(later))
    refused("was written by another version of whyfooled: its format is 3, and this one reads 2")
    renamed = text.replace(b'"category_of"', b'"categories_of"')
    for other in (renamed, text + b" ", text[: len(text) // 2], b"[1]", b"{}", b"\xff"):
        about.write_bytes(other)
        refused("dissection.json is not a file of `whyfooled dissect`, or is damaged")
    about.unlink()
    refused("holds no dissection: it has no dissection.json. Make one: whyfooled dissect")
    with pytest.raises(ImageError, match="holds no dissection"):
        load_dissection(tmp_path / "nowhere")


def test_a_file_of_the_folder_is_not_the_folder(dissection, tmp_path):
    folder = dissection.save(tmp_path / "out")
    picture = next((folder / "pictures").iterdir())
    for path in (folder / "index.html", folder / "dissection.json", picture):
        with pytest.raises(ImageError) as refused:
            load_dissection(path)
        assert str(refused.value) == f"{path} is a file. Give the folder that `whyfooled dissect` wrote: {folder}."
    (tmp_path / "else.txt").write_text("")
    with pytest.raises(ImageError, match=r"else\.txt is a file. Give the folder that `whyfooled dissect` wrote\.$"):
        load_dissection(tmp_path / "else.txt")


@pytest.mark.parametrize(
    "changed",
    [
        {"concepts": []},
        {"categories": []},
        {"category_of": [0]},
        {"layers": []},
        {"images": []},
    ],
    ids=lambda one: next(iter(one)),
)
def test_names_that_do_not_go_with_the_numbers_are_told(dissection, tmp_path, changed):
    folder = dissection.save(tmp_path / "out")
    about = folder / "dissection.json"
    about.write_text(json.dumps({**unsealed(about), **changed}))
    with pytest.raises(ImageError, match="is damaged or unfinished"):
        load_dissection(folder)


def unsealed(about):
    """Read `dissection.json` as the first version wrote it."""
    return {key: value for key, value in json.loads(about.read_bytes()).items() if key != "seal"} | {"format": 1}


def test_one_of_the_first_version_still_loads(dissection, tmp_path):
    about = dissection.save(tmp_path / "out") / "dissection.json"
    about.write_text(json.dumps(unsealed(about)))
    assert same(dataclasses.replace(dissection, source=None, fit=None), load_dissection(tmp_path / "out"))


@pytest.mark.parametrize(
    "changed",
    [
        {"cutoff": "0.04"},
        {"cutoff": True},
        {"parameters": [1]},
        {"category_of": [[0], 0, 1, 1]},
        {"images": 3},
        {"passes": {"forwards": "many"}},
        {"layers": [{"name": "a"}]},
        {"layers": 3},
        {"notes": None},
    ],
    ids=str,
)
def test_values_of_another_kind_are_told(dissection, tmp_path, changed):
    about = dissection.save(tmp_path / "out") / "dissection.json"
    about.write_text(json.dumps({**unsealed(about), **changed}))
    with pytest.raises(ImageError, match=r"dissection\.json is not a file of `whyfooled dissect`, or is damaged\.$"):
        load_dissection(tmp_path / "out")
