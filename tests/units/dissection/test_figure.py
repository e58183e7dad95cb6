"""The figure of a dissection."""

import dataclasses

import torch

from tests.helpers.made_dissections import CONCEPTS, made_dissection
from whyfooled.units.dissection.figure import MOST_CONCEPTS, MOST_LAYERS, draw_dissection


def test_the_figure_counts_units_by_concept_beside_chance():
    dissection = made_dissection({"one": 12})
    left, right = draw_dissection(dissection).axes
    one = dissection.layers[0]
    detectors = one.detectors(dissection.cutoff)
    chance = (one.null_iou > dissection.cutoff).sum(1).double()
    assert [bar.get_height() for bar in left.patches] == [int(detectors.sum()), float(chance.mean())]
    assert left.lines[0].get_ydata().tolist() == [int(chance.min()), int(chance.max())]
    counts = torch.bincount(one.best[detectors], minlength=4)
    heights = {
        label.get_text(): bar.get_height() for label, bar in zip(right.get_xticklabels(), right.patches, strict=True)
    }
    assert heights == {name: int(count) for name, count in zip(CONCEPTS, counts, strict=True) if count}


def test_the_figure_has_room_for_many_layers_and_concepts_and_for_none():
    many = made_dissection({f"layer{number}": 2 for number in range(MOST_LAYERS + 3)})
    panels = draw_dissection(many).axes
    assert len(panels) == 2 * MOST_LAYERS
    assert panels[-1].get_title("left").startswith(f"layer{MOST_LAYERS + 2}: ")
    wide = made_dissection({"one": 300}, {f"concept {number}": "object" for number in range(90)})
    assert len(draw_dissection(wide).axes[1].patches) == MOST_CONCEPTS
    nothing = dataclasses.replace(made_dissection({"one": 3}, permutations=0), cutoff=0.9)
    left, right = draw_dissection(nothing).axes
    assert [bar.get_height() for bar in left.patches] == [0]
    assert not right.patches
