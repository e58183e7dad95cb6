"""The mix of effects, on classifiers in which every cell's part is known."""

import json

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.models import linear
from tests.helpers.small_studies import write_images
from whyfooled import FMN, Classifier
from whyfooled.errors import ParameterError
from whyfooled.studies import EffectMix, run_study

IMAGES = 11
UP = 0.1
EFFECT = 4 * 3 * UP
"""What a cell of 2 × 2 pixels and three channels does to a logit of weight 1."""


def rows_of_cells(first, second, third, fourth):
    """Give each row of cells a weight of its own."""
    values = torch.tensor([first, second, third, fourth], dtype=torch.float32).repeat_interleave(2)
    return values.view(1, 8, 1).expand(3, 8, 8).flatten()


def world():
    """Brighter cells hold class 0 down in the first row, lift class 1 in the second, do both in the third."""
    weight = torch.stack([rows_of_cells(-1, 0, -1, 0), rows_of_cells(0, 1, 1, 0)])
    return linear(weight, bias=torch.tensor([2 * 8 * 12 * 0.4 + 10, 0.0]))


def forward(classifier, images, goal):
    """Brighten all cells but those of the last column."""
    images = images.clone()
    images[..., :6] += UP
    return images


def astray(classifier, images, goal):
    """Brighten the same cells, and darken the first row's last one, which is against the aim."""
    images = forward(classifier, images, goal)
    images[..., :2, 6:] -= UP
    return images


def write_world(path, labels=None):
    pixels = np.full((IMAGES, 8, 8, 3), 102, np.uint8)
    pixels[:, 7, 7] = np.arange(IMAGES, dtype=np.uint8)[:, None]
    arrays = {"images": pixels} if labels is None else {"images": pixels, "labels": np.asarray(labels)}
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    study = EffectMix(attacks=(forward, astray), target=None, cell=2)
    return run_study(study, write_world(folder / "i.npz"), folder / "out", model=world())


def measured(result):
    rows = result.table.read()
    names = [str(name) for name in rows["attack"].unique()]
    assert len(names) == 2
    return {name: rows[rows["attack"] == name] for name in names}, names


def test_the_effect_is_parted_as_the_cells_were_made(result):
    rows, (plain, _) = measured(result)
    whole = 3 * (1 + 1 + 2) * EFFECT
    expected = {
        "suppression": 3 * EFFECT / whole,
        "promotion": 3 * EFFECT / whole,
        "balanced": 6 * EFFECT / whole,
        "inert": 0,
        "held_down": 0.5,
        "half": 3,
        "most": 7,  # half from the balanced cells, and a twelfth from each of four others
        "half_share": 3 / 16,
        "most_share": 7 / 16,
        "untouched": 4 / 16,
        "idle": 3 / 12,
        **{f"pixels_{kind}": 3 / 16 for kind in ("suppression", "promotion", "balanced")},
        "pixels_inert": 7 / 16,
        **{f"energy_{kind}": 1 / 4 for kind in ("suppression", "promotion", "balanced", "inert")},
        "true_fall": 6 * EFFECT,
        "target_rise": 6 * EFFECT,
        "explained": 1,
        "against": 0,
        "l2": UP * (12 * 12) ** 0.5,
        "regions": 16,
    }
    assert len(rows[plain]) == IMAGES
    for column, value in expected.items():
        assert rows[plain][column].tolist() == pytest.approx([value] * IMAGES, rel=1e-3, abs=1e-5), column
    assert set(expected) == set(EffectMix.columns) - {"attack", "outcome"}


def test_what_works_against_the_attack_is_in_no_score_but_is_told(result):
    rows, (plain, other) = measured(result)
    assert rows[other]["against"].tolist() == pytest.approx([1 / 13] * IMAGES, rel=1e-3)
    assert rows[other]["true_fall"].tolist() == pytest.approx([5 * EFFECT] * IMAGES, rel=1e-3)
    assert rows[other]["explained"].tolist() == pytest.approx([1] * IMAGES, rel=1e-3)
    assert rows[other]["suppression"].tolist() == pytest.approx(rows[plain]["suppression"].tolist(), rel=1e-3)
    assert rows[other]["untouched"].tolist() == pytest.approx([3 / 16] * IMAGES)


