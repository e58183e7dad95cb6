"""What a report says of an effect: its numbers, its sentences, its pictures."""

import re

import numpy as np
import pytest
import torch

from tests.helpers.models import linear
from whyfooled.drawing.pictures import Scale
from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.report.effect import collect_effect_numbers, write_effect_sentences
from whyfooled.explanations.report.effect_figure import draw_effect
from whyfooled.explanations.report.region_picture import PALETTES, draw_regions
from whyfooled.perturbation import Grid, Superpixels, sensitivity
from whyfooled.perturbation.effect import Effect, find_effect
from whyfooled.saliency.evidence import Evidence

TRUE, WRONG = torch.tensor([0]), torch.tensor([1])


def known(drops, gains, cams=None):
    """Make the effect of a perturbation of 12 × 12 pixels in nine cells, whose drops and gains are known."""
    side, cell = 12, 4
    weight = torch.zeros(2, 3, side, side)
    corners = [(row, column) for row in range(0, side, cell) for column in range(0, side, cell)]
    for (row, column), drop, gain in zip(corners, drops, gains, strict=True):
        weight[0, 0, row, column], weight[1, 0, row, column] = -2 * drop, 2 * gain
    clean = torch.full((1, 3, side, side), 0.25)
    adversarial = clean.clone()
    adversarial[:, 0, ::cell, ::cell] += 0.5
    classifier = linear(weight.flatten(1), side=side)
    found = sensitivity(classifier, clean, adversarial, TRUE, WRONG, Grid(cell))
    effect = Effect("cells of 4 × 4 pixels", found, found, cams, ())
    logits = torch.cat([classifier.logits(clean), classifier.logits(adversarial)])
    return effect, collect_effect_numbers(effect, (adversarial - clean)[0], logits, 0, 1)


def test_the_numbers_are_those_of_a_known_effect():
    _, found = known(drops=[4, 1, 0, 0, 0, 0, 0, 0, 0], gains=[1, 1, 3, 0, 0, 0, 0, 0, 0])
    assert found["regions"] == {"what": "cells of 4 × 4 pixels", "count": 9, "touched": 9, "carry_80_percent": 2}
    assert found["true_drop"] == pytest.approx(5)
    assert found["target_gain"] == pytest.approx(5)
    assert found["suppression_share"] == pytest.approx(0.5)
    assert found["logit_change"] == {"true": pytest.approx(-5), "wrong": pytest.approx(5)}
    assert found["sum_over_regions"] == {"true": pytest.approx(-5), "wrong": pytest.approx(5)}
    assert [found["kinds"][kind]["regions"] for kind in ("suppression", "balanced", "promotion", "inert")] == [
        1, 1, 1, 6,
    ]  # fmt: skip
    assert found["kinds"]["suppression"]["effect"] == pytest.approx(0.5)
    assert found["kinds"]["balanced"]["effect"] == pytest.approx(0.2)
    assert found["kinds"]["inert"]["perturbation"] == pytest.approx(6 / 9)
    assert found["kinds"]["inert"]["pixels"] == pytest.approx(6 / 9)
    assert found["first_order_rank_correlation"] == pytest.approx(1)
    assert found["cam"] is None


