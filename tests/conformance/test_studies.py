"""What holds for every study, whichever it is."""

import dataclasses
import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import whyfooled.studies
from tests.helpers.models import small
from tests.helpers.planted_dissections import dissection_of
from tests.helpers.quick_methods import QUICK_STUDIES
from tests.helpers.small_studies import write_images
from whyfooled import FMN
from whyfooled.registry import available, describe, parameter_texts, parameters, parse
from whyfooled.running.publishing import hide_folders
from whyfooled.sources import open_source
from whyfooled.studies import (
    STUDIES,
    Study,
    redraw,
    run_study,
)
from whyfooled.studies.effects import object_or_background
from whyfooled.studies.table import SHARED, read_about
from whyfooled.studies.units import sensitivity_interpretability

FITTED = {name for name, study in QUICK_STUDIES.items() if {"fit", "learn"} & set(parameters(type(study)))} - {
    "compare-models"
}
"""Studies of which half of the images are fitted to or learned from, and not measured; one does so for masks alone."""
STUDY = pytest.mark.parametrize("name", [study.card.name for study in STUDIES])
STUDY_OF_METHODS = pytest.mark.parametrize(
    "name", [study.card.name for study in STUDIES if "methods" in parameters(study) and study.card.name not in FITTED]
)


@pytest.fixture(scope="module", autouse=True)
def masks(tmp_path_factory):
    """Stand in for a folder that holds a label map of every image."""
    path = tmp_path_factory.mktemp("masks") / "all.npy"
    np.save(path, np.arange(16).repeat(16).reshape(16, 16) // 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_or_background, "_find_map", lambda folder, name: path)
        yield


@pytest.fixture(scope="module", autouse=True)
def dissection():
    """Stand in for a folder that holds a dissection."""
    iou = {"first": torch.linspace(0, 0.1, 12), "second": torch.linspace(0.2, 0, 16)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity_interpretability, "load_dissection", lambda folder: dissection_of(small(), **iou))
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "images.npz", count=7)


@pytest.fixture(scope="module")
def results(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: run_study(study, images, folder / name, model=small(), shard_size=3, batch_size=3)
        for name, study in QUICK_STUDIES.items()
    }


def test_every_study_of_the_package_is_in_the_list():
    public = {
        value
        for value in vars(whyfooled.studies).values()
        if isinstance(value, type) and issubclass(value, Study) and not inspect.isabstract(value)
    }
    assert public == set(STUDIES)
    assert {study.card.name for study in STUDIES} <= set(available("studies"))
    assert set(QUICK_STUDIES) == {study.card.name for study in STUDIES}


@STUDY
def test_it_is_a_frozen_dataclass_that_describes_itself(name):
    study = QUICK_STUDIES[name]
    card = type(study).card
    assert type(study).__dataclass_params__.frozen
    assert all([card.name, card.title, card.summary.endswith("."), card.source, card.cost])
    assert set(parameter_texts(type(study))) == set(parameters(type(study)))
    assert parse("studies", describe(study)) == study
    assert parse("studies", name) == type(study)()


@STUDY
def test_rows_are_flat_and_of_the_columns_it_names(name, results):
    table = results[name].table.read()
    assert list(table.columns) == [*SHARED, *type(QUICK_STUDIES[name]).columns]
    assert len(set(table["index"])) == results[name].about["images_given"] == (4 if name in FITTED else 7)
    assert not results[name].about["failures"]
    assert results[name].about["forwards"] > 0


@STUDY
def test_an_images_rows_do_not_depend_on_its_batch_or_shard(name, images, results, tmp_path):
    alone = run_study(
        QUICK_STUDIES[name], images, tmp_path / "out", model=small(), shard_size=1, batch_size=1
    ).table.read()
    together = results[name].table.read()
    assert len(alone) == len(together)
    for column, kind in type(QUICK_STUDIES[name]).columns.items():
        order = [
            "index",
            *(
                c
                for c in ("attack", "method", "fill", "fraction", "class_b", "size", "randomised", "step")
                if c in together
            ),
        ]
        one, other = (frame.sort_values(order, kind="stable")[column] for frame in (alone, together))
        if kind == "real":
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)
        elif kind != "bytes":
            assert one.astype(object).fillna("").tolist() == other.astype(object).fillna("").tolist()


