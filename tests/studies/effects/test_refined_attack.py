"""Refined attacks, on classifiers where what they need is known."""

import json
from dataclasses import dataclass
from typing import ClassVar

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.helpers.models import linear, small
from tests.helpers.small_studies import write_images
from whyfooled import BIM, FMN, Gradient, adapt, attack_files, load_adversaries, run_attack
from whyfooled.attacks.targets import choose_targets
from whyfooled.errors import ImageError, MethodError, ParameterError
from whyfooled.perturbation import Grid, attack_region
from whyfooled.registry import Card
from whyfooled.sources import open_source
from whyfooled.studies import RefinedAttack, run_study

SIDE = 8
# Two classes, told apart by weights that fall off from the upper left to the lower right, cell by cell of four pixels.
CELLS = torch.tensor([2.0 ** -(number / 4) for number in range(16)])
WEIGHT = CELLS.view(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1).expand(3, SIDE, SIDE)


def two_classes():
    """Make a classifier that gives class 1 where the weighted sum of an image is above that of a grey one."""
    weight = torch.stack([torch.zeros(192), WEIGHT.flatten()])
    return linear(weight, torch.tensor([0.0, -0.5 * WEIGHT.sum().item()]))


def grey_images(path, count):
    """Write images near grey, so that the box of [0, 1] does not matter to the nearest example."""
    rng = np.random.default_rng(0)
    shift = rng.choice([-1, 1], (count, 1, 1, 1)) * rng.uniform(1.5, 6, (count, 1, 1, 1))
    pixels = np.clip(127.5 + shift + rng.uniform(-8, 8, (count, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    np.savez(path, images=pixels)
    return str(path)


def result_of(tmp_path, study, count=14, **more):
    images = grey_images(tmp_path / "i.npz", count)
    return run_study(study, images, tmp_path / "out", model=two_classes(), **more)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    study = RefinedAttack((FMN(),), keep=0.25, cam=Gradient(), cell=2)
    return result_of(tmp_path_factory.mktemp("refined"), study, batch_size=14)


def norm_of(cells):
    """Return the length of the weights inside some cells."""
    return float((12 * CELLS[list(cells)].square().sum()).sqrt())


def test_the_ratio_of_the_norms_is_the_closed_form(result):
    # What is missing is divided by the length of the weights that may be used; the first four cells are the heaviest.
    rows = result.table.read().set_index(["index", "where"])
    assert rows["success"].all()
    best = norm_of(range(16)) / norm_of(range(4))
    for index in range(14):
        original, refined = rows.loc[(index, "original")], rows.loc[(index, "sensitivity")]
        assert refined["l2"] / original["l2"] == pytest.approx(best, rel=0.04)
        assert refined["allowed"] == 0.25
        assert (original["l0"], refined["l0"]) == (64, 16)
        # Any other four cells need more.
        assert rows.loc[(index, "random")]["l2"] > refined["l2"]
        assert rows.loc[(index, "random")]["allowed"] == 0.25
    table = json.loads((result.folder / "study.json").read_text())["results"][1]["rows"]
    ratios = {row["region"]: row for row in table}
    assert list(ratios) == ["cam", "sensitivity", "random"]
    assert ratios["sensitivity"]["ℓ2"]["mean"] == pytest.approx(best, rel=0.03)
    assert ratios["sensitivity"]["ℓ0"] == pytest.approx({"mean": 0.25, "low": 0.25, "high": 0.25, "images": 14})
    assert ratios["sensitivity"]["both reach it"] == 14
    assert ratios["sensitivity"]["goal reached, minus original"]["mean"] == 0


def test_the_ratio_is_a_geometric_mean_over_images_and_the_control_has_a_table_of_its_own(result):
    rows = result.table.read()
    wide = rows.pivot(index="index", columns="where", values="l2")
    tables = json.loads((result.folder / "study.json").read_text())["results"]
    for table, against in ((tables[1], "original"), (tables[2], "random")):
        for row in table["rows"]:
            logs = np.log(wide[row["region"]] / wide[against])
            assert row["ℓ2"]["mean"] == pytest.approx(np.exp(logs.mean()), rel=1e-6)
            error = 1.96 * logs.std() / len(logs) ** 0.5
            assert np.log(row["ℓ2"]["high"]) - logs.mean() == pytest.approx(error, rel=0.3, abs=1e-6)
            assert row["ℓ2"]["low"] <= row["ℓ2"]["mean"] <= row["ℓ2"]["high"]
    assert [row["region"] for row in tables[2]["rows"]] == ["cam", "sensitivity"]


def test_it_says_whether_less_is_needed(result):
    text = result.summary
    assert "fmn, sensitivity: on 25% of the pixels it reaches its goal on 100.0% of the images (original 100" in text
    first, second = (text.split(start)[1].split("\n")[0] for start in ("fmn, sensitivity:", "fmn, sensitivity (25%"))
    assert "on the 14 images where both reach it, it needs 0.250 [0.250, 0.250] times the ℓ0 (less) and 1." in first
    assert first.endswith("times the ℓ2 (more).")
    assert second.startswith(" of the pixels) against random cells (25%): on the 14 images where both reach it")
    assert "times the ℓ0 (no difference to be seen) and 0." in second
    assert second.endswith("times the ℓ2 (less).")


def test_few_images_say_nothing(tmp_path):
    result = result_of(tmp_path, RefinedAttack((FMN(steps=20),), where=("sensitivity",), cell=2), count=3)
    assert "both reach it on 3 images, of which nothing can be said about what they need" in result.summary
    assert len(json.loads((result.folder / "study.json").read_text())["results"]) == 2


def test_rows_are_what_the_parts_give_by_hand(tmp_path):
    images, classifier = write_images(tmp_path / "i.npz", count=6), small()
    attacks = (FMN(steps=20), BIM(epsilon=0.004, steps=3))
    study = RefinedAttack(attacks, keep=0.4, cell=4)
    rows = run_study(study, images, tmp_path / "out", model=classifier, seed=3, batch_size=4).table.read()
    rows = rows.astype({"attack": str, "where": str}).set_index(["attack", "where", "index"]).sort_index()
    source = open_source(images)
    clean = torch.stack([source[number].fitted(classifier.fit, 3) for number in range(6)])
    true = classifier.predict(clean)
    goal = choose_targets(classifier, clean, "random", labels=true, seed=3)
    for name, attack in zip(("fmn(steps=20)", "bim(epsilon=0.004, steps=3)"), attacks, strict=True):
        plain = run_attack(attack, classifier, clean, goal)
        runs = {"original": (plain, torch.ones(6, 1, 16, 16, dtype=torch.bool))}
        changed = (plain.attempted != clean).flatten(1).any(1)
        assert changed.all()
        for where in study.where:
            args = (classifier, clean, plain.attempted, true, goal.classes, where)
            region = attack_region(*args, keep=0.4, regions=Grid(4), seed=3)
            runs[where] = (run_attack(attack, classifier, clean, goal, mask=region), region)
        for where, (found, region) in runs.items():
            own = rows.loc[name, where]
            assert own["success"].tolist() == found.success.tolist()
            assert own["allowed"].tolist() == pytest.approx(region.float().mean((1, 2, 3)).tolist())
            assert own["forwards"].tolist() == found.forwards.tolist()
            reached = found.success
            for norm in ("l0", "l1", "l2", "linf"):
                wanted = getattr(found, norm)[reached].double().numpy()
                np.testing.assert_allclose(own[norm].to_numpy(dtype=float)[reached.numpy()], wanted, rtol=0.02)
                assert own[norm].isna().tolist() == (~reached).tolist()
    weak = rows.loc["bim(epsilon=0.004, steps=3)"]
    assert not weak["success"].all()


def test_images_that_are_wrong_already_are_left_out(tmp_path):
    images, classifier = write_images(tmp_path / "i.npz", count=4), small()
    source = open_source(images)
    seen = classifier.predict(torch.stack([source[number].fitted(classifier.fit, 3) for number in range(4)]))
    labels = (seen + torch.tensor([0, 1, 0, 0])) % 5
    labelled = write_images(tmp_path / "l.npz", count=4, labels=labels)
    study = RefinedAttack((FMN(steps=20),), cell=4)
    rows = run_study(study, labelled, tmp_path / "out", model=classifier).table.read()
    wrong = rows[rows["index"] == 1]
    assert wrong["outcome"].tolist() == ["already wrong"]
    assert wrong[["success", "allowed", "l2", "forwards"]].isna().all().all()
    assert len(rows) == 3 * 4 + 1
    all_wrong = write_images(tmp_path / "w.npz", count=4, labels=(seen + 1) % 5)
    with pytest.raises(ImageError, match="None of the 4 images is given its true class"):
        run_study(study, all_wrong, tmp_path / "none", model=classifier)


def test_an_attack_that_never_reaches_its_goal_leaves_nothing_to_compare(tmp_path):
    hopeless = linear(torch.zeros(3, 192), torch.tensor([0.0, 1.0, 0.5]))
    images = grey_images(tmp_path / "i.npz", 3)
    with pytest.raises(ImageError, match="No attack reached its goal on any of the 3 images"):
        run_study(RefinedAttack((FMN(steps=10),), cell=2), images, tmp_path / "out", model=hopeless)
    (shard,) = (tmp_path / "out" / "shards").glob("*.parquet")
    rows = pd.read_parquet(shard)
    assert not rows["success"].any()
    assert rows[rows["where"] != "original"]["allowed"].tolist() == [0.0] * 9
    assert rows[rows["where"] != "original"]["forwards"].isna().all()


def photographs(folder):
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [folder]


def test_the_attack_of_saved_images_is_run_again_inside_the_region(tmp_path):
    classifier = small()
    attack_files(classifier, photographs(tmp_path / "p"), FMN(steps=30), tmp_path / "saved")
    study = RefinedAttack((BIM(),), where=("sensitivity",), cell=4)
    result = run_study(study, tmp_path / "saved", tmp_path / "out", model=classifier)
    assert "made with fmn(steps=30); those that are known here can be run again." in result.summary
    assert "no attack was run" not in result.summary
    assert "Each attack is compared with itself, run again from the clean image" in result.summary
    rows = result.table.read()
    assert set(rows["attack"]) == {"fmn(steps=30)"}
    original, refined = (rows[rows["where"] == where] for where in ("original", "sensitivity"))
    assert original["success"].all()
    assert original["forwards"].isna().all()
    assert (refined["forwards"] > 0).all()
    assert (refined["l0"] <= 0.3 * 256 + 16).all()
    saved = load_adversaries(tmp_path / "saved").to_frame()
    assert original["l2"].tolist() == pytest.approx(saved["l2"].tolist(), rel=1e-5)


def noise(classifier, images, goal):
    """Attack as no attack of the package does."""
    return FMN(steps=20)(classifier, images, goal)


def test_a_saved_attack_of_another_kind_cannot_be_run_again_and_is_named(tmp_path):
    classifier = small()
    attack_files(classifier, photographs(tmp_path / "p"), adapt(noise), tmp_path / "saved")
    with pytest.raises(ImageError, match="No attack could be run again"):
        run_study(RefinedAttack(cell=4), tmp_path / "saved", tmp_path / "out", model=classifier)


def test_of_several_saved_attacks_those_that_are_known_are_run_again(tmp_path):
    classifier, folder = small(), photographs(tmp_path / "p")
    attack_files(classifier, folder, FMN(steps=20), tmp_path / "any")
    attack_files(classifier, folder, FMN(steps=20), tmp_path / "second", target="random")
    attack_files(classifier, folder, adapt(noise), tmp_path / "foreign")
    places = [tmp_path / name for name in ("any", "second", "foreign")]
    study = RefinedAttack(where=("sensitivity",), cell=4)
    result = run_study(study, places, tmp_path / "out", model=classifier)
    rows, errors = result.table.read(), result.table.errors()
    again = rows[rows["where"] == "sensitivity"]
    assert again["attack"].astype(str).value_counts().to_dict() == {
        "fmn(steps=20) (any)": 4,
        "fmn(steps=20) (second)": 4,
    }
    assert (rows["where"] == "original").sum() == 12
    assert len(errors) == 4
    assert errors["error"].str.contains("must be the name of a known attack|must look like name").all()
    lines = RefinedAttack.draw(result.table, 0).axes[0].get_yticklabels()
    assert [line.get_text() for line in lines] == ["fmn(steps=20) (any)", "fmn(steps=20) (second)"]


def test_a_map_that_the_model_does_not_have_is_named_and_the_rest_is_measured(tmp_path):
    result = result_of(tmp_path, RefinedAttack((FMN(steps=20),), cell=2), count=5)
    errors = result.table.errors()
    assert errors["error"].str.startswith("fmn(steps=20), cam: Grad-CAM needs a layer").all()
    assert errors["where"].tolist() == ["cam"] * 5
    assert set(result.table.read()["where"]) == {"original", "sensitivity", "random"}


@dataclass(frozen=True)
class SomeImages:
    """A method that does not work on dark images."""

    card: ClassVar[Card] = Card("some", "Some", "Some.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        if (images.mean((1, 2, 3)) < 0.5).any():
            raise MethodError("It is too dark.")
        return images


def test_a_map_that_some_images_do_not_have_does_not_take_it_from_the_others(tmp_path):
    study = RefinedAttack((FMN(steps=20),), where=("cam",), cam=SomeImages())
    result = result_of(tmp_path, study, count=8, batch_size=4)
    errors, rows = result.table.errors(), result.table.read()
    assert 0 < len(errors) < 8
    assert errors["error"].str.contains("It is too dark.").all()
    assert len(rows[rows["where"] == "cam"]) == 8 - len(errors)


def test_bad_parameters_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for parameters, message in [
        ({"attacks": ()}, "`attacks` must have at least one entry"),
        ({"attacks": (adapt(noise),)}, "`attack` must be an attack of whyfooled"),
        ({"where": ()}, "`where` must have at least one entry"),
        ({"where": ("here",)}, "`where` must be one of cam, sensitivity, random; got here"),
        ({"target": "best"}, "must be one of random, least-likely, runner-up"),
        ({"keep": 0.0}, "`keep` must be above 0 and at most 1"),
        ({"cell": 0}, "`cell` must be at least 1"),
    ]:
        with pytest.raises(ParameterError, match=message):
            RefinedAttack(**parameters)


def test_the_figure_marks_where_as_much_is_needed(result):
    figure = RefinedAttack.draw(result.table, 0)
    assert [axes.get_title() for axes in figure.axes] == ["ℓ0", "ℓ1", "ℓ2", "ℓ∞"]
    for axes in figure.axes:
        assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines)
