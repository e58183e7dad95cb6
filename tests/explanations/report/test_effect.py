"""What a report says of an effect: its numbers, its sentences, its pictures."""

import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.helpers.figures import assert_read_on_a_phone
from tests.helpers.models import linear
from whyfooled.drawing.pictures import draw_heat
from whyfooled.drawing.style import INK, as_svg
from whyfooled.explanations.report.effect import (
    KIND_WORDS,
    WHAT_EFFECT_IS,
    collect_effect_numbers,
    write_effect_sentences,
)
from whyfooled.explanations.report.effect_figure import draw_effects, draw_ratios
from whyfooled.explanations.report.region_picture import (
    PALETTES,
    draw_grey,
    draw_regions,
    list_drawn_regions,
    trace_kinds,
    write_end_of_sizes,
)
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
    assert set(found["kinds"]) == set(KIND_WORDS)
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
            "90 % of the effect holds oak down, mostly in the upper left of the image (89 %); 1 of 9 regions carries",
        ),
        (
            [0, 0, 0, 0, 1, 0, 0, 0, 0],
            [0, 0, 0, 0, 9, 0, 0, 0, 0],
            "90 % of the effect lifts elm, mostly in the centre of the image (100 %); 1 of 9 regions carries",
        ),
        (
            [1, 0, 0, 1, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            "100 % of the effect holds oak down, mostly in the left half of the image (100 %); 3 of 9 regions carry",
        ),
        (
            [1, 1, 1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            "100 % of the effect holds oak down, all over the image; 8 of 9 regions carry",
        ),
        (
            [-1, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, -1, 0, 0, 0, 0, 0, 0, 0],
            "In no region alone does the perturbation hold oak down or lift elm",
        ),
    ],
)
def test_a_sentence_says_what_most_of_the_effect_is_where_and_how_few_regions_carry_it(drops, gains, sentence):
    said = write_effect_sentences(known(drops, gains)[1], "oak", "elm")
    # What an effect is comes before any number of it.
    assert said == ([WHAT_EFFECT_IS, f"{sentence} 80 % of it."] if "%" in sentence else [f"{sentence}."])


def test_a_sentence_says_how_the_perturbation_lies_to_the_maps():
    maps = torch.zeros(2, 2, 1, 12, 12)
    maps[0, 1, 0, :4] = torch.rand(4, 12) + 1  # of the true class, in the clean image: the upper third
    maps[1, 0, 0, 8:] = torch.rand(4, 12) + 1  # of the wrong one, in the adversarial image: the lower third
    cams = Evidence("gradcam", "Grad-CAM", "Where.", False, maps)
    _, found = known([1] * 9, [1] * 9, cams)
    at = found["cam"]["interpretability"]["true"]["quantile"].index(0.5)
    assert found["cam"]["interpretability"]["true"]["score"][at] == pytest.approx(1 / 3)
    assert found["cam"]["interpretability"]["true"]["chance"][at] == pytest.approx(1 / 3)
    said = write_effect_sentences(found, "oak", "elm")[-1]
    shares = re.findall(r"(\d+) %", said)
    at = found["cam"]["interpretability"]["true"]["quantile"].index(0.3)
    expected = [100 * found["cam"]["interpretability"][cls]["score"][at] for cls in ("true", "wrong")]
    assert shares == [f"{value:.0f}" for value in (expected[0], 30, expected[1], 30)]
    assert "sees most of oak in the clean image" in said
    assert "sees most of elm in the adversarial one" in said


def test_a_sentence_says_if_the_regions_together_do_something_else():
    _, found = known([1] * 9, [1] * 9)
    assert len(write_effect_sentences(found, "oak", "elm")) == 2
    found["sum_over_regions"] = {"true": -3.0, "wrong": 2.4}
    assert found["logit_change"] == {"true": pytest.approx(-9), "wrong": pytest.approx(9)}
    said = write_effect_sentences(found, "oak", "elm")[2]
    assert said.startswith("Removed from one region at a time, the perturbation accounts for 30 % of what it changes")


def pixels_of(figure):
    """Draw a figure of 12 × 12 pixels so that each has 8 × 8 of its own, and return those (12, 8, 12, 8, 3)."""
    figure.set_dpi(96 / figure.get_figwidth())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int).reshape(12, 8, 12, 8, 3)