@STUDY
def test_the_summary_says_something_with_numbers(name, results):
    about, text = results[name].about, results[name].summary
    assert text.startswith(f"# {type(QUICK_STUDIES[name]).card.title}")
    described = hide_folders(describe(QUICK_STUDIES[name]))
    assert described in text
    written = (results[name].folder / "study.json").read_text()
    assert "NaN" not in written
    assert about["study"] == described
    assert (results[name].folder / "summary.tex").read_text().count(r"\toprule") >= 1
    assert Image.open(results[name].folder / "figure.png").convert("L").getextrema()[0] < 128


def contents(folder):
    """Read a study's files; not the PDF, which shows the last digits of a layout that is solved in no fixed order."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".pdf"}


@STUDY
def test_it_is_drawn_again_from_its_table_to_the_same_bytes(name, results):
    folder = results[name].folder
    before = contents(folder)
    (folder / "figure.png").unlink()
    (folder / "summary.md").unlink()
    assert redraw(folder) == folder / "figure.png"
    assert contents(folder) == before
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")


@STUDY_OF_METHODS
def test_a_method_that_does_not_work_on_the_model_is_recorded_and_the_others_are_measured(name, images, tmp_path):
    study = dataclasses.replace(QUICK_STUDIES[name], methods=(*QUICK_STUDIES[name].methods[-1:], *parse_refused()))
    result = run_study(study, images, tmp_path / "out", model=small(), shard_size=7)
    errors = result.table.errors()
    assert set(errors["method"]) == {"Refused"}
    assert errors["error"].str.contains("Refused: Not on this model.", regex=False).all()
    assert "Refused" not in set(result.table.read()["method"].dropna())
    assert "Not on this model" in result.summary


def parse_refused():
    from typing import ClassVar

    from whyfooled.errors import MethodError
    from whyfooled.registry import Card

    @dataclasses.dataclass(frozen=True)
    class Refused:
        card: ClassVar[Card] = Card("refused", "Refused", "Never works.", "nobody", "nothing")

        def __call__(self, classifier, images, classes):
            raise MethodError("Not on this model.")

    return (Refused(),)


@STUDY
def test_the_headline_is_a_number_for_every_shard(name, results):
    shards = sorted((results[name].folder / "shards").glob("*.parquet"))
    headlines = [read_about(shard)["headline"] for shard in shards]
    assert len(headlines) == (2 if name in FITTED else 3)
    assert sum(count for _, count in headlines) > 0
    assert all(0 <= total <= count for total, count in headlines)


@STUDY
def test_saved_adversarial_images_can_be_studied(name, tmp_path):
    if "outcome" not in type(QUICK_STUDIES[name]).columns or name in FITTED:
        return
    from whyfooled import attack_files

    (tmp_path / "photographs").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{number}.png")
    attack_files(small(), [tmp_path / "photographs"], FMN(steps=30), tmp_path / "adversaries")
    result = run_study(QUICK_STUDIES[name], tmp_path / "adversaries", tmp_path / "out", model=small())
    table = result.table.read()
    assert set(table["image"]) == {f"{number}.png" for number in range(4)}
    # Of several models, one may see another class than the one whose adversarial images they are.
    more = {"already wrong"} if "model" in table else set()
    # Of two clean images, whose maps are compared as well, none is attacked.
    more |= {"tested"} if name == "aware-attack" else set()
    assert set(table["outcome"].dropna()) <= {"", "fooled", "failed"} | more
    assert "fooled" in set(table["outcome"])
    if "attack" in table:
        assert set(table["attack"].dropna()) <= {"clean", "noise", "fmn(steps=30)"}
    assert open_source(tmp_path / "adversaries").attacks == ("fmn(steps=30)",)


def test_figures_are_figures(results):
    for name, result in results.items():
        assert isinstance(type(QUICK_STUDIES[name]).draw(result.table, 0), Figure)
        assert isinstance(result.table.read(), pd.DataFrame)
