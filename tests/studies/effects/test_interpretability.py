"""Interpretability scores, where it is known in which pixels perturbations and maps lie."""

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.patch_world import PATCH, STEP, ByClass, Opposite, Patch, There, classifier, write_dark_images
from whyfooled.errors import ImageError, ParameterError
from whyfooled.studies import InterpretabilityScores, run_study
from whyfooled.studies.effects.interpretability_account import AFTER, BEFORE


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_dark_images(tmp_path_factory.mktemp("patched") / "i.npz")


def study(*methods, **options):
    return InterpretabilityScores(attacks=(Patch(),), methods=methods, target=None, **options)


@pytest.fixture(scope="module")
def result(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores") / "out"
    return run_study(study(There(), Opposite(), ByClass()), images, folder, model=classifier(), keep_maps=True)


def test_scores_are_1_where_the_map_covers_the_perturbation_and_0_where_it_misses(result):
    rows = result.table.read()
    rows = rows[rows["method"].notna()]
    assert set(rows["index"]) == set(range(2, 14))
    expected = {
        ("There", BEFORE): (1, 0),
        ("There", AFTER): (1, 0),
        ("Opposite", BEFORE): (0, 1),
        ("Opposite", AFTER): (0, 1),
        ("By class", BEFORE): (0, 1),
        ("By class", AFTER): (1, 0),
    }
    found = rows[rows["quantile"] == 0.3]
    assert len(found) == 12 * len(expected)
    for (method, kind), (score, mirrored) in expected.items():
        own = found[(found["method"] == method) & (found["map"] == kind)]
        assert own["score"].tolist() == pytest.approx([score] * 12)
        assert own["mirrored"].tolist() == pytest.approx([mirrored] * 12)
        assert own["chance"].tolist() == pytest.approx([12 / 64] * 12)
        assert own["random"].mean() == pytest.approx(12 / 64, abs=0.04)
        assert own["random"].nunique() == 12
    assert set(rows["promoted_class"]) == {1}
    assert set(rows["true_class"]) == {0}
    assert rows["l2"].tolist() == pytest.approx([STEP * 6] * len(rows), rel=1e-4)
    # Half the pixels: the patch's zeros tie, so that the region stays what it is.
    assert rows[rows["quantile"] == 0.5]["chance"].tolist() == pytest.approx([12 / 64] * 72)


def test_images_that_are_not_fooled_have_their_outcome_alone(result):
    rows = result.table.read(["index", "outcome", "method", "score"])
    assert rows[rows["index"] == 0]["outcome"].tolist() == ["failed"]
    assert rows[rows["index"] == 1]["outcome"].tolist() == ["already wrong"]
    assert rows[rows["index"] < 2][["method", "score"]].isna().all().all()


def test_what_it_says(images, result, tmp_path):
    assert "Measured are the images that fool the classifier: patch 12 of 13. Of 14 images 1 were" in result.summary
    assert "Their goal was reached on 12 (patch)." in result.summary
    assert f"the map of the {AFTER} is high? Not in general: it is more than half in 2 of 3" in result.summary
    for method, answer in ((There(), "Yes"), (Opposite(), "No")):
        said = run_study(study(method), images, tmp_path / answer, model=classifier()).summary
        assert said.count(f"is high? {answer}: it is more than half in") == 2
    assert "Yes" not in said


def test_of_few_images_nothing_is_said(tmp_path):
    images = write_dark_images(tmp_path / "i.npz", count=6)
    said = run_study(study(There()), images, tmp_path / "out", model=classifier()).summary
    assert said.count("Of fewer than 10 images nothing can be said") == 2


def test_a_target_is_the_promoted_class_though_another_was_reached(images, tmp_path):
    own = InterpretabilityScores(attacks=(Patch(),), methods=(There(),), target="least-likely", quantiles=())
    result = run_study(own, images, tmp_path / "out", model=classifier())
    rows = result.table.read()
    rows = rows[rows["method"].notna()]
    assert len(rows) == 24
    assert set(rows["promoted_class"]) == {2}
    assert not rows["reached"].astype(bool).any()
    assert "Their goal was reached on 0 (patch)." in result.summary


def test_attacks_that_never_fool_are_said(tmp_path):
    own = InterpretabilityScores(attacks=(Still(),), methods=(There(),), target=None)
    with pytest.raises(ImageError, match="No attack fooled the classifier on any of the 6 images"):
        run_study(own, write_dark_images(tmp_path / "i.npz", count=6), tmp_path / "out", model=classifier())


class Still:
    """Change nothing."""

    def __call__(self, classifier, images, goal):
        return images.clone()


def test_maps_are_kept_by_attack_method_and_kind(result):
    (path,) = (result.folder / "maps").iterdir()
    maps = load_file(path)
    assert torch.equal(maps[f"2/patch/There/{BEFORE}"][0], PATCH)
    assert not maps[f"0/patch/There/{BEFORE}"].any()


@pytest.mark.parametrize("options", [{"quantile": 0.0}, {"quantiles": (0.1, 1.5)}])
def test_bad_parameters_are_refused(options):
    with pytest.raises(ParameterError, match="must be a share of the pixels"):
        InterpretabilityScores(**options)
