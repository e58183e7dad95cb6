"""Photographs from files and folders, and trees with a folder for each class."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.helpers.pictures import assert_shows, listed, photograph
from whyfooled.errors import ImageError, WhyfooledWarning
from whyfooled.sources import open_source


class TestPhotographs:
    def test_a_folder_is_listed_without_labels(self, photographs):
        source = open_source(photographs)
        assert listed(source) == {"a/one.jpg": (), "a/two.JPEG": (), "b/one.png": ()}
        assert source.class_names is None
        assert source.title == str(photographs)
        assert_shows(source[2], 0)
        assert source[0].name == "a/one.jpg"
        assert source[-1].adversaries == {}

    def test_files_and_folders_are_named_below_what_they_have_in_common(self, photographs):
        source = open_source([photographs / "b" / "one.png", str(photographs / "a" / ".." / "a"), photographs / "a"])
        assert [sample.name for sample in source] == ["a/one.jpg", "a/two.JPEG", "b/one.png"]

    def test_a_link_has_its_own_name(self, photographs, tmp_path):
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "cat.png").symlink_to(photographs / "b" / "one.png")
        source = open_source(tmp_path / "links")
        assert source.names == ("cat.png",)
        assert_shows(source[0], 0)

    def test_nothing_is_decoded_before_it_is_asked_for(self, photographs, monkeypatch):
        (photographs / "a" / "broken.png").write_bytes(b"no image")
        opened = []
        plain = Image.open
        monkeypatch.setattr(
            Image, "open", lambda path, *more, **named: (opened.append(path), plain(path, *more, **named))[1]
        )
        source = open_source(photographs)
        source.digest(), len(source), listed(source), repr(source)
        assert opened == []
        source[2]
        assert opened == [photographs / "a" / "two.JPEG"]
        with pytest.raises(ImageError, match=r"broken.png is not an image"):
            source[0]

    def test_an_index_out_of_range_is_one(self, photographs):
        with pytest.raises(IndexError):
            open_source(photographs)[3]

    def test_a_place_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(ImageError, match=r"no image file or folder .*nowhere"):
            open_source(tmp_path / "nowhere")
        with pytest.raises(ImageError, match="No photographs"):
            open_source(tmp_path)
        with pytest.raises(ImageError, match="an empty list"):
            open_source([])


class TestTree:
    def test_folder_names_are_the_class_names(self, photographs):
        photograph(photographs / "b" / "deep" / "three.webp", 7)
        (photographs / "0 empty").mkdir()
        source = open_source(f"folder:{photographs}")
        assert source.class_names == ("0 empty", "a", "b")
        assert listed(source) == {"a/one.jpg": (1,), "a/two.JPEG": (1,), "b/deep/three.webp": (2,), "b/one.png": (2,)}
        assert_shows(source[2], 7)

    def test_photographs_in_no_class_are_warned_of(self, photographs):
        photograph(photographs / "stray.png")
        with pytest.warns(WhyfooledWarning, match=r"1 photographs .* such as stray.png"):
            assert len(open_source(f"folder:{photographs}")) == 3

    def test_a_folder_without_classes_is_refused(self, photographs, tmp_path):
        with pytest.raises(ImageError, match="no folder for a class"):
            open_source(f"folder:{photographs}/a")
        (tmp_path / "empty" / "cat").mkdir(parents=True)
        with pytest.raises(ImageError, match="No photographs were found in the 1 folders"):
            open_source(f"folder:{tmp_path}/empty")
        with pytest.raises(ImageError, match=r"no folder .*nowhere"):
            open_source(f"folder:{tmp_path}/nowhere")