def test_the_summary_says_what_attacks_differ_in(result):
    tables = json.loads((result.folder / "study.json").read_text())["results"]
    separation = {row["measure"]: row for row in tables[4]["rows"]}
    against = separation["share of the effect against the attack"]
    assert against["variance explained"] == pytest.approx(1, abs=1e-3)
    assert against["difference"]["mean"] == pytest.approx(1 / 13, rel=1e-3)
    assert against["highest"] != against["lowest"]
    first = tables[0]["rows"][0]
    assert first["holds the true class down"]["mean"] == pytest.approx(0.5, rel=1e-3)
    (pair,) = tables[5]["rows"]
    assert pair["share in balanced regions"]["mean"] == pytest.approx(0, abs=1e-4)
    assert (
        "25 % in suppression, 50 % in balanced, 25 % in promotion regions, and 80 % of it in 43.8 %" in result.summary
    )
    assert "add up to 1.00 of what the whole perturbation changes" in result.summary
    assert "What attacks differ in, by the share of the variance within images" in result.summary
    assert "(0.09 by chance)" in result.summary


def test_the_figure_has_a_bar_of_each_share(result):
    figure = EffectMix.draw(result.table, 0)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([0.25, 0.5, 0.25, 0] * 2, abs=1e-4)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == measured(result)[1]


class Product(nn.Module):
    """Class 1 if the first and the last pixel are bright both."""

    def forward(self, x):
        both = 100 * x[:, 0, 0, 0] * x[:, 0, 7, 7]
        return torch.stack([torch.full_like(both, 50.0), both], dim=1)


def both_corners(classifier, images, goal):
    """Make the two pixels white."""
    images = images.clone()
    images[:, 0, 0, 0] = images[:, 0, 7, 7] = 1
    return images


def test_regions_that_only_work_together_add_up_to_more_than_the_whole(tmp_path):
    np.savez(tmp_path / "i.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    study = EffectMix(attacks=(both_corners,), target=None, cell=2)
    run = run_study(study, tmp_path / "i.npz", tmp_path / "out", model=Classifier(Product(), size=(8, 8)))
    rows = run.table.read()
    assert rows["explained"].tolist() == pytest.approx([2, 2])
    assert rows["promotion"].tolist() == [1, 1]
    assert rows["half"].tolist() == [1, 1]
    assert "add up to 2.00 of what the whole perturbation changes" in run.summary
    first_order = run_study(
        EffectMix(attacks=(both_corners,), target=None, cell=2, method="gradient"),
        tmp_path / "i.npz",
        tmp_path / "gradient",
        model=Classifier(Product(), size=(8, 8)),
    )
    assert first_order.table.read()["explained"].tolist() == pytest.approx([2, 2])
    assert first_order.about["forwards"] < run.about["forwards"]


def test_images_that_are_not_fooled_have_an_outcome_and_no_numbers(tmp_path):
    images = write_world(tmp_path / "i.npz", labels=[0] * 6 + [1] * 5)
    study = EffectMix(attacks=(forward, FMN(steps=1)), target=None, cell=2)
    rows = run_study(study, images, tmp_path / "out", model=world()).table.read()
    own = rows[rows["attack"] != "fmn(steps=1)"].sort_values("index")
    assert own["outcome"].astype(str).tolist() == ["fooled"] * 6 + ["already wrong"] * 5
    assert own["suppression"].isna().tolist() == [False] * 6 + [True] * 5
    assert set(rows[rows["attack"] == "fmn(steps=1)"]["outcome"].astype(str)) <= {"fooled", "failed", "already wrong"}


def test_of_few_images_it_is_not_said_what_attacks_differ_in(tmp_path):
    study = EffectMix(attacks=(FMN(steps=30), FMN(steps=40)), target=None, cell=4)
    images = write_images(tmp_path / "i.npz", count=3, side=8)
    weight = torch.randn(4, 192, generator=torch.Generator().manual_seed(0))
    run = run_study(study, images, tmp_path / "out", model=linear(weight))
    assert "Only 3 images fool the classifier under every attack: too few" in run.summary


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"attacks": ()}, "at least one entry"),
        ({"target": "far"}, "`target` must be one of"),
        ({"cell": 0}, "`cell` must be at least 1"),
        ({"inert": 2.0}, "`inert` must be a share, above 0 and at most 1; got 2"),
        ({"floor": 0.0}, "`floor` must be above 0 and under a quarter of `inert`, 0.0025; got 0"),
        ({"method": "fast"}, "`method` must be one of exact, gradient; got fast"),
    ],
)
def test_bad_parameters_are_refused(parameters, said, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=said):
        EffectMix(**parameters)
