"""Correlations of effect and size, on classifiers that are linear: the effect of every region is known."""

import json

import jaxtyping
import numpy as np
import pytest
import scipy.stats
import torch

from tests.helpers.models import linear, small
from tests.helpers.small_studies import write_images
from whyfooled import FGSM, FMN, choose_targets, run_attack
from whyfooled.errors import ImageError, ParameterError
from whyfooled.perturbation import Grid, region_labels
from whyfooled.perturbation.regions import region_norms
from whyfooled.sources import open_source
from whyfooled.studies import SensitivityCorrelation, run_study
from whyfooled.studies.effects.sensitivity_correlation import add_noise_by_region
from whyfooled.studies.effects.sensitivity_correlation_account import SAID
from whyfooled.tensors.statistics import Interval

WEIGHT = torch.randn(4, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))


def half(classifier, images, goal):
    """Move the left half of the image towards the target, or towards class 3, further in some cells than in others."""
    slope = (WEIGHT[goal.classes] - WEIGHT.mean(0)).view(images.shape).sign()
    reach = torch.linspace(0.1, 0.6, 8).view(1, 1, 8, 1) * (torch.arange(8) < 4)
    return (images + slope * reach).clamp(0, 1)


def clean_images(path):
    source, classifier = open_source(path), linear(WEIGHT)
    return torch.stack([source[number].fitted(classifier.fit, 3) for number in range(len(source))])


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("correlation")
    images = write_images(folder / "i.npz", count=12, side=8)
    study = SensitivityCorrelation(attacks=(FMN(steps=40), half), cell=2)
    return images, run_study(study, images, folder / "out", model=linear(WEIGHT))


def attacked_again(images, attack):
    classifier, clean = linear(WEIGHT), clean_images(images)
    goal = choose_targets(classifier, clean, "random", labels=classifier.predict(clean))
    return run_attack(attack, classifier, clean, goal)


@pytest.mark.parametrize("attack", [FMN(steps=40), half], ids=["fmn", "half"])
def test_correlations_are_those_of_the_regions_one_by_one(result, attack):
    images, run = result
    name = "fmn(steps=40)" if attack is not half else run.table.read()["attack"].unique()[1]
    rows = run.table.read(where=[("attack", "==", name), ("perturbation", "==", "attack")]).set_index("index")
    found = attacked_again(images, attack)
    delta = (found.attempted - found.clean).double()
    true = found.clean_logits.argmax(1)
    wrong = found.predictions != true
    assert wrong.sum() >= 3
    assert set(rows.index) == set(wrong.nonzero()[:, 0].tolist())
    for image in rows.index:
        score, l2, linf = [], [], []
        for top in range(0, 8, 2):
            for left in range(0, 8, 2):
                part = torch.zeros_like(delta[image])
                part[:, top : top + 2, left : left + 2] = delta[image][:, top : top + 2, left : left + 2]
                down = float(WEIGHT[true[image]].double() @ part.flatten())
                up = float(WEIGHT[found.goal.classes[image]].double() @ part.flatten())
                score.append(max(-down, 0) + max(up, 0))
                l2.append(float(part.norm()))
                linf.append(float(part.abs().max()))
        score, sizes = np.array(score), {"l2": np.array(l2), "linf": np.array(linf)}
        touched = sizes["linf"] > 0
        assert rows.loc[image, "touched"] == touched.sum() == (8 if attack is half else 16)
        assert rows.loc[image, "regions"] == 16
        assert rows.loc[image, "l2"] == pytest.approx(float(delta[image].norm()), rel=1e-5)
        for norm, size in sizes.items():
            for over, where in (("touched", touched), ("all", touched | True)):
                expected = scipy.stats.pearsonr(score[where], size[where]).statistic
                assert rows.loc[image, f"pearson_{norm}_{over}"] == pytest.approx(expected, abs=1e-4)
        expected = scipy.stats.kendalltau(score[touched], sizes["l2"][touched]).statistic
        assert rows.loc[image, "kendall_l2_touched"] == pytest.approx(expected, abs=0.03)


def test_untouched_regions_raise_the_correlation_over_all(result):
    _, run = result
    rows = run.table.read(where=[("touched", "==", 8), ("perturbation", "==", "attack")])
    assert rows["kendall_l2_all"].mean() > rows["kendall_l2_touched"].mean() + 0.05


def test_on_a_linear_classifier_the_gradient_is_exact(result):
    _, run = result
    rows = run.table.read(where=[("perturbation", "==", "attack")])
    assert rows["gradient_rank"].min() > 0.97
    assert rows["gradient_signed"].min() > 0.9999


def uniform_push(classifier, images, goal):
    """Brighten the image, each row of cells further than the one before."""
    # Of 256 parts, as the images are: sums of them have no rounding, so that equal cells have equal effects.
    push = torch.tensor([13.0, 34.0, 55.0, 77.0]) / 256
    return (images + push.repeat_interleave(2).view(1, 1, 8, 1)).clamp(0, 1)


