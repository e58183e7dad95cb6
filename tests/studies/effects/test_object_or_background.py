"""Named regions over many images: on a model that sees the top rows alone, the rest of an image does not matter."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import BIM, Classifier, Fit, Untargeted, run_attack
from whyfooled.errors import ImageError, ParameterError
from whyfooled.sources import open_source
from whyfooled.studies import ObjectOrBackground, run_study


class TopRows(nn.Module):
    """Sees the upper half alone: class 0 where it is darker than grey."""

    def forward(self, x):
        brightness = 20 * (x[:, :, :8].mean((1, 2, 3)) - 0.5)
        return torch.stack([-brightness, brightness], 1)


def top_rows():
    return Classifier(TopRows(), size=(16, 16), name="top rows")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Photographs of twice the input size, and their label maps: 1 above, 0 below, a line of 2 at the very bottom."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "photographs").mkdir()
    (folder / "masks").mkdir()
    labels = np.zeros((32, 32), dtype=np.uint8)
    labels[:16], labels[30:] = 1, 2
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photographs" / f"{number}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
    (folder / "names.csv").write_text("label,name\n0,background\n1,object\n2,background\n")
    return folder


def make_study(world, **more):
    attack = BIM(epsilon=0.2, steps=5)
    return ObjectOrBackground(masks=str(world / "masks"), names=str(world / "names.csv"), attacks=(attack,), **more)


@pytest.fixture(scope="module")
def result(world, tmp_path_factory):
    return run_study(
        make_study(world), world / "photographs", tmp_path_factory.mktemp("out") / "o", model=top_rows(), batch_size=5
    )


def test_the_region_that_the_model_sees_has_all_of_the_effect(result):
    rows = result.table.read()
    assert len(rows) == 12 * 2
    assert set(rows["outcome"]) == {"fooled"}
    top, rest = (rows[rows["region"] == name] for name in ("object", "background"))
    assert (top["area"] == 0.5).all()
    assert top["energy"].to_numpy() == pytest.approx(1)
    assert (top["cleaned"] == 1).all()
    assert (rest[["energy", "effect", "cleaned", "inside"]] == 0).all().all()
    assert (top["inside"] == 1).all()
    assert rest["inside_l2"].isna().all()
    # What an attack needs inside the region is what it needs anywhere, as it can act nowhere else.
    assert top["inside_l2"].to_numpy() == pytest.approx(top["l2"].to_numpy())
    assert top["energy_by_chance"].max() < 1


def test_an_attack_inside_a_region_is_that_with_its_mask(world, result):
    row = result.table.read(where=[("region", "==", "object")]).iloc[3]
    clean = open_source(world / "photographs")[int(row["index"])].fitted(Fit((16, 16)), 3).unsqueeze(0)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[:, :, :8] = True
    model = top_rows()
    again = run_attack(BIM(epsilon=0.2, steps=5), model, clean, Untargeted(model.predict(clean)), mask=mask)
    assert row["inside_l2"] == pytest.approx(float(again.l2))


def test_regions_are_compared_with_themselves_elsewhere(result):
    results = json.loads((result.folder / "study.json").read_text())["results"]
    energy = {row["region"]: row for row in results[0]["rows"]}
    rows = result.table.read(where=[("region", "==", "object")])
    gap = (rows["energy"] - rows["energy_by_chance"]).mean()
    assert energy["object"]["difference"]["mean"] == pytest.approx(gap)
    assert energy["object"]["share of the pixels"]["mean"] == pytest.approx(0.5)
    assert "differences from chance are clear, by tests of the paired differences, corrected (Holm)" in result.summary
    assert "object under bim(epsilon=0.2, steps=5), share of ‖δ‖² 1.000, more than" in result.summary


def test_few_images_say_nothing_and_attacks_inside_can_be_left_out(world, tmp_path):
    few = run_study(make_study(world, inside=False), world / "photographs", tmp_path / "o", model=top_rows(), count=3)
    assert "Of fewer than 10 images with a region nothing can be said about which differ from chance." in few.summary
    assert few.table.read()["inside"].isna().all()


def test_a_label_map_that_is_missing_or_of_another_size_is_said(world, tmp_path):
    with pytest.raises(ParameterError, match="`masks` must be a folder with a label map for each image"):
        run_study(ObjectOrBackground(attacks=(BIM(),)), world / "photographs", tmp_path / "a", model=small())
    (tmp_path / "masks").mkdir()
    study = ObjectOrBackground(masks=str(tmp_path / "masks"), attacks=(BIM(),))
    expected = "There is no label map of 0.png in masks: it would be called 0.png, or end in .npy, .bmp,"
    with pytest.raises(ImageError, match=expected):
        run_study(study, world / "photographs", tmp_path / "b", model=small(), count=None)
    images = write_images(tmp_path / "i.npz", count=1)
    (tmp_path / "masks" / "images").mkdir()
    name = open_source(images).name(0)
    path = tmp_path / "masks" / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.zeros((7, 9), dtype=np.int64))
    with pytest.raises(ImageError, match=r"must be of 16 × 16, as the photograph, or 16 × 16, .* it is 7 × 9"):
        run_study(study, images, tmp_path / "c", model=small())
