"""Folders that belong to one run."""

import pytest

from tests.helpers.models import small
from tests.helpers.pictures import photograph
from whyfooled import BIM, attack_files
from whyfooled._version import __version__
from whyfooled.attacks import many
from whyfooled.errors import OutputError
from whyfooled.running.runs import identify_computation


def test_what_a_run_depends_on_is_its_model_this_version_and_the_kind_of_device():
    classifier = small()
    classifier.name = "mine"
    expected = {"version": __version__, "model": "mine", "model_digest": classifier.digest(), "device": "cpu"}
    assert identify_computation(classifier) == expected


def test_what_was_begun_on_one_kind_of_device_is_not_continued_on_another(tmp_path, monkeypatch):
    picture, folder = photograph(tmp_path / "cat.png"), tmp_path / "out"
    attack_files(small(), [picture], BIM(epsilon=0.3, steps=2), folder)
    on_a_gpu = identify_computation(small()) | {"device": "cuda"}
    monkeypatch.setattr(many, "identify_computation", lambda classifier: on_a_gpu)
    with pytest.raises(OutputError, match="out holds another run: its device was cpu, now it is cuda"):
        attack_files(small(), [picture], BIM(epsilon=0.3, steps=2), folder)
