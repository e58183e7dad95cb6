"""Writing a folder or a file whole or not at all, and finding out beforehand whether it can be written."""

import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from whyfooled.errors import OutputError
from whyfooled.images import check_output_file, output_folder, write_tensors
from whyfooled.images.writing import sweep


def test_written_tensors_are_read_as_they_were(tmp_path):
    image, label = torch.rand(3, 4, 4, dtype=torch.float64), torch.tensor([3])
    write_tensors(tmp_path / "a.safetensors", {"image": image.transpose(1, 2), "label": label}, {"made": "here"})
    found = load_file(tmp_path / "a.safetensors")
    assert torch.equal(found["image"], image.transpose(1, 2).float())
    assert torch.equal(found["label"], label)


def test_tensors_that_share_their_storage_are_written(tmp_path):
    image = torch.rand(3, 4, 4, dtype=torch.float64)
    write_tensors(tmp_path / "out.safetensors", {"clean": image, "adversarial": image}, {"model": "none"})
    found = load_file(tmp_path / "out.safetensors")
    assert torch.equal(found["clean"], image.float())
    assert torch.equal(found["adversarial"], image.float())


class TestOutputFolder:
    def test_a_new_folder_appears_only_at_the_end(self, tmp_path):
        target = tmp_path / "new" / "result"
        with output_folder(target) as staging:
            (staging / "parts").mkdir()
            (staging / "parts" / "a.txt").write_text("a")
            assert not target.exists()
        assert (target / "parts" / "a.txt").read_text() == "a"
        assert [path.name for path in target.parent.iterdir()] == ["result"]

    def test_a_new_folder_can_be_read_by_others(self, tmp_path):
        with output_folder(tmp_path / "result"):
            pass
        assert (tmp_path / "result").stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_nothing_is_left_after_an_interruption(self, tmp_path, error):
        def work():
            with output_folder(tmp_path / "result") as staging:
                (staging / "a.txt").write_text("a")
                raise error

        with pytest.raises(error):
            work()
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_folder_keeps_its_other_files_and_folders(self, tmp_path):
        (tmp_path / "parts").mkdir()
        (tmp_path / "mine").mkdir()
        for name in ("mine.txt", "old.txt", "mine/mine.txt", "parts/of an earlier run.txt"):
            (tmp_path / name).write_text("before")
        with output_folder(tmp_path) as staging:
            (staging / "parts").mkdir()
            for name in ("old.txt", "new.txt", "parts/new.txt"):
                (staging / name).write_text("after")
        found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.txt")}
        assert found == {
            "mine.txt": "before",
            "old.txt": "after",
            "new.txt": "after",
            "mine/mine.txt": "before",
            "parts/new.txt": "after",
        }
        assert {path.name for path in tmp_path.iterdir()} == {"mine", "mine.txt", "old.txt", "new.txt", "parts"}

    def test_pictures_that_are_no_reports_are_not_lost(self, tmp_path):
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "holiday.jpg").write_text("mine")
        with pytest.raises(
            OutputError, match=r"has a folder 'pictures' that is no report's, for.*give another folder\."
        ):
            self.enter(tmp_path)
        with output_folder(tmp_path, replaced=()) as staging:
            (staging / "index.html").write_text("a page")
        assert (tmp_path / "pictures" / "holiday.jpg").read_text() == "mine"
        # Beside a page they are those of the run before.
        with output_folder(tmp_path) as staging:
            (staging / "pictures").mkdir()
        assert list((tmp_path / "pictures").iterdir()) == []
        with output_folder(tmp_path):
            pass

    def test_an_existing_folder_is_as_before_after_an_interruption(self, tmp_path):
        (tmp_path / "a.txt").write_text("before")

        def work():
            with output_folder(tmp_path) as staging:
                (staging / "a.txt").write_text("after")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            work()
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
        assert (tmp_path / "a.txt").read_text() == "before"

    @staticmethod
    def enter(target) -> None:
        with output_folder(target):
            pytest.fail("the work began")

    def test_a_path_that_is_a_file_is_refused(self, tmp_path):
        (tmp_path / "a.txt").write_text("a")
        with pytest.raises(OutputError, match="is a file; give a folder"):
            self.enter(tmp_path / "a.txt")

    def test_a_path_below_a_file_is_refused(self, tmp_path):
        (tmp_path / "a.txt").write_text("a")
        with pytest.raises(OutputError, match="cannot be written"):
            self.enter(tmp_path / "a.txt" / "result")

    def test_a_folder_without_permission_is_refused_before_the_work(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OutputError, match="cannot be written: Permission denied"):
            self.enter(tmp_path / "result")

    def test_a_name_too_long_for_the_file_system_is_refused(self, tmp_path):
        with pytest.raises(OutputError):
            self.enter(tmp_path / ("a" * 300))

    def test_a_full_disk_is_reported_and_leaves_nothing(self, tmp_path):
        def work():
            with output_folder(tmp_path / "result"):
                raise OSError(28, "No space left on device")

        with pytest.raises(OutputError, match="No space left on device"):
            work()
        assert list(tmp_path.iterdir()) == []


