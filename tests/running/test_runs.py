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
from whyfooled.running.runs import identify_computation
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
