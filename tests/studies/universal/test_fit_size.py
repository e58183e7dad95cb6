"""D over the number of images to fit to: which images are drawn, and what is averaged."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.helpers.models import blind, small
from tests.helpers.small_studies import write_images
from whyfooled.errors import ImageError, ParameterError
from whyfooled.studies import FitSize, run_study
from whyfooled.studies.universal.comparison import CHANCE
from whyfooled.universal import UPIPCA, RandomDirection, UniversalPerturbation
from whyfooled.universal.evaluation import DIRECTIONS

STUDY = FitSize(methods=(UPIPCA(passes=1, samples=1),), sizes=(4, 2), repeats=2, epsilon=2.0)


@pytest.fixture
def world(tmp_path):
    images = write_images(tmp_path / "images.npz", count=5)
    others = write_images(tmp_path / "others.npz", count=6, seed=5)
    return tmp_path, images, replace(STUDY, fit=others)


def run(images, folder, made):
    return run_study(made, images, folder, model=small(), shard_size=3, batch_size=4, workers=1)


def test_a_smaller_draw_is_part_of_a_larger_one_and_repeats_draw_others(world):
    folder, images, made = world
    run(images, folder / "out", made)
    kept = [UniversalPerturbation.load(path) for path in (folder / "out" / "perturbations").iterdir()]
    # 16 x 16 pictures go in as they are, so each has one digest.
    by_draw = {("seed=1" in one.method, len(one.fitted_to)): one.fitted_to for one in kept}
    assert set(by_draw) == {(False, 2), (False, 4), (True, 2), (True, 4)}
    for repeat in (False, True):
        assert by_draw[repeat, 2] < by_draw[repeat, 4]
    assert by_draw[False, 4] != by_draw[True, 4]


def test_means_are_over_images_and_draws_and_single_draws_are_told(world):
    folder, images, made = world
    result = run(images, folder / "out", made)
    table = result.table.read()
    assert len(table) == 5 * (2 * 2 + DIRECTIONS)
    rows = {row["images drawn"]: row for row in result.about["results"][0]["rows"]}
    for size in (2, 4):
        own = table[table["size"] == size]
        assert rows[size]["D"]["mean"] == pytest.approx(own["dissimilarity"].mean())
        assert rows[size]["D"]["images"] == 5
        draws = own.groupby("repeat")["dissimilarity"].mean()
        assert rows[size]["of single draws"] == f"{draws.min():.3f} to {draws.max():.3f}"
        over = own["dissimilarity"].mean() - table.loc[table["method"] == CHANCE, "dissimilarity"].mean()
        assert rows[size]["minus chance"]["mean"] == pytest.approx(over)
    assert rows[None]["D"]["images"] == 5
    assert "of fewer than 10 test images nothing can be said" in result.summary


def test_sizes_that_there_are_not_enough_images_for_are_left_out_and_named(world):
    folder, images, made = world
    result = run(images, folder / "out", replace(made, sizes=(2, 6, 7, 30)))
    assert set(result.table.read()["size"].dropna()) == {2, 6}
    assert "Note: Left out: 7, 30 images to fit to; there are 6." in result.summary
    with pytest.raises(ImageError, match="There are 6 images to fit to, fewer than the 7 asked for"):
        run(images, folder / "none", replace(made, sizes=(7, 8)))


def test_a_random_direction_is_another_one_in_every_repeat(world):
    folder, images, made = world
    table = run(images, folder / "out", replace(made, methods=(RandomDirection(),), sizes=(2,))).table.read()
    means = table[table["size"] == 2].groupby("repeat")["dissimilarity"].mean()
    assert means[0] != means[1]


def test_an_unreadable_image_is_left_out_of_the_fits_and_named(world):
    folder, images, made = world
    (folder / "fit").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(50 + number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "fit" / f"{number}.png")
    (folder / "fit" / "1.png").write_bytes(b"\x89PNG damaged")
    result = run(images, folder / "out", replace(made, fit=str(folder / "fit"), sizes=(3, 4)))
    assert set(result.table.read()["size"].dropna()) == {3}
    assert "Note: 1.png cannot be fitted to:" in result.summary


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sizes": ()}, "`sizes` must have at least one entry"),
        ({"sizes": (4, 4)}, "`sizes` must have at least one entry, and each once"),
        ({"sizes": (0, 4)}, "`sizes` must be at least 1; got 0"),
        ({"repeats": 0}, "`repeats` must be at least 1; got 0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(ParameterError, match=said):
        replace(STUDY, **changed)


def test_empty_maps_have_no_d(tmp_path):
    images, others = write_images(tmp_path / "a.npz", count=3), write_images(tmp_path / "b.npz", count=2, seed=4)
    made = FitSize(methods=(RandomDirection(),), sizes=(1, 2), fit=others)
    result = run_study(made, images, tmp_path / "out", model=blind())
    assert "nan" not in result.summary
    assert [row["D"]["mean"] for row in result.about["results"][0]["rows"]] == [None] * 3