def test_where_every_pixel_counts_alike_size_is_all_there_is_and_noise_has_none_of_it(tmp_path):
    # Class 0 is dark and class 1 bright: every region's effect is the sum of its perturbation, twice.
    weight = torch.stack([-torch.ones(192), torch.ones(192)])
    levels = (np.arange(100, 111, dtype=np.float32) / 256)[:, None, None, None]
    np.savez(tmp_path / "i.npz", images=levels.repeat(8, 1).repeat(8, 2).repeat(3, 3))
    study = SensitivityCorrelation(attacks=(uniform_push,), target=None, cell=2)
    classifier = linear(weight, bias=torch.tensor([172.75, 0.0]))
    run = run_study(study, tmp_path / "i.npz", tmp_path / "out", model=classifier)
    rows = run.table.read(where=[("perturbation", "==", "attack")])
    assert len(rows) == 11
    for column in ("pearson_l2_touched", "kendall_l2_all", "pearson_linf_all", "kendall_linf_touched"):
        assert rows[column].tolist() == pytest.approx([1] * 11, abs=2e-3)
    touched = json.loads((run.folder / "study.json").read_text())["results"][0]["rows"]
    assert touched[0]["Pearson, ℓ2"]["mean"] == pytest.approx(1, abs=1e-3)
    assert touched[1]["perturbation"].startswith("noise as large as")
    assert touched[0]["Pearson, ℓ2: minus noise"]["low"] > 0.2
    assert (
        "the effect correlates more strongly with size than under noise of the same size in every region" in run.summary
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.2, "the effect correlates more strongly with size than under"),
        (-0.2, -0.1, "the effect correlates less strongly with size than under"),
        (-0.1, 0.1, "no difference is seen between how the effect correlates with size and how it does under"),
    ],
)
def test_no_more_is_said_than_the_interval_shows(low, high, said):
    assert SAID[Interval((low + high) / 2, low, high, 20).side()] == said


def test_with_a_norm_that_is_the_same_in_every_region_there_is_no_correlation(tmp_path):
    images = write_images(tmp_path / "i.npz", count=4, side=8)
    # A radius that single precision cannot hold, so that it comes out differently at every pixel.
    study = SensitivityCorrelation(attacks=(FGSM(epsilon=0.1234567),), target=None, cell=1, control=False)
    rows = run_study(study, images, tmp_path / "out", model=linear(WEIGHT)).table.read()
    assert (rows["outcome"] == "fooled").all()
    assert rows["pearson_linf_all"].isna().all()
    assert rows["kendall_linf_touched"].isna().all()
    assert rows["pearson_l2_all"].notna().all()


def test_noise_is_as_large_as_the_perturbation_in_every_region():
    clean = torch.full((2, 3, 9, 9), 0.5)
    delta = 0.02 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    delta[0, :, :4] = 0
    labels = region_labels(Grid(4), clean)
    noisy = add_noise_by_region(clean, clean + delta, labels, seed=3)
    wanted, found = (region_norms(one, labels)[0] for one in (delta, noisy - clean))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    assert torch.equal(noisy[0, :, :4], clean[0, :, :4])
    assert abs(float(torch.corrcoef(torch.stack([delta[1].flatten(), (noisy - clean)[1].flatten()]))[0, 1])) < 0.2
    assert torch.equal(
        noisy, torch.cat([add_noise_by_region(clean[:1], (clean + delta)[:1], labels[:1], 3), noisy[1:]])
    )
    assert not torch.equal(noisy, add_noise_by_region(clean, clean + delta, labels, seed=4))


def test_images_that_are_not_fooled_have_an_outcome_and_no_numbers(tmp_path):
    images = write_images(tmp_path / "i.npz", count=6, side=8)
    seen = linear(WEIGHT).predict(clean_images(images))
    labels = torch.where(torch.arange(6) < 4, seen, (seen + 1) % 4)
    labelled = write_images(tmp_path / "l.npz", count=6, side=8, labels=labels)
    study = SensitivityCorrelation(attacks=(FMN(steps=40),), target=None, cell=4, control=False, check_gradient=False)
    run = run_study(study, labelled, tmp_path / "out", model=linear(WEIGHT))
    rows = run.table.read().set_index("index")
    assert rows["outcome"].astype(str).tolist() == ["fooled"] * 4 + ["already wrong"] * 2
    assert rows["pearson_l2_touched"].isna().tolist() == [False] * 4 + [True] * 2
    assert set(rows["perturbation"].dropna()) == {"attack"}
    assert rows["gradient_rank"].isna().all()
    assert "fmn(steps=40) 4 of 4. Of 6 images 2 were misclassified before any attack." in run.summary
    assert "noise as large" not in run.summary


def nothing(classifier, images, goal):
    """Leave the images as they are."""
    return images


def nothing_either(classifier, images, goal):
    """Leave them as they are too."""
    return images


def test_without_any_adversarial_image_it_says_so(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    with pytest.raises(ImageError, match="No attack fooled the classifier on any of the 3 images"):
        run_study(SensitivityCorrelation(attacks=(nothing, nothing_either)), images, tmp_path / "out", model=small())


def test_a_cell_that_is_larger_than_the_image_is_said(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3, side=8)
    study = SensitivityCorrelation(attacks=(FMN(steps=40),), cell=9)
    with pytest.raises(ImageError, match=r"`cell` must fit into the image of 8 × 8 pixels; got 9"):
        run_study(study, images, tmp_path / "out", model=linear(WEIGHT))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"attacks": ()}, "at least one entry"),
        ({"target": "far"}, "`target` must be one of"),
        ({"cell": 0}, "`cell` must be at least 1"),
    ],
)
def test_bad_parameters_are_refused(parameters, said, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=said):
        SensitivityCorrelation(**parameters)
