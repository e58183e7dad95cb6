"""What is dropped is kept as long as a page or a job needs it, and no longer."""

import os
from pathlib import Path

import pytest

from whyfooled.app.uploads import Uploads
from whyfooled.errors import ImageError


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "page")


def drop(uploads, name="cat.jpg"):
    path = uploads.dropped / "digest" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
    return path


def test_a_file_is_kept_until_the_last_page_that_has_it_is_closed(uploads):
    path = drop(uploads)
    uploads.hold("first", "images", str(path))
    uploads.hold("second", "images", str(path))
    uploads.leave("first")
    assert path.exists()
    uploads.leave("second")
    assert not path.exists()
    uploads.leave("unknown")


def test_a_file_that_is_replaced_or_taken_out_is_deleted(uploads):
    first, second = drop(uploads), drop(uploads, "dog.jpg")
    uploads.hold("visit", "images", str(first))
    uploads.hold("visit", "images", str(second))
    assert not first.exists()
    uploads.hold("visit", "images", None)
    assert not second.exists()


def test_a_file_in_two_fields_is_one(uploads):
    path = drop(uploads)
    uploads.hold("visit", "images", str(path))
    uploads.hold("visit", "adversarial", str(path))
    uploads.hold("visit", "images", None)
    assert path.exists()


def test_what_no_page_ever_held_is_deleted_after_a_while(uploads):
    fresh, abandoned = drop(uploads), drop(uploads, "old.jpg")
    os.utime(abandoned, (0, 0))
    uploads.hold("visit", "images", None)
    assert fresh.exists()
    assert not abandoned.exists()


def test_a_job_has_its_own_copies(uploads):
    path = drop(uploads)
    inputs, copies = uploads.copy({"images": str(path), "adversarial": str(path)})
    path.unlink()
    assert [Path(copy).read_text() for copy in copies.values()] == ["cat.jpg", "cat.jpg"]
    assert all(copy.startswith(str(inputs)) for copy in copies.values())


@pytest.mark.parametrize("file", ["/etc/passwd", "gone.jpg", "../../../../etc/passwd"])
def test_what_was_never_dropped_is_not_copied(uploads, file):
    path = drop(uploads)
    with pytest.raises(ImageError, match=r"is not here any more. Drop it again."):
        uploads.copy({"regions": str(path), "images": str(uploads.dropped / file)})
    assert not list((uploads.dropped.parent / "jobs").iterdir())


def test_a_link_that_leads_out_is_not_copied(uploads, tmp_path):
    (tmp_path / "secret").touch()
    (uploads.dropped / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ImageError):
        uploads.copy({"images": str(uploads.dropped / "link")})
