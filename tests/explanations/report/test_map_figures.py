"""Figures of maps for a paper have the colour bar that a picture alone lacks."""

import torch

from whyfooled.drawing.pictures import Scale, draw_map
from whyfooled.explanations.report.evidence_view import draw_maps, list_map_scales
from whyfooled.explanations.report.region_picture import picture_figure
from whyfooled.saliency.evidence import Evidence

MAPS = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_every_map_that_is_drawn_has_a_scale():
    evidence = Evidence("gradient", "Gradient", "The gradient.", False, MAPS)
    facts = {"scale": {"end": 0.5, "signed": False}}
    scales = list_map_scales(evidence, facts)
    assert set(scales) == set(draw_maps(evidence, facts))
    assert scales["gradient-clean-true"] == Scale(0.5, False)
    # A difference has a sign whatever it is of.
    assert scales["gradient-difference-wrong"] == Scale(0.5, True)


def test_the_bar_ends_where_the_scale_does():
    for scale, ends in ((Scale(0.00125, True), ["-0.0013", "0", "0.0013"]), (Scale(2.0, False), ["0", "2"])):
        picture, bar = picture_figure(draw_map(MAPS[0, 0], scale), scale).axes
        assert [label.get_text() for label in bar.get_xticklabels()] == ends
        assert bar.get_xlim() == (-scale.end if scale.signed else 0, scale.end)
        assert picture.images[0].get_array().shape[:2] == (8, 8)
    assert len(picture_figure(draw_map(MAPS[0, 0], Scale(1.0, True))).axes) == 1
