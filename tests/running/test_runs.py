"""Folders that belong to one run."""

import re

import pytest
import torch

from tests.helpers.models import small
from tests.helpers.pictures import photograph
from tests.helpers.quick_methods import QUICK_STUDIES
from tests.helpers.small_studies import write_images
from whyfooled import BIM, attack_files, run_study
from whyfooled._version import __version__
from whyfooled.attacks import many
from whyfooled.errors import OutputError
from whyfooled.running.kept import FileKind, is_text
from whyfooled.running.runs import claim, identify_computation
from whyfooled.studies.run import runner


def test_what_a_run_depends_on_is_its_model_the_versions_and_the_kind_of_device():
    classifier = small()
    classifier.name = "mine"
    assert identify_computation(classifier) == {
        "version": __version__,
        "torch": torch.__version__,
        "model": "mine",
        "model_digest": classifier.digest(),
        "device": "cpu",
    }


@pytest.mark.parametrize(("key", "other"), [("device", "cuda"), ("torch", "1.0"), ("version", "0.0")])
def test_what_was_begun_with_one_device_or_version_is_not_continued_with_another(tmp_path, monkeypatch, key, other):
    picture, folder = photograph(tmp_path / "cat.png"), tmp_path / "out"
    attack_files(small(), [picture], BIM(epsilon=0.3, steps=2), folder)
    here = identify_computation(small())
    monkeypatch.setattr(many, "identify_computation", lambda classifier: here | {key: other})
    said = re.escape(f"out holds another run: its {key} was {here[key]}, now it is {other}")
    with pytest.raises(OutputError, match=said):
        attack_files(small(), [picture], BIM(epsilon=0.3, steps=2), folder)


def test_a_finished_study_on_a_gpu_is_found_again(tmp_path, monkeypatch):
    images, study = write_images(tmp_path / "images.npz", count=2), QUICK_STUDIES["attack-outcome"]
    on_a_gpu = identify_computation(small()) | {"device": "cuda"}
    monkeypatch.setattr(runner, "identify_computation", lambda classifier: on_a_gpu)
    first = run_study(study, images, tmp_path / "run", model=small())
    assert first.about["device"] == "cuda"
    again = run_study(study, images, tmp_path / "run", model=small())
    assert again.table.read().equals(first.table.read())


class TestAFailedRun:
    def claimed(self, folder, run="a", results=()):
        return claim(
            folder / "run.json", FileKind("run", 1, "made", {"run": is_text}), {"run": run}, results=lambda: results
        )

    def test_leaves_nothing_if_it_wrote_nothing(self, tmp_path):
        def work():
            with self.claimed(tmp_path / "new"):
                assert (tmp_path / "new" / "run.json").exists()
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            work()
        assert not (tmp_path / "new").exists()

    def test_leaves_a_folder_that_was_there(self, tmp_path):
        with pytest.raises(ValueError, match="no"), self.claimed(tmp_path):
            raise ValueError("no")
        assert not list(tmp_path.iterdir())

    def test_leaves_its_claim_beside_what_it_wrote(self, tmp_path):
        def work():
            with self.claimed(tmp_path / "new"):
                (tmp_path / "new" / "result").touch()
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            work()
        assert {path.name for path in (tmp_path / "new").iterdir()} == {"run.json", "result"}

    def test_leaves_somebody_elses_file_of_the_same_name(self, tmp_path):
        (tmp_path / "run.json").write_text("mine")
        with pytest.raises(OutputError, match="is not of a run"), self.claimed(tmp_path):
            pass
        assert (tmp_path / "run.json").read_text() == "mine"