def test_regions_have_the_colours_of_their_kinds_over_a_grey_photograph_and_inert_ones_none():
    effect, _ = known(drops=[4, 1, 0, 0, 0, 0, 0, 0, 0], gains=[0, 1, 3, 0, 0, 0, 0, 0, 0])
    image = torch.zeros(3, 12, 12)
    image[0] = 0.75
    blind, paper = (pixels_of(draw_regions(effect.sensitivity, image, palette)) for palette in PALETTES.values())
    assert next(iter(PALETTES)) == "colour-blind"
    inert = blind[9, 4, 9, 4]
    assert inert.tolist() == [64] * 3
    # Suppression is blue, promotion orange; white and black in the paper.
    assert blind[1, 4, 1, 4, 2] > blind[1, 4, 1, 4, 0] > 64
    assert blind[1, 4, 9, 4, 0] > blind[1, 4, 9, 4, 2]
    assert paper[1, 4, 1, 4].min() > 150
    assert paper[1, 4, 9, 4].max() < 64
    # The stronger of two is the more opaque.
    strong, _, weak = (one.opacity for one in list_drawn_regions(effect.sensitivity)[:3])
    assert strong > weak > 0


def test_outlines_are_of_all_regions_of_a_kind_together():
    effect, _ = known(drops=[4, 4, 0, 0, 0, 0, 0, 0, 3], gains=[0, 0, 3, 0, 0, 0, 0, 0, 0])
    outlines = trace_kinds(effect.sensitivity)
    assert {kind: len(loops) for kind, loops in outlines.items()} == {"suppression": 2, "promotion": 1, "balanced": 0}
    assert sorted(outlines["suppression"], key=min)[0] == [(0, 0), (8, 0), (8, 4), (0, 4)]


def test_regions_are_listed_from_the_strongest_and_untouched_ones_are_not():
    effect, _ = known(drops=[1, 4, 0, 0, 2, 0, 0, 0, 0], gains=[0] * 9)
    listed = list_drawn_regions(effect.sensitivity)
    assert [one.region for one in listed][:3] == [1, 4, 0]
    assert len(listed) == 9
    assert [one.opacity for one in listed][3:] == [0.0] * 6
    assert listed[0].loops == [[(4, 0), (8, 0), (8, 4), (4, 4)]]


def test_heat_is_brighter_where_more_was_changed_and_leaves_the_photograph_elsewhere():
    sizes = torch.zeros(2, 2)
    sizes[0, 0], sizes[0, 1] = 1.0, 0.3
    picture = np.asarray(draw_heat(sizes, 1.0, torch.full((3, 2, 2), 0.5))).astype(int)
    assert picture[0, 0].sum() > picture[0, 1].sum()
    assert len(set(picture[1, 1])) == 1
    assert np.asarray(draw_grey(torch.full((3, 2, 2), 0.5))).tolist() == [[128, 128], [128, 128]]


@pytest.mark.parametrize(("largest", "end"), [(1 / 255, "1/255"), (9 / 255, "1/255 and more")])
def test_the_scale_of_heat_says_whether_there_is_more(largest, end):
    sizes = torch.full((24, 24), 1 / 255)
    sizes[0, 0] = largest
    assert write_end_of_sizes(sizes) == end


def test_the_figures_are_of_one_ink_and_one_panel_each_and_show_the_carriers():
    effect, _ = known([4, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 3, 0, 0, 0, 0, 0, 0])
    effects, ratios = draw_effects(effect.sensitivity, "oak $1 & $2", "elm", ink=INK), draw_ratios(effect.sensitivity)
    assert [len(figure.axes) for figure in (effects, ratios)] == [1, 1]
    assert [text.get_text() for text in effects.axes[0].texts] == ["2 carry 80 %"]
    drawing = as_svg(effects)
    assert drawing.startswith("<svg")
    assert INK not in drawing
    long = draw_effects(effect.sensitivity, "a class with a name that is very long", "elm")
    for figure in (effects, ratios, long):
        assert_read_on_a_phone(figure)


def test_one_region_alone_carries_and_several_carry():
    effect, _ = known([4, 0, 0, 0, 0, 0, 0, 0, 0], [0] * 9)
    panel = draw_effects(effect.sensitivity, "oak", "elm").axes[0]
    assert [text.get_text() for text in panel.texts] == ["1 carries 80 %"]


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
