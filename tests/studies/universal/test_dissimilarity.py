"""The study of universal perturbations: its numbers again by hand, its fits kept and found again, its images apart."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.models import small
from tests.helpers.patch_world import There
from tests.helpers.small_studies import write_images
from whyfooled import Gradient, InputXGradient
from whyfooled.errors import OutputError, ParameterError, WhyfooledWarning
from whyfooled.images import content_digest, to_tensor
from whyfooled.registry import describe, parse
from whyfooled.sources import open_source
from whyfooled.studies import UniversalDissimilarity, run_study
from whyfooled.studies.universal import fits as _universal
from whyfooled.studies.universal.comparison import CHANCE
from whyfooled.studies.universal.dissimilarity_account import ALONE, BORROWED
from whyfooled.studies.universal.fitting_images import HALF
from whyfooled.tensors.randomness import random_directions
from whyfooled.universal import (
    UPIPCA,
    InterpretationAttack,
    RandomDirection,
    UniversalPerturbation,
    UPIGrad,
    dissimilarity,
)
from whyfooled.universal.evaluation import DIRECTIONS

STUDY = UniversalDissimilarity(
    methods=(UPIPCA(passes=1, samples=1), RandomDirection()), epsilons=(2.0,), attack_steps=0
)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images.npz", count=8, side=16)


def study(images, folder, made=STUDY, **options):
    return run_study(made, images, folder, model=small(), shard_size=2, batch_size=4, workers=1, **options)


def perturbations(folder):
    found = [UniversalPerturbation.load(path) for path in sorted((folder / "perturbations").iterdir())]
    return {one.method.partition("(")[0]: one for one in found}


def fitted(images, index):
    classifier = small()
    return open_source(images)[index].fitted(classifier.fit, 3).unsqueeze(0)


@pytest.mark.parametrize("clipped", [False, True])
def test_the_numbers_are_those_of_the_saved_perturbation(images, tmp_path, clipped):
    table = study(images, tmp_path / "out").table.read()
    found = perturbations(tmp_path / "out")
    classifier = small()
    directions = list(random_directions((3, 16, 16), DIRECTIONS, 0))
    for row in table[table["clipped"] == clipped].to_dict("records"):
        x = fitted(images, row["index"])
        true = classifier.predict(x)
        if row["method"] == CHANCE:
            moved = x + 2.0 * directions[int(row["direction"])] / directions[int(row["direction"])].norm()
        else:
            moved = found["random" if row["method"] == "Random direction" else "pca"].apply(x, clip=False)
        moved = moved.clamp(0, 1) if clipped else moved
        maps = [Gradient()(classifier, one, true) for one in (x, moved)]
        assert row["dissimilarity"] == pytest.approx(float(dissimilarity(*maps)), rel=1e-4)
        assert row["fooled"] == float(classifier.predict(moved) != true)
        assert (row["saliency"], row["epsilon"], row["outcome"]) == ("Gradient", 2.0, "tested")


def test_half_of_the_images_are_fitted_to_and_the_others_tested(images, tmp_path):
    result = study(images, tmp_path / "out")
    tested = {content_digest(open_source(images)[int(index)].image) for index in result.table.read()["index"].unique()}
    one = perturbations(tmp_path / "out")["pca"]
    every = {content_digest(sample.image) for sample in open_source(images)}
    assert len(tested) == 4
    assert one.fitted_to is not None
    assert not tested & one.fitted_to
    assert every == tested | (one.fitted_to & every)
    assert set(result.table.read()["fit"].dropna()) == {HALF}
    assert set(result.table.read()["fit_images"].dropna()) == {4}
    assert "4 images were tested. Perturbations were fitted to 4 other images" in result.summary


def test_images_that_the_classifier_gets_wrong_do_not_count(tmp_path):
    images = write_images(tmp_path / "i.npz", count=6)
    right = small().predict(torch.cat([fitted(images, place) for place in range(6)])).tolist()
    labels = [(one + (place == 2)) % 5 for place, one in enumerate(right)]
    others = write_images(tmp_path / "f.npz", count=3, seed=5)
    images = write_images(tmp_path / "i.npz", count=6, labels=labels)
    table = study(images, tmp_path / "out", replace(STUDY, fit=others)).table.read()
    wrong = table[table["index"] == 2]
    assert wrong["outcome"].tolist() == ["already wrong"]
    assert wrong["dissimilarity"].isna().all()
    assert set(table.loc[table["index"] != 2, "outcome"]) == {"tested"}
    assert (
        "5 images were tested; 1 that the classifier gets wrong were left out."
        in study(images, tmp_path / "out", replace(STUDY, fit=others)).summary
    )


def test_nothing_that_is_written_names_the_folders_of_this_machine(images, tmp_path):
    found = study(images, tmp_path / "out", replace(STUDY, fit=str(write_images(tmp_path / "f.npz", count=3, seed=5))))
    assert set(found.table.read()["fit"].dropna()) == {"f.npz"}
    assert "other images that the classifier gets right, from f.npz;" in found.summary
    for name in ("summary.md", "summary.tex", "study.json", "table.parquet"):
        assert str(tmp_path).encode() not in (tmp_path / "out" / name).read_bytes()


def test_a_stopped_run_keeps_its_fits_and_ends_in_the_same_table(images, tmp_path, monkeypatch):
    whole = study(images, tmp_path / "whole").table.path.read_bytes()
    fit, done = _universal.Fits._fit, []

    def stopping(self, path, method, *rest):
        if done:
            raise KeyboardInterrupt
        done.append(method)
        return fit(self, path, method, *rest)

    monkeypatch.setattr(_universal.Fits, "_fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        study(images, tmp_path / "out")
    assert not (tmp_path / "out" / "shards").exists()
    (kept,) = (tmp_path / "out" / "perturbations").iterdir()
    before = kept.read_bytes()
    monkeypatch.setattr(
        _universal.Fits,
        "_fit",
        lambda self, path, method, *rest: (done.append(method), fit(self, path, method, *rest))[1],
    )
    again = study(images, tmp_path / "out")
    assert [type(method) for method in done] == [UPIPCA, RandomDirection]
    assert kept.read_bytes() == before
    assert again.table.path.read_bytes() == whole
    about = json.loads((tmp_path / "whole" / "study.json").read_text())
    assert again.about == {
        **{name: value for name, value in about.items() if name not in ("format", "seal")},
        "source": again.about["source"],
    }
    (tmp_path / "out" / "shards" / "000001.parquet").unlink()
    assert study(images, tmp_path / "out").table.path.read_bytes() == whole
    assert len(done) == 2


def test_a_damaged_perturbation_is_fitted_again(images, tmp_path):
    whole = study(images, tmp_path / "out").table.path.read_bytes()
    for path in (tmp_path / "out" / "perturbations").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    (tmp_path / "out" / "shards" / "000000.parquet").unlink()
    assert study(images, tmp_path / "out").table.path.read_bytes() == whole
    assert set(perturbations(tmp_path / "out")) == {"pca", "random"}


def test_other_images_to_fit_to_are_another_run(images, tmp_path):
    made = replace(STUDY, fit=write_images(tmp_path / "f.npz", count=3, seed=5))
    study(images, tmp_path / "out", made)
    write_images(tmp_path / "f.npz", count=3, seed=6)
    with pytest.raises(OutputError, match="its images to fit to, or their labels, are not the same"):
        study(images, tmp_path / "out", made)


def test_an_image_that_is_fitted_to_and_tested_is_refused_by_its_content(images, tmp_path):
    pixels = np.load(images)["images"]
    np.savez(tmp_path / "f.npz", images=np.concatenate([255 - pixels[:2], pixels[4:5]]))
    made = replace(STUDY, fit=str(tmp_path / "f.npz"))
    with pytest.raises(ParameterError, match=r"got 1 of 8 that it was, such as 4\. Leave them out"):
        study(images, tmp_path / "out", made)
    assert not (tmp_path / "out" / "shards").exists()


def test_so_many_images_to_fit_to_are_drawn_by_the_seed(images, tmp_path):
    others = write_images(tmp_path / "f.npz", count=9, seed=5)
    result = study(images, tmp_path / "out", replace(STUDY, fit=others, fit_count=3))
    assert set(result.table.read()["fit_images"].dropna()) == {3}
    assert len(set(result.table.read()["index"])) == 8
    assert "fitted to 3 other images that the classifier gets right, from f.npz" in result.summary


def test_labels_of_photographs_hold_for_both_or_each_has_its_own(tmp_path):
    classifier, lines = small(), {}
    for seed, folder in enumerate(("test", "fit")):
        (tmp_path / folder).mkdir()
        for number in range(3):
            pixels = np.random.default_rng(10 * seed + number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
            seen = int(classifier.predict(to_tensor(Image.fromarray(pixels)).unsqueeze(0)))
            lines[f"{folder}/{number}.png"] = seen
    lines["fit/1.png"] = (lines["fit/1.png"] + 1) % 5
    rows = [f"{name},{label}" for name, label in lines.items()]
    (tmp_path / "both.csv").write_text("\n".join(["file,label", *rows]))
    (tmp_path / "test.csv").write_text("\n".join(["file,label", *rows[:3]]))
    (tmp_path / "fit.csv").write_text("\n".join(["file,label", *rows[3:]]))
    made = replace(STUDY, fit=str(tmp_path / "fit"))
    with pytest.warns(WhyfooledWarning, match="3 of the 6 labels belong to no photograph"):
        one = study(tmp_path / "test", tmp_path / "one", made, labels=tmp_path / "both.csv")
    made = replace(made, fit_labels=str(tmp_path / "fit.csv"))
    other = study(tmp_path / "test", tmp_path / "other", made, labels=tmp_path / "test.csv")
    for result in (one, other):
        table = result.table.read()
        assert set(table["fit_images"].dropna()) == {2}
        assert table["index"].nunique() == 3
        assert set(table["outcome"]) == {"tested"}


def test_a_method_that_cannot_be_fitted_is_recorded_and_the_others_are_measured(images, tmp_path):
    made = replace(STUDY, saliency=(wide_there(), Gradient()))
    result = study(images, tmp_path / "out", made)
    errors = result.table.errors()
    assert set(errors["method"]) == {"UPI-PCA (passes=1, samples=1)"}
    assert errors["error"].str.contains("The maps of there cannot be differentiated").all()
    good = result.table.read()
    assert set(good.loc[good["saliency"] == "There", "method"]) == {"Random direction", CHANCE}
    assert len(set(good.loc[good["saliency"] == "Gradient", "method"])) == 3


def wide_there():
    class Wide(There):
        def __call__(self, classifier, images, classes):
            return super().__call__(classifier, images, classes).repeat(1, 1, 2, 2) + images.mean(1, keepdim=True)

    return Wide()


def test_perturbations_of_predictions_or_nothing_are_fitted_once_for_all_saliency_methods(images, tmp_path):
    made = replace(STUDY, saliency=(Gradient(), InputXGradient()), epsilons=(1.0, 2.0))
    study(images, tmp_path / "out", made)
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "out" / "perturbations").iterdir())
    assert names == ["pca"] * 4 + ["random"] * 2


def test_an_attack_on_each_image_keeps_the_class_and_is_held_against_the_others(images, tmp_path):
    result = study(images, tmp_path / "out", replace(STUDY, attack_steps=6))
    rows = result.table.read(where=[("method", "==", ALONE)])
    assert len(rows) == 2 * 4
    attack = InterpretationAttack(epsilon=2.0, steps=6, clip=False)
    classifier = small()
    assert rows.loc[~rows["clipped"].astype(bool), "fooled"].eq(0).all()
    for row in rows[~rows["clipped"].astype(bool)].to_dict("records"):
        x = fitted(images, row["index"])
        true = classifier.predict(x)
        maps = [Gradient()(classifier, one, true) for one in (x, attack(classifier, x, true))]
        assert row["dissimilarity"] == pytest.approx(float(dissimilarity(*maps)), rel=1e-2)
    with pytest.raises(ParameterError, match="`attack_steps` must be at least 0"):
        replace(STUDY, attack_steps=-1)


def test_a_perturbation_of_one_image_is_added_to_others(images, tmp_path):
    result = study(images, tmp_path / "out", replace(STUDY, attack_steps=3))
    table, classifier = result.table.read(), small()
    rows = table[(table["method"] == BORROWED) & ~table["clipped"].astype(bool)]
    # The 4 fitting images are the lenders, whose perturbations the 4 tested ones are given.
    assert rows.groupby("index").size().tolist() == [4] * 4
    attack = InterpretationAttack(epsilon=2.0, steps=3, clip=False)
    lenders = [fitted(images, place) for place in sorted(set(range(8)) - set(table["index"]))]
    deltas = [attack(classifier, image, classifier.predict(image)) - image for image in lenders]
    for index, own in rows.groupby("index"):
        x = fitted(images, index)
        true = classifier.predict(x)
        maps = [Gradient()(classifier, x + delta, true) for delta in deltas]
        expected = sorted(float(dissimilarity(Gradient()(classifier, x, true), one)) for one in maps)
        assert sorted(own["dissimilarity"]) == pytest.approx(expected, rel=1e-2)


def test_an_attack_that_does_not_work_on_the_maps_is_recorded(images, tmp_path):
    result = study(images, tmp_path / "out", replace(STUDY, saliency=(wide_there(), Gradient()), attack_steps=2))
    errors = result.table.errors()
    assert ALONE in set(errors["method"])
    assert set(result.table.read(where=[("method", "==", ALONE)])["saliency"]) == {"Gradient"}


def test_a_ball_and_a_scale_are_the_studys(images, tmp_path):
    made = replace(STUDY, ball="linf", scale=255, epsilons=(8.0,))
    result = study(images, tmp_path / "out", made)
    found = perturbations(tmp_path / "out")
    assert {round(one.linf * 255, 3) for one in found.values()} == {8}
    assert "Epsilon is the largest change of a value, for values from 0 to 255." in result.summary


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"methods": (Gradient(),)}, r"`methods` must be universal perturbations, such as UPIGrad\(\)"),
        ({"methods": ()}, "`methods` must have at least one entry"),
        ({"methods": (UPIGrad(), UPIGrad(epsilon=3))}, "must have different names; UPI-Grad is there twice"),
        ({"epsilons": ()}, "`epsilons` must have at least one entry"),
        ({"epsilons": (4.0, 4.0)}, r"`epsilons` must be there once each; got \[4.0, 4.0\]"),
        ({"epsilons": (4.0,), "ball": "linf"}, "Did you mean 4/255"),
        ({"saliency": ()}, "`saliency` must have at least one entry"),
        ({"share": 0.0}, "`share` must be above 0 and at most 1"),
        ({"fit_count": 0}, "`fit_count` must be at least 1"),
        ({"fit_labels": "l.csv"}, "`fit_labels` are for fitting images of their own"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(ParameterError, match=said):
        replace(STUDY, **changed)


def test_one_image_cannot_be_split(tmp_path):
    with pytest.raises(ParameterError, match="`images` must be at least 2, because half of them are fitted to; got 1"):
        study(write_images(tmp_path / "i.npz", count=1), tmp_path / "out")


def test_it_is_typed_on_the_command_line():
    text = "universal-dissimilarity(epsilons=[1, 2], saliency=[gradient, guided], fit=some.npz:fit)"
    made = parse("studies", text, {"methods": "grad(penalty=0.2),random"})
    assert made.methods == (UPIGrad(penalty=0.2), RandomDirection())
    assert (made.epsilons, made.fit) == ((1.0, 2.0), "some.npz:fit")
    assert parse("studies", describe(made)) == made
    assert [type(one).card.name for one in parse("studies", "fit-size", {"methods": "all"}).methods]
