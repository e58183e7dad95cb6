"""The pictures of universal perturbations: what is in the table is what is seen."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.models import blind, small
from tests.helpers.small_studies import write_images
from whyfooled import Gradient
from whyfooled.drawing.pictures import magnification
from whyfooled.images import to_tensor
from whyfooled.sources import open_source
from whyfooled.studies import Table, UniversalGallery, run_study
from whyfooled.studies.table import encode, join
from whyfooled.studies.universal.gallery_account import typical
from whyfooled.universal import RandomDirection, UniversalPerturbation, interpretation


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    images = write_images(folder / "images.npz", count=4)
    others = write_images(folder / "others.npz", count=3, seed=4)
    made = UniversalGallery(methods=(RandomDirection(),), epsilon=3.0, fit=others)
    return images, run_study(made, images, folder / "out", model=small(), shard_size=3)


def row_of(run, index, method):
    (row,) = run.table.read(where=[("index", "==", index), ("method", "==", method)]).to_dict("records")
    return row


def picture(content):
    return to_tensor(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("method", ["clean", "Random direction"])
def test_a_map_is_the_normalised_one_to_a_level_of_the_images_scale(result, method):
    images, run = result
    (file,) = (run.folder / "perturbations").iterdir()
    one = UniversalPerturbation.load(file)
    classifier = small()
    clean = open_source(images)[2].fitted(classifier.fit, 3).unsqueeze(0)
    true = classifier.predict(clean)
    both = [interpretation(Gradient()(classifier, x, true))[0] for x in (clean, one.apply(clean, clip=False))]
    scale = float(torch.stack(both).flatten().quantile(0.995, interpolation="higher"))
    row = row_of(run, 2, method)
    levels = np.frombuffer(row["map"], dtype=np.int8).reshape(row["height"], -1)
    expected = (both[method != "clean"] / scale).clamp(max=1)
    assert float((torch.from_numpy(levels / 127) - expected).abs().max()) <= 1 / 254 + 1e-5


def test_pictures_show_the_image_with_the_perturbation_and_the_perturbation_magnified(result):
    images, run = result
    (file,) = (run.folder / "perturbations").iterdir()
    one = UniversalPerturbation.load(file)
    row, clean = row_of(run, 1, "Random direction"), row_of(run, 1, "clean")
    image = open_source(images)[1].fitted(small().fit, 3)
    torch.testing.assert_close(picture(clean["picture"]), image)
    assert float((picture(row["picture"]) - (image + one.delta).clamp(0, 1)).abs().max()) <= 0.5 / 255 + 1e-6
    factor = magnification(one.delta)
    assert row["magnified"] == factor > 1
    assert float((picture(row["delta"]) - (0.5 + factor * one.delta).clamp(0, 1)).abs().max()) <= 0.5 / 255 + 1e-6
    seen = small().logits((image + one.delta).unsqueeze(0)).softmax(1)
    assert row["prediction"] == f"class {int(seen.argmax())}"
    assert row["probability"] == pytest.approx(float(seen.max()), rel=1e-4)
    assert clean["dissimilarity"] == 0


def test_typical_images_are_at_the_quartiles_of_the_first_perturbation(tmp_path):
    values = [0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6]
    rows = [{"index": i, "image": "x", "method": "clean", "outcome": "tested", "dissimilarity": 0.0} for i in range(9)]
    for method, sign in (("first", 1), ("second", -1)):
        for index, value in enumerate(values):
            facts = {"index": index, "image": "x", "method": method, "outcome": "tested"}
            rows.append({**facts, "dissimilarity": sign * value})
    rows.append({"index": 9, "image": "x", "outcome": "already wrong"})
    (tmp_path / "s").write_bytes(encode(rows, UniversalGallery.columns, {}))
    join([tmp_path / "s"], tmp_path / "t")
    assert [values[index] for index in typical(Table(tmp_path / "t"), 3)] == [0.3, 0.5, 0.7]
    assert len(typical(Table(tmp_path / "t"), 50)) == 9


def test_the_summary_lists_the_images_shown(result):
    _, run = result
    rows = run.about["results"][0]["rows"]
    assert {row["perturbation"] for row in rows} == {"clean", "Random direction"}
    assert "Shown are 3 typical images" in run.summary


def test_empty_maps_have_pictures_and_no_d(tmp_path):
    images, others = write_images(tmp_path / "a.npz", count=3), write_images(tmp_path / "b.npz", count=2, seed=4)
    made = UniversalGallery(methods=(RandomDirection(),), fit=others)
    run = run_study(made, images, tmp_path / "out", model=blind())
    assert run.table.read()["dissimilarity"].isna().all()
    assert len(typical(run.table, 3)) == 3