@pytest.mark.parametrize(
    ("drops", "gains", "sentence"),
    [
        (
            [8, 0, 0, 0, 1, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 0, 0],
            "90 % of the effect holds oak down, mostly in the upper left of the image; 1 of 9 regions carries 80 %",
        ),
        (
            [0, 0, 0, 0, 1, 0, 0, 0, 0],
            [0, 0, 0, 0, 9, 0, 0, 0, 0],
            "90 % of the effect lifts elm, mostly in the centre of the image; 1 of 9 regions carries 80 %",
        ),
        (
            [1, 0, 0, 1, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            "100 % of the effect holds oak down, mostly in the left half of the image; 3 of 9 regions carry 80 %",
        ),
        (
            [1, 1, 1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            "100 % of the effect holds oak down, all over the image; 8 of 9 regions carry 80 %",
        ),
        (
            [-1, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, -1, 0, 0, 0, 0, 0, 0, 0],
            "In no region alone does the perturbation hold oak down or lift elm",
        ),
    ],
)
def test_a_sentence_says_what_most_of_the_effect_is_where_and_how_few_regions_carry_it(drops, gains, sentence):
    end = " of it." if "%" in sentence else "."
    assert write_effect_sentences(known(drops, gains)[1], "oak", "elm") == [sentence + end]


def test_a_sentence_says_how_the_perturbation_lies_to_the_maps():
    maps = torch.zeros(2, 2, 1, 12, 12)
    maps[0, 1, 0, :4] = torch.rand(4, 12) + 1  # of the true class, in the clean image: the upper third
    maps[1, 0, 0, 8:] = torch.rand(4, 12) + 1  # of the wrong one, in the adversarial image: the lower third
    cams = Evidence("gradcam", "Grad-CAM", "Where.", False, maps)
    _, found = known([1] * 9, [1] * 9, cams)
    at = found["cam"]["interpretability"]["true"]["quantile"].index(0.5)
    assert found["cam"]["interpretability"]["true"]["score"][at] == pytest.approx(1 / 3)
    assert found["cam"]["interpretability"]["true"]["chance"][at] == pytest.approx(1 / 3)
    said = write_effect_sentences(found, "oak", "elm")[1]
    shares = re.findall(r"(\d+) %", said)
    at = found["cam"]["interpretability"]["true"]["quantile"].index(0.3)
    expected = [100 * found["cam"]["interpretability"][cls]["score"][at] for cls in ("true", "wrong")]
    assert shares == [f"{value:.0f}" for value in (expected[0], 30, expected[1], 30)]
    assert "sees most of oak in the clean image" in said
    assert "sees most of elm in the adversarial one" in said


def test_a_sentence_says_if_the_regions_together_do_something_else():
    _, found = known([1] * 9, [1] * 9)
    assert len(write_effect_sentences(found, "oak", "elm")) == 1
    found["sum_over_regions"] = {"true": -3.0, "wrong": 2.4}
    assert found["logit_change"] == {"true": pytest.approx(-9), "wrong": pytest.approx(9)}
    said = write_effect_sentences(found, "oak", "elm")[1]
    assert said.startswith("Removed from one region at a time, the perturbation accounts for 30 % of what it changes")


def test_regions_have_the_colours_of_their_kinds_and_inert_ones_none():
    effect, _ = known(drops=[4, 1, 0, 0, 0, 0, 0, 0, 0], gains=[0, 1, 3, 0, 0, 0, 0, 0, 0])
    grey = torch.full((3, 12, 12), 0.25)
    drawn = {
        name: np.asarray(draw_regions(effect.sensitivity, grey, None, None, palette)).astype(int)
        for name, palette in PALETTES.items()
    }
    paper = drawn["paper"]
    # The border of a region is opaque.
    assert paper[3, 0].tolist() == [255] * 3
    assert paper[3, 4].tolist() == [128] * 3
    assert paper[3, 8].tolist() == [0] * 3
    assert paper[8, 8].tolist() == [64] * 3
    # The strongest region is nearly opaque inside, a weaker one less so.
    assert paper[0, 0, 0] > 240
    assert paper[0, 8, 0] < 64
    blind = drawn["colour-blind"]
    assert blind[8, 8].tolist() == [64] * 3
    assert blind[0, 0, 2] > blind[0, 0, 0]
    assert blind[0, 8, 0] > blind[0, 8, 2]
    assert PALETTES["paper"].of("balanced") == "#808080"


def test_the_map_is_drawn_below_the_regions():
    effect, _ = known(drops=[4, 0, 0, 0, 0, 0, 0, 0, 0], gains=[0] * 9)
    cam = torch.zeros(1, 12, 12)
    cam[0, 8:, 8:] = 1
    grey = torch.full((3, 12, 12), 0.5)
    picture = np.asarray(
        draw_regions(effect.sensitivity, grey, cam, Scale(1.0, False), PALETTES["colour-blind"])
    ).astype(int)
    assert picture[10, 10].min() > picture[6, 6].max() + 100


def test_the_figure_is_of_one_ink_and_shows_the_carriers():
    effect, _ = known([4, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 3, 0, 0, 0, 0, 0, 0])
    figure = draw_effect(effect.sensitivity, "oak $1 & $2", "elm", ink=INK)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["2 carry 80 %"]
    drawing = as_svg(figure)
    assert drawing.startswith("<svg")
    assert INK not in drawing


def test_regions_are_named_in_words():
    clean = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(2, 3 * 256, generator=torch.Generator().manual_seed(1))
    classifier = linear(weight, side=16)
    adversarial = (clean + 0.1).clamp(0, 1)
    for regions, words in (
        (Grid(5), "cells of 5 × 5 pixels"),
        (Superpixels(4), "superpixels"),
        (torch.zeros(16, 16, dtype=torch.int64), "regions of its label map"),
        (None, "cells of 1 × 1 pixels"),
    ):
        assert find_effect(classifier, clean, adversarial, 0, 1, regions=regions).regions == words
