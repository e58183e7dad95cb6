"""Folders of this machine are left out of what is published."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.models import small
from whyfooled import FGSM, attack_files, explain
from whyfooled.running.publishing import hide_all_folders, hide_folders
from whyfooled.studies import run_study


@pytest.fixture
def deep(tmp_path):
    folder = tmp_path / "Photographs of clients" / "acme & sons"
    folder.mkdir(parents=True)
    return folder


def test_a_file_is_called_by_its_name(deep):
    assert hide_folders(str(deep / "cat one.png")) == "cat one.png"
    assert hide_folders(str(deep)) == "acme & sons"


def test_so_it_is_within_sentences(deep):
    text = f"There is no image file {deep}/a/one.png. Look into '{deep}/two.png', or ({deep}/three.png)"
    (deep / "a").mkdir()
    assert hide_folders(text) == "There is no image file one.png. Look into 'two.png', or (three.png)"


@pytest.mark.parametrize(
    "text",
    [
        "photographs/cat.png",
        "../cat.png",
        "~/cat.png",
        "8/255 of 1/2, and/or 3 / 4",
        "https://example.org/tmp/cat.png",
        "/no/such/folder/cat.png",
        "/",
        "//",
        "",
        "/no\0where/cat.png",
    ],
)
def test_everything_else_stays(text):
    assert hide_folders(text) == text


def test_plain_values_are_looked_through(deep):
    given = {"image": f"{deep}/cat.png", "list": [f"{deep}/a.png", 3, None, (f"{deep}/b.png",)], "share": 0.5}
    assert hide_all_folders(given) == {"image": "cat.png", "list": ["a.png", 3, None, ["b.png"]], "share": 0.5}


@pytest.fixture
def photographs(deep):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(deep / f"{number}.png")
    (deep / "damaged.png").write_bytes((deep / "0.png").read_bytes()[:300])
    return deep


def texts_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return {path.name: path.read_bytes() for path in files}


def test_no_report_names_them(photographs, tmp_path):
    fooled = explain(small(), photographs / "1.png", attack=FGSM(epsilon=0.3), methods=["gradient"])
    texts = texts_of(fooled.save(tmp_path / "report"))
    assert b"1.png" in texts["explanation.json"]
    assert not [name for name, text in texts.items() if b"clients" in text]


def test_no_run_names_them(photographs, tmp_path):
    _, errors = attack_files(small(), [photographs], FGSM(epsilon=0.3), tmp_path / "attack", labels=1)
    assert errors["damaged.png"].startswith("damaged.png cannot be read")
    done = run_study("attack-outcome(attacks=fgsm)", photographs, tmp_path / "study", model=small())
    assert done.about["failed"][0].startswith("damaged.png: damaged.png cannot be read")
    for folder in (tmp_path / "attack", tmp_path / "study"):
        assert not [name for name, text in texts_of(folder).items() if b"clients" in text]
