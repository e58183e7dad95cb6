"""What a universal perturbation does to test images, against brute force; what a test must not be given."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import skimage.data
import torch
from PIL import Image

from tests.helpers.models import small
from tests.helpers.planted_maps import Dark, along, directions, grey, noise
from whyfooled import Classifier
from whyfooled.errors import ImageError, ParameterError, WhyfooledWarning
from whyfooled.saliency import CAM, Gradient
from whyfooled.tensors.measures import structural_similarity
from whyfooled.tensors.randomness import random_directions
from whyfooled.universal import RandomDirection, UniversalPerturbation, changes, evaluate
from whyfooled.universal.evaluation import BRIGHTNESS, MEASURES, RANDOM, REVERSED, UNIVERSAL, random_like

SIDE = 12


def scene(count=4):
    classifier, images = small(side=SIDE), noise(count, side=SIDE)
    return classifier, images, classifier.predict(images)


def made(epsilon=3.0, ball="l2"):
    drawn = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    delta = epsilon * (drawn / drawn.norm() if ball == "l2" else drawn.sign())
    return UniversalPerturbation(delta, epsilon=epsilon, ball=ball)


def interpreted(classifier, image, shown):
    """Normalise the gradient of a logit, as the paper says it, in NumPy."""
    inputs = image[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(classifier(inputs)[0, shown], inputs)
    sizes = slope[0].abs().sum(0).double().numpy()
    return sizes / sizes.sum()


def measured(classifier, image, shown, moved):
    """Measure one image by brute force."""
    first, second = interpreted(classifier, image, shown), interpreted(classifier, moved, shown)
    top = round(0.05 * first.size)
    tops = [set(np.argsort(-one.ravel(), kind="stable")[:top].tolist()) for one in (first, second)]
    rows, columns = np.mgrid[:SIDE, :SIDE]
    centres = [((rows * one).sum(), (columns * one).sum()) for one in (first, second)]
    maps = (torch.from_numpy(one)[None, None].float() for one in (first, second))
    return {
        "dissimilarity": np.linalg.norm(first - second) / np.linalg.norm(first),
        "fooled": float(int(classifier(moved[None]).argmax()) != shown),
        "top_overlap": len(tops[0] & tops[1]) / top,
        "rank_correlation": scipy.stats.spearmanr(first.ravel(), second.ravel()).statistic,
        "structural_similarity": float(structural_similarity(*maps)),
        "centre_shift": math.dist(*centres),
    }


@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_every_row_is_what_brute_force_says(ball):
    classifier, images, classes = scene()
    perturbation = made(3.0 if ball == "l2" else 0.1, ball)
    found = evaluate(classifier, perturbation, (images, classes), batch_size=3, directions=3).to_frame()
    assert list(found.columns) == ["image", "class", "perturbation", "direction", "clipped", *MEASURES]
    assert len(found) == 4 * 2 * (1 + 3 + 1 + 2)
    drawn = list(random_directions(images.shape[1:], 3, 0))
    for row in found.to_dict("records"):
        place = int(row["image"])
        image, delta = images[place], perturbation.delta
        if row["perturbation"] == RANDOM:
            direction = drawn[int(row["direction"])]
            delta = 3.0 * direction / direction.norm() if ball == "l2" else 0.1 * direction.sign()
        if row["perturbation"] == REVERSED:
            delta = -delta
        if row["perturbation"] == BRIGHTNESS:
            # As long as the perturbation, or as large.
            even = 3.0 / math.sqrt(3 * SIDE * SIDE) if ball == "l2" else 0.1
            delta = torch.full_like(image, even * (1 - 2 * row["direction"]))
        moved = (image + delta).clamp(0, 1) if row["clipped"] else image + delta
        assert row["class"] == classes[place]
        expected = measured(classifier, image, int(classes[place]), moved)
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert set(found["perturbation"]) == {UNIVERSAL, RANDOM, REVERSED, BRIGHTNESS}
    assert 0 < found["fooled"].mean() < 1 or found["dissimilarity"].min() > 0.05


@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_random_directions_have_the_perturbation_s_norm_and_are_each_image_s_own(ball):
    images = noise(3, side=SIDE)
    found = random_like(made(0.5, ball), images, 0) - images
    sizes = found.flatten(1).norm(dim=1) if ball == "l2" else found.flatten(1).abs().amax(1)
    torch.testing.assert_close(sizes, torch.full((3,), 0.5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(random_like(made(0.5, ball), images[[2]], 0) - images[[2]], found[[2]])
    assert torch.corrcoef(found.flatten(1)).fill_diagonal_(0).abs().max() < 0.3


def test_random_directions_of_many_values_have_the_norm_in_half_precision_too():
    images = noise(2, side=224).half()
    made = UniversalPerturbation(torch.full((3, 224, 224), 0.1), 40.0)
    sizes = (random_like(made, images, 0).double() - images.double()).flatten(1).norm(dim=1)
    assert sizes == pytest.approx(torch.full((2,), made.l2), rel=1e-2)


def test_means_and_the_gain_are_paired_by_image():
    classifier, images, classes = scene(6)
    found = evaluate(classifier, made(), (images, classes))
    table = found.to_frame()
    for clipped in (False, True):
        by_image = [
            table[(table["perturbation"] == name) & (table["clipped"] == clipped)].groupby("image")["dissimilarity"]
            for name in (UNIVERSAL, RANDOM)
        ]
        own = [of_images.mean().to_numpy() for of_images in by_image]
        assert found.intervals(clipped=clipped)["dissimilarity"].mean == pytest.approx(own[0].mean())
        assert found.intervals(RANDOM, clipped=clipped)["dissimilarity"].mean == pytest.approx(own[1].mean())
        gain = found.gain(clipped=clipped)
        assert gain.mean == pytest.approx((own[0] - own[1]).mean())
        assert gain.low <= gain.mean <= gain.high
        assert gain.count == 6
    assert found.count == 6
    assert found.summary_table().columns[2:] == tuple(MEASURES.values())
    assert [row[0] for row in found.summary_table().rows] == 2 * [UNIVERSAL, REVERSED, RANDOM, BRIGHTNESS]


def test_the_share_of_images_altered_is_that_beyond_one_more_random_direction():
    classifier, images, classes = scene(3)
    found = evaluate(classifier, made(), (images, classes), directions=4)
    table, names = found.to_frame(), ["0", "1", "2"]
    draws = np.array([[0.5, 0.6, 0.55, 0.65], [0.2, 0.2, 0.2, 0.2], [0.1, 0.9, 0.4, 0.6]])
    # In the first row the bound is .575 + 2.353 · .0645 · √1.25 = .745; in the second .2; in the third 1.32.
    for name, row, reached in zip(names, draws, (0.75, 0.21, 1.3), strict=True):
        for number, value in enumerate(row):
            chosen = (table["image"] == name) & (table["perturbation"] == RANDOM) & (table["direction"] == number)
            table.loc[chosen, "dissimilarity"] = value
        table.loc[(table["image"] == name) & (table["perturbation"] == UNIVERSAL), "dissimilarity"] = reached
    ours, chance = found.altered()
    assert ours.mean == pytest.approx(2 / 3)
    # None of the draws is beyond the three others.
    assert chance.mean == 0
    assert (ours.count, chance.count) == (3, 3)
    table.loc[(table["image"] == "1") & (table["perturbation"] == UNIVERSAL), "dissimilarity"] = math.nan
    assert found.altered()[0].count == 2


def test_a_gain_over_itself_is_none_and_of_equal_differences_certain():
    classifier, images, classes = scene(3)
    found = evaluate(classifier, made(), (images, classes))
    table = found.to_frame()
    universal = table[table["perturbation"] == UNIVERSAL].set_index(["image", "clipped"])["dissimilarity"]
    random = table["perturbation"] == RANDOM
    places = pd.MultiIndex.from_frame(table.loc[random, ["image", "clipped"]])
    table.loc[random, "dissimilarity"] = universal.loc[places].to_numpy() - 0.25
    gain = found.gain()
    # The images differ; their differences do not.
    assert table["dissimilarity"].std() > 0.01
    assert [gain.mean, gain.low, gain.high] == pytest.approx([0.25] * 3)


def test_the_batch_changes_nothing():
    classifier, images, classes = scene(5)
    one, four = (evaluate(classifier, made(), (images, classes), batch_size=size).to_frame() for size in (1, 4))
    one, four = (
        table.sort_values(["image", "perturbation", "clipped"]).reset_index(drop=True) for table in (one, four)
    )
    assert one[["image", "class"]].equals(four[["image", "class"]])
    np.testing.assert_allclose(one[list(MEASURES)], four[list(MEASURES)], rtol=1e-3, atol=1e-4)


def test_images_that_are_classified_wrong_are_left_out():
    classifier, images, classes = scene(5)
    given = classes.clone()
    given[[0, 3]] = (given[[0, 3]] + 1) % 5
    found = evaluate(classifier, made(), (images, given), batch_size=2)
    assert found.wrong == 2
    assert set(found.to_frame()["image"]) == {"1", "2", "4"}
    with pytest.raises(ImageError, match="None of the 5 images is classified as what it shows"):
        evaluate(classifier, made(), (images, (classes + 1) % 5))


def pictures(folder, count=4, side=SIDE, seed=0):
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{number}.png")
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("side", [SIDE, 30])
def test_images_that_were_fitted_to_are_refused_under_any_name_and_type(side, tmp_path):
    classifier = small(side=SIDE)
    pictures(tmp_path / "fit", 4, side)
    found = RandomDirection(epsilon=1).fit(classifier, tmp_path / "fit")
    other = pictures(tmp_path / "test", 3, side, seed=1)
    assert evaluate(classifier, found, tmp_path / "test").count == 3
    (tmp_path / "fit" / "2.png").rename(tmp_path / "test" / "another.png")
    refused = "must be ones that the perturbation was not fitted to.*got 1 of 4 that it was, such as .*another"
    with pytest.raises(ParameterError, match=refused):
        evaluate(classifier, found, tmp_path / "test")
    # What went into the model, as a tensor.
    fitted = classifier.prepare(Image.open(tmp_path / "test" / "another.png"))
    tensors = torch.cat([noise(2, side=SIDE, seed=7), fitted])
    with pytest.raises(ParameterError, match="got 1 of 3 that it was, such as 2"):
        evaluate(classifier, found, (tensors, classifier.predict(tensors)))
    # And the other way: fitted to tensors, tested on pictures.
    if side == SIDE:
        found = RandomDirection(epsilon=1).fit(classifier, (other, classifier.predict(other)))
        (tmp_path / "test" / "another.png").unlink()
        with pytest.raises(ParameterError, match="got 3 of 3 that it was"):
            evaluate(classifier, found, tmp_path / "test")


def test_images_that_look_like_ones_that_were_fitted_to_are_warned_of(tmp_path):
    classifier = small(side=SIDE)
    (tmp_path / "fit").mkdir()
    (tmp_path / "test").mkdir()
    coffee = Image.fromarray(skimage.data.coffee()).resize((96, 96))
    coffee.save(tmp_path / "fit" / "coffee.png")
    coffee.save(tmp_path / "test" / "again.jpg", quality=60)
    coffee.rotate(180).save(tmp_path / "test" / "turned.png")
    found = RandomDirection(epsilon=1).fit(classifier, tmp_path / "fit")
    found.save(tmp_path / "found.safetensors")
    said = "1 of the 2 test images look like images that the perturbation was fitted to, such as again.jpg, though"
    with pytest.warns(WhyfooledWarning, match=said):
        assert evaluate(classifier, UniversalPerturbation.load(tmp_path / "found.safetensors"), tmp_path / "test").count


def test_one_made_elsewhere_is_tested_on_anything():
    classifier, images, classes = scene(2)
    assert evaluate(classifier, made(), (images, classes)).count == 2


def test_images_that_cannot_be_read_are_named(tmp_path):
    classifier = small(side=SIDE)
    pictures(tmp_path / "test", 3)
    (tmp_path / "test" / "1.png").write_bytes(b"no picture")
    found = evaluate(classifier, made(), tmp_path / "test")
    assert found.count == 2
    assert list(found.unreadable) == ["1.png"]
    assert "1.png" in found.unreadable["1.png"]


def test_a_count_is_drawn_by_the_seed():
    classifier, images, classes = scene(8)
    found = [
        set(evaluate(classifier, made(), (images, classes), count=3, seed=seed).to_frame()["image"])
        for seed in (0, 0, 1)
    ]
    assert len(found[0]) == 3
    assert found[0] == found[1] != found[2]


def test_empty_maps_are_missing_values():
    classifier = Classifier(Dark(small(side=SIDE).module), mean=(0.0,) * 3, std=(1.0,) * 3, size=(SIDE, SIDE))
    images = torch.cat([0.1 * noise(1, side=SIDE), noise(1, side=SIDE, seed=1)])
    classes = classifier.predict(images)
    found = changes(Gradient(), classifier, images, classes, images.flip(0))
    assert found["dissimilarity"][1] == 1
    assert found["dissimilarity"][0].isnan()
    for name in ("top_overlap", "rank_correlation", "structural_similarity", "centre_shift"):
        assert found[name].isnan().all(), name
    # As long as the perturbation is small, the dark image stays dark.
    table = evaluate(classifier, made(0.01), (images, classes))
    assert table.intervals()["dissimilarity"].count == 1
    assert math.isfinite(table.intervals()["dissimilarity"].mean)
    assert math.isfinite(table.gain().mean)


def test_any_saliency_method_will_do_and_small_maps_have_no_ssim():
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )
    classifier = grey(plain)
    images = along(directions(1)[0], torch.linspace(-1, 1, 3)).clamp(0, 1)
    perturbation = UniversalPerturbation(0.1 * directions(1, seed=1).view(1, 8, 8), epsilon=0.1)
    found = evaluate(classifier, perturbation, (images, classifier.predict(images)), CAM())
    assert found.saliency == "cam"
    assert found.intervals()["structural_similarity"].count == 0


def test_another_size_and_a_bad_batch_are_refused():
    classifier, images, classes = scene(2)
    with pytest.raises(ImageError, match=r"size of the images, \(3, 12, 12\); got \(3, 8, 8\)"):
        evaluate(classifier, UniversalPerturbation(torch.ones(3, 8, 8), epsilon=1.0), (images, classes))
    with pytest.raises(ParameterError, match="`batch_size` must be at least 1"):
        evaluate(classifier, made(), (images, classes), batch_size=0)