class TestReplacement:
    """A report takes an earlier one's place: all of it, or nothing."""

    BEFORE: ClassVar = {"a.html": "before", "b.txt": "before", "pictures/old.png": "before", "mine.txt": "mine"}

    @pytest.fixture
    def report(self, tmp_path):
        for name, text in self.BEFORE.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    @staticmethod
    def replace(folder):
        with output_folder(folder) as staging:
            (staging / "pictures").mkdir()
            for name in ("a.html", "a new one.txt", "b.txt", "pictures/new.png"):
                (staging / name).write_text("after")

    @staticmethod
    def contents(folder):
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}

    @pytest.mark.parametrize("last", range(9))
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=type)
    def test_wherever_it_fails_the_earlier_one_is_put_back(self, report, monkeypatch, error, last):
        rename, done = Path.rename, []

        def fail_once(self, target):
            done.append(self)
            if len(done) == last + 1:
                raise error
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail_once)
        # Three that are put aside, four that take their places, and the step after which they count.
        if last < 8:
            with pytest.raises((OutputError, KeyboardInterrupt)):
                self.replace(report)
            assert self.contents(report) == self.BEFORE
        else:
            self.replace(report)
            assert len(done) == 8
            new = ("a.html", "a new one.txt", "b.txt", "pictures/new.png")
            assert self.contents(report) == {**dict.fromkeys(new, "after"), "mine.txt": "mine"}

    @pytest.mark.parametrize("last", range(8))
    def test_wherever_it_is_killed_the_next_call_puts_the_earlier_one_back(self, report, last):
        process = multiprocessing.get_context("fork").Process(target=_die_at_rename, args=(self.replace, report, last))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert any(path.name.startswith(".whyfooled-") for path in report.iterdir())
        sweep(report)
        assert self.contents(report) == self.BEFORE


def _die_at_rename(work, folder, last):
    rename, done = Path.rename, []

    def die(self, target):
        done.append(self)
        if len(done) == last + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.rename = die
    work(folder)


class TestSweep:
    def test_what_a_killed_process_left_is_deleted_and_nothing_else(self, tmp_path):
        for name in (".whyfooled-12345678", ".whyfooled-87654321", ".whyfooled-notes", "below"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.txt").write_text("")
        gone = f"{2**22 + 5}\n{socket.gethostname()}\n"
        (tmp_path / ".whyfooled-12345678.lock").write_text(gone)
        (tmp_path / "below" / ".whyfooled-aaaaaaaa").write_text("half a file")
        (tmp_path / "below" / ".whyfooled-aaaaaaaa.lock").write_text(gone)
        # In use by a process of another machine, which cannot be asked.
        (tmp_path / ".whyfooled-87654321.lock").write_text("1\nelsewhere\n")
        sweep(tmp_path)
        assert (tmp_path / "below" / ".whyfooled-aaaaaaaa").exists()
        sweep(tmp_path, deep=True)
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
        assert left == {
            ".whyfooled-87654321/a.txt",
            ".whyfooled-87654321.lock",
            ".whyfooled-notes/a.txt",
            "below/a.txt",
        }

    def test_what_a_process_works_in_is_left_alone(self, tmp_path):
        with output_folder(tmp_path) as staging:
            (staging / "a.txt").write_text("a")
            sweep(tmp_path, deep=True)
        assert (tmp_path / "a.txt").read_text() == "a"


class TestCheckOutputFile:
    def test_a_place_that_can_be_written_stays_as_it_is(self, tmp_path):
        (tmp_path / "old.txt").write_text("mine")
        for name in ("new.txt", "old.txt", "no/such/folder/new.txt"):
            check_output_file(tmp_path / name)
        assert [path.name for path in tmp_path.rglob("*")] == ["old.txt"]
        assert (tmp_path / "old.txt").read_text() == "mine"

    def test_what_cannot_be_written_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match="is a folder; give a file"):
            check_output_file(tmp_path)
        with pytest.raises(OutputError, match="cannot be written: Not a directory"):
            check_output_file(tmp_path / "file" / "new.txt")
        with pytest.raises(OutputError, match="cannot be written: File name too long"):
            check_output_file(tmp_path / ("a" * 256))

    def test_a_folder_without_permission_is_refused(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "touch", refuse)
        with pytest.raises(OutputError, match="cannot be written: Permission denied"):
            check_output_file(tmp_path / "new.txt")
