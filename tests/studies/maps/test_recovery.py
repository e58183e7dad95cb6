"""Recovery, on a classifier that one pixel decides."""

from dataclasses import dataclass
from typing import ClassVar

import jaxtyping
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import FGSM, Classifier, Gradient, GuidedBackprop, Untargeted, choose_targets, run_attack
from whyfooled.errors import ImageError, ParameterError
from whyfooled.registry import Card
from whyfooled.sources import open_source
from whyfooled.studies import Recovery, run_study
from whyfooled.studies.maps.recovery_account import RANDOM, SIZE, integrate
from whyfooled.tensors.statistics import Interval


class Corner(nn.Module):
    """Class 1 as long as the first pixel is brighter than 0.999."""

    def forward(self, x):
        bright = 100 * (x[:, :, 0, 0].mean(1) - 0.999)
        return torch.stack([torch.zeros_like(bright), bright], dim=1)


def corner():
    return Classifier(Corner(), size=(10, 10), name="corner")


def brighten(classifier, images, goal):
    """Make the first pixel white."""
    images = images.clone()
    images[:, :, 0, 0] = 1
    return images


@dataclass(frozen=True)
class Points:
    """A map that points at one pixel.

    Parameters
    ----------
    place
        Which pixel, row and column.
    """

    place: int = 0

    card: ClassVar[Card] = Card("points", "Points", "Points at a pixel.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        maps = images.new_zeros(*classes.shape, *images.shape[1:])
        maps[..., self.place, self.place] = 1
        return maps


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recovery")
    images = write_images(folder / "i.npz", count=6, side=10)
    study = Recovery(
        attack=brighten, methods=(Points(), Points(5)), fills=("zero", "blur"), fractions=(0.01, 0.5), random_orders=3
    )
    return run_study(study, images, folder / "out", model=corner())


def curve(result, method, fill="zero"):
    rows = result.table.read(where=[("method", "==", method), ("fill", "==", fill)])
    return rows.groupby("fraction")["recovered"].mean().tolist()


def test_pointing_at_the_pixel_that_decides_brings_the_true_class_back(result):
    assert curve(result, "Points") == [1, 1]
    assert curve(result, SIZE) == [1, 1]


def test_pointing_elsewhere_does_not_until_chance_reaches_it(result):
    wrong = curve(result, "Points (place=5)")
    assert wrong[0] == 0
    assert 0 < wrong[1] < 1 or wrong[1] in (0, 1)
    random = curve(result, RANDOM)
    assert random[0] < 0.2
    assert 0.1 < random[1] < 0.9


def test_the_summary_ranks_methods_and_compares_them_in_pairs(result):
    (zero, _) = result.about["results"] if "results" in result.about else _results(result)
    rows = {row["order of the pixels"]: row for row in zero["rows"]}
    assert rows["Points"]["recovered"]["mean"] == 1
    # Linear from 0 at 0 % to 1 at 1 %, then 1 up to 50 %.
    assert rows["Points"]["area"]["mean"] == pytest.approx((0.01 / 2 + 0.49) / 0.5)
    assert rows["Points"]["minus Points"] is None
    other = rows["Points (place=5)"]
    assert other["minus Points"]["mean"] == pytest.approx(other["recovered"]["mean"] - 1)
    assert "6 of 6 images fool the classifier" in result.summary
    assert "When pixels become black: the highest is Points, 1.000 [0.610, 1.000]" in result.summary
    assert "Of 6 images nothing can be said about which methods are better" in result.summary


def _results(result):
    import json

    return json.loads((result.folder / "study.json").read_text())["results"]


def predicted(images):
    """Return what the small classifier takes the images for."""
    source, classifier = open_source(images), small()
    return classifier.predict(torch.stack([source[number].fitted(classifier.fit, 3) for number in range(len(source))]))


def test_images_that_were_wrong_before_or_withstand_the_attack_are_counted_and_left_out(tmp_path):
    seen = predicted(write_images(tmp_path / "i.npz", count=8))
    images = write_images(tmp_path / "l.npz", count=8, labels=torch.where(torch.arange(8) < 6, seen, (seen + 1) % 5))
    study = Recovery(attack=FGSM(epsilon=0.03), methods=(Gradient(),), fills=("zero",), fractions=(0.1,))
    table = run_study(study, images, tmp_path / "out", model=small()).table.read()
    outcomes = table.drop_duplicates("index").set_index("index")["outcome"].astype(str)
    assert outcomes[6:].tolist() == ["already wrong"] * 2
    assert set(outcomes[:6]) == {"fooled", "failed"}
    assert set(table["method"].dropna()) == {"Gradient", SIZE, RANDOM}
    measured = table[table["method"].notna()]
    assert set(measured["index"]) == {index for index, outcome in outcomes.items() if outcome == "fooled"}


def test_an_image_that_misses_its_target_but_is_taken_for_another_wrong_class_fools_the_classifier(tmp_path):
    images = write_images(tmp_path / "i.npz", count=8)
    study = Recovery(
        attack=FGSM(epsilon=0.1), target="least-likely", methods=(Gradient(),), fills=("zero",), fractions=(0.1,)
    )
    table = run_study(study, images, tmp_path / "out", model=small()).table.read()
    classifier, source = small(), open_source(images)
    batch = torch.stack([source[number].fitted(classifier.fit, 3) for number in range(8)])
    goal = choose_targets(classifier, batch, "least-likely")
    result = run_attack(FGSM(epsilon=0.1), classifier, batch, goal)
    wrong = result.predictions != result.clean_logits.argmax(1)
    assert (wrong & ~result.success).any()
    outcomes = table.drop_duplicates("index").set_index("index")["outcome"].astype(str).sort_index()
    assert outcomes.tolist() == ["fooled" if one else "failed" for one in wrong.tolist()]
    sizes = table[table["method"] == "Gradient"].set_index("index")["l2"]
    moved = (result.attempted - result.clean).flatten(1).norm(dim=1)
    assert all(size == pytest.approx(float(moved[index]), rel=1e-5) for index, size in sizes.items())
    assert (sizes > 0).all()


def test_of_an_image_with_several_labels_any_counts_as_right(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (16, 16), (80, 90, 10)).save(tmp_path / "a" / name)
    image = small().prepare(Image.open(tmp_path / "a" / "0.png"))
    seen = small().predict(image)
    now = int(run_attack(FGSM(epsilon=0.3), small(), image, Untargeted(seen)).predictions[0])
    other = next(label for label in range(5) if label not in (int(seen), now))
    (tmp_path / "labels.csv").write_text(f"file,label\n0.png,{other};{int(seen)}\n1.png,{now};{int(seen)}\n")
    study = Recovery(attack=FGSM(epsilon=0.3), methods=(Gradient(),), fills=("zero",), fractions=(0.1,))
    folder = tmp_path / "out"
    table = run_study(study, tmp_path / "a", folder, labels=tmp_path / "labels.csv", model=small()).table.read()
    outcomes = table.drop_duplicates("index").set_index("image")["outcome"].astype(str)
    assert outcomes["0.png"] == "fooled"  # what the classifier saw is a label, though not the first
    assert outcomes["1.png"] == "failed"  # it is taken for another class, which is a label too


def test_a_model_that_no_method_works_on_is_said_with_the_reason(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    model = small()
    model.module.register_module("extra", nn.Softplus())
    plain = model.module.forward
    model.module.forward = lambda x: plain(x) + nn.functional.softplus(plain(x))
    study = Recovery(attack=FGSM(epsilon=0.3), methods=(GuidedBackprop(),), fills=("zero",), fractions=(0.1,))
    with pytest.raises(ImageError, match=r"No saliency method could be measured\. Guided backpropagation: .*Softplus"):
        run_study(study, images, tmp_path / "out", model=model)


def test_areas_are_trapezoids_from_nothing_at_no_pixel():
    rows = pd.DataFrame(
        {"index": [0, 0], "method": ["m", "m"], "fraction": [0.5, 0.25], "recovered": [1.0, 0.5], "fill": ["zero"] * 2}
    )
    # 0 → 0.5 over a quarter, 0.5 → 1 over a quarter, of half of the pixels.
    assert integrate(rows)["area"].tolist() == pytest.approx([(0.25 * 0.25 + 0.25 * 0.75) / 0.5])


def nothing(classifier, images, goal):
    """Leave the images as they are."""
    return images


def test_a_study_without_any_adversarial_image_says_so_and_keeps_its_shards(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    study = Recovery(attack=nothing, methods=(Gradient(),), fills=("zero",))
    with pytest.raises(ImageError, match="No attack fooled the classifier on any of the 3 images"):
        run_study(study, images, tmp_path / "out", model=small())
    assert list((tmp_path / "out" / "shards").glob("*.parquet"))


def test_labels_that_do_not_fit_the_model_are_suspected_when_no_image_is_right(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    wrong = write_images(tmp_path / "w.npz", count=3, labels=(predicted(images) + 1) % 5)
    study = Recovery(attack=nothing, methods=(Gradient(),), fills=("zero",))
    with pytest.raises(ImageError, match=r"None of the 3 images is given its true class .* labels fit the model\?"):
        run_study(study, wrong, tmp_path / "out", model=small())


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"fills": ("red",)}, "`fills` must be one of zero, mean, noise, blur; got red"),
        ({"fractions": (0.5, 0.1)}, "ascending"),
        ({"fractions": (0.0, 0.1)}, "above 0"),
        ({"random_orders": 0}, "at least 1"),
        ({"methods": ()}, "at least one entry"),
        ({"methods": (Gradient(), Gradient())}, "Gradient is there twice"),
        ({"fractions": (0.5, 5.0)}, "at most 1"),
        ({"methods": ("gradient",)}, "must be saliency methods, such as Gradient"),
        ({"attack": "fgsm"}, "must be an attack"),
        ({"target": "far"}, "`target` must be one of random, least-likely, runner-up; got far"),
    ],
)
def test_bad_parameters_are_refused(parameters, said, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=said):
        Recovery(**parameters)


def test_intervals_of_one_image_have_no_ends():
    assert str(Interval(1.0, 1.0, 1.0, 1)) == "1.000"
