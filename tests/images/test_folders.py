"""Which photographs lie in folders, and what they are called."""

import os

import pytest

from whyfooled.errors import ImageError
from whyfooled.images import (
    common_folder,
    existing_folder,
    list_files_below,
    list_folders_in,
    photographs_below,
    photographs_in,
)


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


def below(folder):
    return [path.relative_to(folder).as_posix() for path in list_files_below(folder)]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in ("a.png", ".b.png", ".ipynb_checkpoints/c.png", ".Trash-1000/files/d.png", "deep/.hidden/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert below(tmp_path) == ["a.png"]
    assert [path.name for path in list_folders_in(tmp_path)] == ["deep"]
    # One that is named itself is read.
    assert below(tmp_path / ".Trash-1000") == ["files/d.png"]


def test_links_to_folders_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "more").mkdir()
    (elsewhere / "more" / "f.png").touch()
    (folder / "link").symlink_to(elsewhere)
    (folder / "deep" / "nothing").symlink_to(elsewhere / "nowhere")
    assert below(folder)[-2:] == ["link/more/f.png", "notes.txt"]
    assert [path.name for path in list_folders_in(folder)] == ["deep", "e.png", "link"]


def test_a_folder_is_entered_once_by_its_own_path(folder):
    files = below(folder)
    # Before the folder that it leads to, by its name; up; to itself; and two that lead to one another.
    (folder / "a link").symlink_to(folder / "deep")
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "deep" / "far up").symlink_to(folder.parent)
    (folder / "itself").symlink_to(folder / "itself")
    for name, other in (("e.png", "deep"), ("deep", "e.png")):
        (folder / name / "other").symlink_to(folder / other)
    assert below(folder) == files
    assert [path.name for path in list_folders_in(folder / "deep")] == ["deeper", "other"]


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for list_some in (photographs_below, list_folders_in):
        place = folder if list_some is photographs_below else folder / "deep" / "deeper"
        with pytest.raises(ImageError, match=r"The folder .*deep/deeper cannot be read: Permission denied\."):
            list_some(place)
