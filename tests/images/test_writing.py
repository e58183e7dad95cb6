"""Writing a folder or a file whole or not at all, and finding out beforehand whether it can be written."""

import tempfile

import pytest
import torch
from safetensors.torch import load_file

from whyfooled.errors import OutputError
from whyfooled.images import check_output_file, output_folder, write_tensors


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
        def refuse(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
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
            check_output_file(tmp_path / ("a" * 250))

    def test_a_folder_without_permission_is_refused(self, tmp_path, monkeypatch):
        def refuse(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
        with pytest.raises(OutputError, match="cannot be written: Permission denied"):
            check_output_file(tmp_path / "new.txt")
