"""Maps and outcomes, on methods that react to an attack's success or do not."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import FGSM, FMN, Untargeted, attack_files, run_attack
from whyfooled.errors import ImageError, ParameterError
from whyfooled.registry import Card, title
from whyfooled.saliency import Enhanced
from whyfooled.sources import open_source
from whyfooled.studies import AttackOutcome, run_study
from whyfooled.tensors.measures import cosine


@dataclass(frozen=True)
class ByClass:
    """A map that depends on the class alone: it moves when, and only when, the prediction changes."""

    card: ClassVar[Card] = Card("by-class", "By class", "The class.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        maps = torch.stack([torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(k)) for k in range(5)])
        return maps[classes]


@dataclass(frozen=True)
class Constant:
    """A map that depends on nothing."""

    card: ClassVar[Card] = Card("constant", "Constant", "Nothing.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        return torch.arange(3.0 * 16 * 16).view(3, 16, 16).expand(*classes.shape, 3, 16, 16)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcome")
    images = write_images(folder / "i.npz", count=8)
    study = AttackOutcome(attacks=(FGSM(epsilon=0.01), FMN(steps=30)), methods=(ByClass(), Constant()), noise=0.001)
    return run_study(study, images, folder / "out", model=small())


def test_a_map_of_the_class_alone_moves_where_the_attack_succeeds_and_nowhere_else(result):
    rows = result.table.read(where=[("method", "==", "By class")])
    fooled = rows["outcome"] == "fooled"
    assert set(rows[fooled]["attack"]) == {"fgsm(epsilon=0.01)", "fmn(steps=30)"}
    assert (rows[~fooled]["cosine"] > 0.999).all()
    assert (rows[fooled]["cosine"] < 0.5).all()
    assert (rows["class_clean"] == rows["class_attacked"]).tolist() == (~fooled).tolist()
    assert (rows[~fooled][["ssim", "rank_correlation", "top_overlap"]] > 0.999).all().all()


def test_it_tells_outcomes_apart_and_a_constant_map_does_not(result):
    cosine = json.loads((result.folder / "study.json").read_text())["results"][0]
    rows = {row["method"]: row for row in cosine["rows"]}
    name = "fgsm(epsilon=0.01)"
    assert rows["By class"][f"{name}: AUROC"]["mean"] == 1
    assert rows["Constant"][f"{name}: AUROC"]["mean"] == 0.5
    assert rows["Constant"][f"{name}: failed minus fooled"]["mean"] == pytest.approx(0)
    assert rows["By class"][f"{name}: failed minus fooled"]["mean"] > 0.5
    fooled = next(heading for heading in rows["Constant"] if heading.startswith(f"{name} fooled (n = "))
    assert rows["Constant"][fooled]["mean"] == pytest.approx(1)
    rarer = rows["Constant"][f"{name}: AUROC"]["images"]
    assert f"{name}: of {rarer} images of the rarer outcome nothing can be said about how well maps" in result.summary


def test_noise_that_fools_is_not_contrasted_with_attacks(tmp_path):
    images = write_images(tmp_path / "i.npz", count=6)
    study = AttackOutcome(attacks=(FMN(steps=30),), methods=(ByClass(), Constant()), noise=0.9)
    result = run_study(study, images, tmp_path / "out", model=small())
    assert "fooled" in set(result.table.read(where=[("attack", "==", "noise")])["outcome"])
    tables = json.loads((result.folder / "study.json").read_text())["results"]
    assert [row["attack"] for row in tables[-1]["rows"]] == ["fmn(steps=30)"]


def test_noise_is_the_control_and_is_as_large_as_it_says(result):
    rows = result.table.read(where=[("attack", "==", "noise")])
    assert len(rows) == 8 * 2
    assert (rows["outcome"] == "failed").mean() > 0.8


def test_where_all_images_have_one_outcome_nothing_is_said_about_telling_them_apart(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    study = AttackOutcome(attacks=(FGSM(epsilon=1e-6),), methods=(ByClass(),), noise=0.0)
    result = run_study(study, images, tmp_path / "out", model=small())
    assert "No attack both fooled the classifier and failed" in result.summary
    assert "noise" not in set(result.table.read()["attack"])


def test_noise_on_saved_images_is_judged_by_the_labels_too(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{number}.png")
    seen = int(small().predict(small().prepare(Image.open(tmp_path / "photographs" / "0.png")))[0])
    labels = {"0.png": (seen + 1) % 5, "1.png": seen, "2.png": seen}
    attack_files(small(), [tmp_path / "photographs"], FMN(steps=20), tmp_path / "adversaries", labels=labels)
    study = AttackOutcome(methods=(ByClass(),), noise=0.001)
    rows = run_study(study, tmp_path / "adversaries", tmp_path / "out", model=small()).table.read()
    assert set(rows[rows["image"] == "0.png"]["outcome"]) == {"already wrong"}


def test_images_that_were_all_wrong_before_are_said(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    source, classifier = open_source(images), small()
    seen = classifier.predict(torch.stack([source[number].fitted(classifier.fit, 3) for number in range(3)]))
    wrong = write_images(tmp_path / "w.npz", count=3, labels=(seen + 1) % 5)
    with pytest.raises(ImageError, match="None of the 3 images is given its true class"):
        run_study(AttackOutcome(attacks=(FGSM(),), methods=(ByClass(),)), wrong, tmp_path / "out", model=small())


def test_bad_parameters_are_refused():
    with pytest.raises(ParameterError, match="`noise` must be at least 0"):
        AttackOutcome(noise=-1)
    with pytest.raises(ParameterError, match="at least one entry"):
        AttackOutcome(attacks=())


@dataclass(frozen=True)
class OfPixels:
    """The image, with the sign of its class: a fixed class's map changes as little as the image does."""

    card: ClassVar[Card] = Card("of-pixels", "Of the pixels", "The pixels.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        signs = torch.tensor([1.0, -1, 1, -1, 1])[classes]
        return signs[..., None, None, None] * (images[:, None] if classes.ndim == 2 else images)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fixed")
    images = write_images(folder / "i.npz", count=24)
    attacks = (FGSM(epsilon=0.01), FMN(steps=30))
    methods = (OfPixels(), ByClass(), Constant(), Enhanced(base=OfPixels()))
    return run_study(AttackOutcome(attacks=attacks, methods=methods, noise=0.0), images, folder / "out", model=small())


def test_the_maps_of_a_fixed_class_are_compared_with_themselves(fixed):
    rows = fixed.table.read()
    fooled = rows[rows["outcome"] == "fooled"]
    of = {method: fooled[fooled["method"] == method] for method in ("Of the pixels", "By class", "Constant")}
    assert (of["By class"][["cosine_true", "cosine_wrong", "ssim_true", "top_overlap_wrong"]] > 0.999).all().all()
    assert (of["By class"]["cosine"] < 0.5).all()
    assert (of["Of the pixels"][["cosine_true", "cosine_wrong"]] > 0.99).all().all()
    odd = of["Of the pixels"][["class_clean", "class_attacked"]].sum(axis=1) % 2 == 1
    assert (of["Of the pixels"]["cosine"][odd] < -0.99).all()
    assert odd.any()
    # Where it is fooled without a target, the wrong class is the one that is given.
    assert (fooled["class_wrong"] == fooled["class_attacked"]).all()
    failed = rows[rows["outcome"] == "failed"]
    assert (failed["class_wrong"] != failed["class_attacked"]).all()


def test_enhanced_maps_of_fixed_classes_contrast_these_two(fixed, tmp_path):
    rows = fixed.table.read(where=[("method", "==", title(Enhanced(base=OfPixels()))), ("outcome", "==", "fooled")])
    source, classifier = open_source(str(fixed.folder.parent / "i.npz")), small()
    row = rows.iloc[0]
    clean = source[int(row["index"])].fitted(classifier.fit, 3).unsqueeze(0)
    attacked = FMN(steps=30) if "fmn" in row["attack"] else FGSM(epsilon=0.01)
    seen = classifier.predict(clean)
    adversarial = run_attack(attacked, classifier, clean, Untargeted(seen)).attempted
    wrong = torch.tensor([int(row["class_wrong"])])
    before, after = (
        Enhanced(base=OfPixels())(classifier, image, wrong, contrast=seen) for image in (clean, adversarial)
    )
    assert row["cosine_wrong"] == pytest.approx(float(cosine(before, after)), abs=1e-5, nan_ok=True)


def test_attacks_and_methods_are_contrasted_image_by_image(fixed):
    study = json.loads((fixed.folder / "study.json").read_text())
    methods, attacks = study["results"][-2:]
    assert methods["caption"].startswith(
        "Methods compared image by image: cosine similarity of the maps of the true class"
    )
    fmn = next(row for row in methods["rows"] if row["attack"] == "fmn(steps=30)")
    rows = fixed.table.read(where=[("outcome", "==", "fooled"), ("attack", "==", "fmn(steps=30)")])
    wide = rows.pivot_table(index="index", columns="method", values="cosine_true", observed=True)
    gap = (wide["By class"] - wide["Of the pixels"]).mean()
    assert fmn["By class"]["mean"] == pytest.approx(gap)
    assert fmn["By class"]["images"] == len(wide)
    pair = next(row for row in attacks["rows"] if row["method"] == "By class")["fgsm(epsilon=0.01) minus fmn(steps=30)"]
    both = fixed.table.read(where=[("outcome", "==", "fooled"), ("method", "==", "By class")])
    assert pair["images"] == int((both.groupby("index").size() == 2).sum())
    assert pair["mean"] == pytest.approx(0, abs=1e-6)
    assert "Contrasts of methods, on the maps of the true class where the classifier is fooled:" in fixed.summary


def test_what_is_the_same_for_all_tables_is_said_once(fixed):
    assert fixed.summary.count("In brackets") == 1
    assert fixed.summary.count("AUROC is how often") == 1
