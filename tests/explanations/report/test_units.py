"""What a report says of hidden units follows from its numbers; areas are outlined where a unit is active."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.models import small
from tests.helpers.unit_pairs import LAST, a_pair, detecting, dissection_of, pooled
from whyfooled.drawing.words import finite, listed
from whyfooled.explanations.report.units import collect_unit_numbers, list_falling, list_rising
from whyfooled.explanations.report.units_view import (
    _choose_pictured,
    draw_outline,
    draw_unit_pictures,
    find_active_area,
    prepare_units,
)
from whyfooled.units.changes import find_unit_changes


@pytest.fixture(scope="module")
def changes():
    classifier = pooled()
    dissection = dissection_of(classifier, "body.2", LAST, threshold=torch.full((5,), 0.1), **detecting(0, 1, -1, 0, 2))
    return find_unit_changes(classifier, dissection, *a_pair(), 2, 0)


def test_numbers_are_those_of_the_changes_the_unit_that_moved_most_first(changes):
    found = collect_unit_numbers(changes)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["logit_change"] == dict(zip(("true", "wrong"), changes.logit_change.tolist(), strict=True))
    layer, one = found["layers"][1], changes.layers[1]
    assert (layer["layer"], layer["units"], layer["detectors"]) == (LAST, 5, 4)
    # Unit 0 never varies in the dissection, but does in the clean image.
    assert (layer["not_ranked"], layer["not_ranked_moving"]) == (0, 0)
    top = layer["top"]
    assert [unit["unit"] for unit in top] == one.ranked.tolist()
    assert [unit["relative"] for unit in top] == sorted((unit["relative"] for unit in top), reverse=True)
    for unit in top:
        own = unit["unit"]
        assert unit["effect"]["true"] == float(one.effect[0, own])
        assert unit["active"]["adversarial"] == float(one.active[1, own])
        assert unit["chance"]["low"] <= unit["chance"]["mean"] <= unit["chance"]["high"]
        assert unit["concept"] == ("sky", "road", None, "sky", "red")[own]
        assert unit["detector"] == (own != 2)
    assert layer["accounted"]["wrong"] == pytest.approx(found["logit_change"]["wrong"], abs=1e-5)
    assert layer["nonlinearity"] == {"true": 0, "wrong": 0}
    assert layer["rough"] == {"true": False, "wrong": False}
    assert layer["carried"]["true"] == pytest.approx(float(one.effect[0, [0, 1, 3, 4]].sum()))
    assert layer["carried"]["wrong"] == pytest.approx(sum(own["wrong_effect"] for own in layer["concepts"]))
    assert layer["beyond_chance"] == {"moving": 5, "share": one.beyond_share, "chance": 1 / 5, "draws": 4}


def test_what_json_cannot_write_is_none(changes):
    one = changes.layers[1]
    endless = replace(one.concepts[0], mean_change=torch.inf)
    # Unit 2 gives the same in all images but the adversarial one, unit 1 in that one, too.
    still = torch.tensor([1.0, 0, 1, 0, 0]).double()
    made = replace(
        one,
        std=one.std * torch.tensor([1.0, 0, 0, 1, 1]).double(),
        distance=one.distance * still,
        chance=one.chance * still,
        concepts=(endless,),
    )
    (layer,) = collect_unit_numbers(replace(changes, layers=(made,)))["layers"]
    assert layer["concepts"][0]["mean_change"] is None
    assert (layer["not_ranked"], layer["not_ranked_moving"], layer["beyond_chance"]["moving"]) == (2, 1, 2)
    made = replace(made, distance=0 * one.distance, chance=0 * one.chance)
    (layer,) = collect_unit_numbers(replace(changes, layers=(made,)))["layers"]
    assert (layer["beyond_chance"]["moving"], layer["beyond_chance"]["share"]) == (0, None)


def test_ten_units_are_listed():
    classifier = small()
    changes = find_unit_changes(classifier, dissection_of(classifier, "second"), *a_pair(), 2, 0)
    (layer,) = collect_unit_numbers(changes)["layers"]
    assert (layer["units"], layer["not_ranked"]) == (16, 0)
    assert [unit["unit"] for unit in layer["top"]] == changes.layers[0].ranked[:10].tolist()


def concept(name, true, wrong, held=1.0):
    return {
        "concept": name,
        "units": 2,
        "mean_change": 0.5,
        "held": held,
        "true_effect": true,
        "wrong_effect": wrong,
        "falls": held > 0 and true < 0,
        "rises": wrong > 0,
    }


def test_concepts_that_fall_and_rise_come_with_the_largest_first():
    concepts = [concept("sky", -1, 2), concept("road", -3, 3), concept("sea", -9, -1, held=-1), concept("tree", 1, 1)]
    own = {"concepts": concepts}
    assert [one["concept"] for one in list_falling(own)] == ["road", "sky"]
    assert [one["concept"] for one in list_rising(own)] == ["road", "sky", "tree"]


def test_names_are_listed_as_in_a_sentence():
    assert [listed(list("abcde")[:count]) for count in range(6)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and 1 more",
        "a, b, c and 2 more",
    ]
    assert [finite(value) for value in (1.5, float("inf"), float("-inf"), float("nan"))] == [1.5, None, None, None]


def test_areas_are_those_above_the_threshold_after_enlarging():
    excess = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    enlarged = F.interpolate(excess[None, None], (224, 224), mode="bilinear", align_corners=False)[0, 0]
    assert torch.equal(find_active_area(excess, (224, 224)), enlarged > 0)
    # Small images are drawn a whole number of times as large.
    assert find_active_area(excess, (16, 32)).shape == (224, 448)
    assert find_active_area(excess, (300, 400)).shape == (300, 400)
    assert not find_active_area(-torch.ones(3, 3), (32, 32)).any()


def test_an_outline_is_white_inside_and_black_outside():
    inside = torch.zeros(160, 160, dtype=torch.bool)
    inside[40:120, 40:] = True
    picture = draw_outline(inside)
    white, black, clear = (255, 255, 255, 255), (0, 0, 0, 255), (0, 0, 0, 0)
    down = [picture.getpixel((80, row)) for row in range(36, 44)]
    assert down == [clear, clear, black, black, white, white, clear, clear]
    # An area that goes on to the picture's edge is open there.
    assert picture.getpixel((159, 80)) == clear
    assert draw_outline(torch.zeros_like(inside)).getextrema() == ((0, 0),) * 4
    assert draw_outline(torch.ones_like(inside)).getextrema() == ((0, 0),) * 4


def test_pictures_and_bars_are_those_of_the_first(changes):
    found = collect_unit_numbers(changes)
    clean, adversarial = (one[0] for one in a_pair())
    view = prepare_units(changes, found, (16, 16))
    pictures = draw_unit_pictures(changes, found, {"clean": clean, "adversarial": adversarial})
    names = [name for name in pictures if name.startswith("units-body_3-")]
    assert {image.rpartition("-")[2] for image in names} == {"clean", "adversarial"}
    assert 2 <= len(names) <= 8
    assert pictures[names[0]].size == (224, 224)
    drawn = view["layers"][1]["pictured"]
    assert [f"units-body_3-{one['facts']['unit']}-{one['image']}" for one in drawn] == names


def test_only_the_largest_bars_are_shown(changes):
    found = collect_unit_numbers(changes)
    found["layers"][1]["concepts"] = [concept(f"c{number}", -1.0 - number, 1.0 + number) for number in range(11)]
    view = prepare_units(changes, found, (16, 16))["layers"][1]
    for bars in (view["falling"], view["rising"]):
        assert [row["facts"]["concept"] for row in bars["rows"]] == [f"c{number}" for number in range(10, 2, -1)]
        assert bars["more"] == 3


def test_a_full_bar_is_the_whole_change_of_the_logit(changes):
    found = collect_unit_numbers(changes)
    found["logit_change"] = {"true": -4.0, "wrong": 0.0}
    found["layers"][1]["concepts"] = [concept("a", -8.0, 1.0), concept("b", -1.0, 2.0)]
    view = prepare_units(changes, found, (16, 16))["layers"][1]
    assert [row["length"] for row in view["falling"]["rows"]] == [1, 0.25]
    assert [row["length"] for row in view["rising"]["rows"]] == [1, 1]


def test_units_that_are_active_are_drawn_half_of_them_detectors():
    def unit(number, active, relative):
        return {"unit": number, "active": {"clean": active, "adversarial": 0.0}, "relative": relative}

    def drawn(top, detectors):
        return [one["unit"] for one in _choose_pictured({"top": top, "top_detectors": detectors})]

    top = [unit(number, 0.1 * (number != 2), 20.0 - number) for number in range(8)]
    detectors = [top[1], unit(8, 0.0, 5.0), unit(9, 0.1, 4.0), unit(10, 0.1, 3.0)]
    assert drawn(top, detectors) == [0, 1, 3, 9]
    assert drawn(top, []) == [0, 1, 3, 4]
    assert drawn([], detectors) == [1, 9]
