"""Which photographs lie in folders, and what they are called."""

import pytest

from whyfooled.errors import ImageError
from whyfooled.images import common_folder, existing_folder, photographs_below, photographs_in


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPEG", "notes.txt", ".hidden.png", "deep/c.webp", "deep/deeper/d.tiff", "e.png/f.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_photographs_are_files_with_the_suffix_of_an_image(folder):
    below = [path.relative_to(folder).as_posix() for path in photographs_below(folder)]
    assert below == ["a.JPEG", "b.png", "deep/c.webp", "deep/deeper/d.tiff", "e.png/f.bmp"]
    assert [path.name for path in photographs_below(folder, deep=False)] == ["a.JPEG", "b.png"]


def test_a_file_that_is_named_counts_whatever_it_is_called(folder):
    found = photographs_in([folder / "notes.txt", str(folder / "deep")])
    assert found == [folder / "notes.txt", folder / "deep" / "c.webp", folder / "deep" / "deeper" / "d.tiff"]


def test_a_place_that_is_not_there_and_a_folder_without_photographs_are_refused(folder):
    with pytest.raises(ImageError, match=r"There is no image file or folder .*nowhere\."):
        photographs_in([folder / "b.png", folder / "nowhere"])
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match=r"No photographs \(\.jpg, .*\) were found in .*empty\."):
        photographs_in([folder / "empty"])
    with pytest.raises(ImageError, match="were found in an empty list"):
        photographs_in([])


def test_files_are_named_below_the_folder_that_all_have_in_common(folder, monkeypatch):
    monkeypatch.chdir(folder / "deep")
    files = [folder / "deep" / "deeper" / "d.tiff", folder / "deep" / ".." / "b.png", folder / "b.png"]
    assert common_folder([*files, files[0].relative_to(folder / "deep")]) == (folder, ("b.png", "deep/deeper/d.tiff"))
    assert common_folder(files[:1]) == (folder / "deep" / "deeper", ("d.tiff",))


def test_a_link_keeps_its_name(folder):
    (folder / "link.png").symlink_to(folder / "b.png")
    assert common_folder([folder / "link.png"]) == (folder, ("link.png",))


def test_a_folder_must_be_there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert existing_folder("deep") == folder / "deep"
    for place in ("nowhere", "b.png"):
        with pytest.raises(ImageError, match=f"There is no folder {place}"):
            existing_folder(place)
