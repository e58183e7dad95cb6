"""The grid: what its pictures hold, and which images it shows."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import FGSM, FMN, Gradient
from whyfooled.images import to_tensor
from whyfooled.sources import open_source
from whyfooled.studies import SaliencyGrid, Table, run_study
from whyfooled.studies.parts.pictures import choose_most_telling
from whyfooled.studies.table import encode, join


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    images = write_images(folder / "i.npz", count=5)
    study = SaliencyGrid(attacks=(FGSM(epsilon=0.02), FMN(steps=30)), methods=(Gradient(),))
    return images, run_study(study, images, folder / "out", model=small())


def test_a_map_in_the_table_is_the_methods_to_a_level_of_its_scale(result):
    images, run = result
    classifier = small()
    image = open_source(images)[2].fitted(classifier.fit, 3).unsqueeze(0)
    expected = Gradient()(classifier, image, classifier.predict(image))[0].sum(0)
    rows = run.table.read(where=[("index", "==", 2), ("attack", "==", "clean"), ("method", "==", "Gradient")])
    (row,) = rows.to_dict("records")
    levels = np.frombuffer(row["map"], dtype=np.int8).reshape(row["height"], -1)
    found = torch.from_numpy(levels / 127 * row["scale"]).float()
    clipped = expected.clamp(-row["scale"], row["scale"])
    assert float((found - clipped).abs().max()) <= row["scale"] / 254 + 1e-6
    assert row["moved"] == pytest.approx(0, abs=1e-9)


def test_pictures_and_predictions_are_those_of_the_images(result):
    images, run = result
    rows = run.table.read(where=[("index", "==", 1), ("attack", "==", "clean")])
    (row,) = rows[rows["method"].isna()].to_dict("records")
    classifier = small()
    image = open_source(images)[1].fitted(classifier.fit, 3)
    torch.testing.assert_close(to_tensor(Image.open(io.BytesIO(row["picture"]))), image)
    probabilities = classifier.logits(image.unsqueeze(0)).softmax(1)[0]
    assert row["prediction"] == f"class {int(probabilities.argmax())}"
    assert row["probability"] == pytest.approx(float(probabilities.max()), rel=1e-5)


def test_all_maps_of_a_method_and_image_have_one_scale(result):
    _, run = result
    rows = run.table.read(["index", "method", "scale"])
    assert (rows.dropna().groupby("index")["scale"].nunique() == 1).all()


def test_the_choose_most_telling_images_are_those_that_most_attacks_fool_and_whose_map_moves_most(tmp_path):
    facts = [  # image, attack, outcome, how far the map moved
        (0, "a", "fooled", 0.9),
        (0, "b", "failed", 0.9),
        (1, "a", "fooled", 0.1),
        (1, "b", "fooled", 0.2),
        (2, "a", "fooled", 0.3),
        (2, "b", "fooled", 0.4),
        (3, "a", "failed", 1.0),
        (3, "b", "failed", 1.0),
    ]
    rows = [{"index": i, "image": str(i), "attack": a, "outcome": o, "method": "m", "moved": d} for i, a, o, d in facts]
    (tmp_path / "s").write_bytes(encode(rows, SaliencyGrid.columns, {}))
    join([tmp_path / "s"], tmp_path / "t")
    assert choose_most_telling(Table(tmp_path / "t"), 3) == [2, 1, 0]
    assert choose_most_telling(Table(tmp_path / "t"), 9) == [2, 1, 0, 3]
