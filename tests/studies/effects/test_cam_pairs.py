"""Four maps of each pair of images, where it is known how they change."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from tests.helpers.patch_world import PATCH, Patch, There, classifier, write_dark_images
from whyfooled.errors import ParameterError
from whyfooled.registry import Card
from whyfooled.studies import CAMPairs, run_study
from whyfooled.studies.effects.cam_pairs import compare_maps
from whyfooled.studies.effects.cam_pairs_account import KINDS, SAID, say_ratio
from whyfooled.studies.parts.pictures import from_levels, from_png
from whyfooled.tensors.statistics import Interval

FOUR = {
    "true_clean": PATCH,
    "promoted_clean": 0.5 * PATCH.flip(1),
    "true_attacked": 0.25 * PATCH.roll(1, 1),
    "promoted_attacked": PATCH.roll(2, 1),
}
"""The maps of class 0, which is true, and of class 1, before and after."""


@dataclass(frozen=True)
class Moving:
    """Maps that depend on the class, and on which class is seen."""

    card: ClassVar[Card] = Card("moving", "Moving", "Four patches.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        before, after = torch.stack([*FOUR.values()]).split(2)
        is_after = classifier.predict(images) == 1
        both = torch.where(is_after.view(-1, 1, 1, 1), after, before)
        chosen = classes.reshape(len(classes), -1)[..., None, None].expand(-1, -1, *PATCH.shape)
        return both.gather(1, chosen).view(*classes.shape, 1, *PATCH.shape)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    study = CAMPairs(attacks=(Patch(),), methods=(Moving(),), target=None)
    return run_study(study, write_dark_images(folder / "i.npz"), folder / "out", model=classifier())


@pytest.fixture(scope="module")
def rows(result):
    rows = result.table.read()
    return rows[rows["method"].notna()]


def test_the_four_maps_are_those_of_both_classes_before_and_after_on_one_scale(rows):
    fooled = rows[rows["outcome"] == "fooled"]
    assert set(fooled["index"]) == set(range(2, 14))
    assert set(fooled["scale"]) == {1.0}
    assert not fooled["signed"].astype(bool).any()
    for row in fooled.to_dict("records"):
        assert (row["true_class"], row["promoted_class"]) == ("class 0", "class 1")
        for kind in KINDS:
            found = from_levels(row[f"map_{kind}"], int(row["height"]))
            torch.testing.assert_close(found, FOUR[kind].double(), rtol=0, atol=1 / 254 + 1e-6)


def test_numbers_are_those_by_hand(rows):
    expected = {
        "true_clean": 12 / 64,
        "true_attacked": 3 / 64,
        "promoted_clean": 6 / 64,
        "promoted_attacked": 12 / 64,
        "true_change": -0.75,
        "promoted_change": 0.5,
        # Of twelve pixels in three columns, eight are left, and none.
        "true_cosine": 8 / 12,
        "promoted_cosine": 0,
        "true_overlap": 8 / 16,
        "promoted_overlap": 0,
        "overlap_clean": 0,
        "overlap_attacked": 8 / 16,
        # Both maps as one: (12 + 3) · (3/4 + 12) are the squares, 8 · 1/4 the product.
        "moved": 1 - 2 / (15 * 12.75) ** 0.5,
    }
    fooled = rows[rows["outcome"] == "fooled"]
    for column, value in expected.items():
        assert fooled[column].tolist() == pytest.approx([value] * 12), column


def test_an_attack_that_failed_changes_nothing_here(rows):
    (row,) = rows[rows["index"] == 0].to_dict("records")
    assert row["outcome"] == "failed"
    assert (row["true_change"], row["promoted_change"]) == (0, 0)
    assert row["true_cosine"] == pytest.approx(1)
    assert row["moved"] == pytest.approx(0, abs=1e-9)
    assert row["map_true_clean"] == row["map_true_attacked"]


def test_pictures_are_those_of_both_images(result):
    pictures = result.table.read()
    pictures = pictures[pictures["method"].isna() & (pictures["index"] == 5)]
    before, after = (torch.tensor(np.asarray(from_png(png), dtype=int)) for png in pictures["picture"])
    assert pictures["attack"].tolist() == ["clean", "patch"]
    assert pictures["prediction"].tolist() == ["class 0", "class 1"]
    changed = (after - before).float().mean(2)
    assert torch.equal(changed > 0, PATCH > 0)


def test_what_it_says(result):
    text = (
        "patch, Moving: the positive part of the true class's map becomes 0.25 times what it was, that of the promoted "
        "class's 2 times what it was (medians of 12 images). The first falls, the second rises"
    )
    assert text in result.summary
    assert "Two independent regions of 30 % of the pixels overlap by about 0.18" in result.summary
    assert "Shown are 3 of 14 images" in result.summary
    # The method fails on the image of a third class.
    assert "Measured are the images that fool the classifier: patch 12 of 13." in result.summary


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.2, "rises"), (-0.2, -0.1, "falls"), (-0.1, 0.1, "is not seen to change"), (0, 0, "is not seen to change")],
)
def test_no_more_is_said_than_the_interval_shows(low, high, said):
    assert SAID[Interval((low + high) / 2, low, high, 20).side()] == said


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(0.25, "0.25 times what it was"), (float("inf"), "more than the 0 that it was"), (float("nan"), "0 as it was")],
)
def test_an_empty_map_has_no_multiple(ratio, said):
    assert say_ratio(ratio) == said


def test_maps_that_do_not_change_neither_fall_nor_rise(tmp_path):
    study = CAMPairs(attacks=(Patch(),), methods=(There(),), target=None)
    said = run_study(study, write_dark_images(tmp_path / "i.npz"), tmp_path / "out", model=classifier()).summary
    assert "becomes 1 times what it was" in said
    assert "The first is not seen to change, the second is not seen to change" in said


def test_where_nothing_is_fooled_the_pictures_are_shown_all_the_same(tmp_path):
    study = CAMPairs(attacks=(Patch(),), methods=(There(),), target=None)
    images = write_dark_images(tmp_path / "i.npz", count=2)
    result = run_study(study, images, tmp_path / "out", model=classifier())
    assert "No attack fooled the classifier on any image" in result.summary
    assert "patch 0 of 1. Of 2 images 1 were misclassified before any attack." in result.summary
    assert "where most attacks succeed" not in result.summary
    assert (result.folder / "figure.png").exists()


def test_a_map_that_is_empty_overlaps_with_nothing_that_could_be_said():
    empty = torch.zeros(1, 8, 8)
    maps = torch.stack([torch.stack([empty, PATCH[None], PATCH[None], PATCH[None]])])
    found = compare_maps(maps, 0.3)
    assert found["true_change"].tolist() == [1]
    for name in ("true_cosine", "true_overlap", "overlap_clean"):
        assert found[name].isnan().all()
    assert found["overlap_attacked"].tolist() == [1]


def test_bad_parameters_are_refused():
    with pytest.raises(ParameterError, match="must be a share of the pixels"):
        CAMPairs(quantile=0)
