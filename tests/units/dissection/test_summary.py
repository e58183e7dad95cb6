import dataclasses

import pytest
import torch

from tests.helpers.made_dissections import made_dissection, made_layer
from whyfooled.units.dissection.summary import (
    count_above_all,
    count_detectors_by_chance,
    dissection_summary,
    find_concepts_in_reach,
)


def layer_of(both, union, null=(), **more):
    units = len(both)
    one = made_layer("here", units, len(both[0]), permutations=0)
    null_iou = torch.tensor(null, dtype=torch.float64).view(len(null), units)
    return dataclasses.replace(one, both=torch.tensor(both), union=torch.tensor(union), null_iou=null_iou, **more)


def row(summary, table=0, line=0):
    return dict(zip(summary.tables[table].columns, summary.tables[table].rows[line], strict=True))


# IoU .5, .1, .04 and 0: at the cutoff is not above it.
BOTH = [[50, 0], [0, 10], [4, 0], [0, 0]]
UNION = [[100, 100], [100, 100], [100, 100], [100, 100]]
NULL = [[0.05, 0.05, 0.03, 0.04], [0.0, 0.05, 0.0, 0.0], [0.1, 0.1, 0.1, 0.0], [0.01, 0.01, 0.01, 0.01]]


@pytest.fixture
def dissection():
    one = layer_of(BOTH, UNION, NULL, dead=torch.tensor([False, False, False, True]), above=torch.tensor([5, 5, 0, 0]))
    return dataclasses.replace(
        made_dissection({"x": 1}, {"sky": "object", "red": "colour"}),
        layers=(one,),
        area=torch.tensor([60, 30]),
        notes=("Remember this.",),
    )


def test_chance_of_being_above_all_permutations_by_hand(dissection):
    chance = count_above_all(dissection.layers[0], 0.04)
    # Unit 0 as it is, unit 2 in the third permutation; of unit 1 two are level, and unit 3 does not reach the cutoff.
    assert chance.observed == 1
    assert chance.counts.tolist() == [0, 0, 1, 0]


def test_each_permutation_is_above_all_as_often_by_chance():
    layer = made_layer("here", 4000, 2, permutations=9)
    random = torch.rand(10, 4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    both = (1e6 * random[0]).long()[:, None].expand(-1, 2)
    layer = dataclasses.replace(layer, both=both, union=torch.full_like(both, 1_000_000), null_iou=random[1:])
    chance = count_above_all(layer, 0.0)
    assert chance.observed == pytest.approx(400, abs=70)
    assert chance.mean == pytest.approx(400, abs=20)


def test_chance_is_counted_as_the_detectors_are(dissection):
    chance = count_detectors_by_chance(dissection.layers[0], 0.04)
    assert chance.observed == 2
    assert chance.counts.tolist() == [2, 1, 3, 0]
    assert chance.mean == 1.5
    # Two of four give as many or more.
    assert chance.p_value == 3 / 5
    assert chance.text() == "1.5 (0 to 3)"


def test_the_tables_hold_what_can_be_counted_by_hand(dissection):
    summary = dissection_summary(dissection)
    found = row(summary)
    expected = {"layer": "here", "units": 4, "dead": 1, "never active": 1, "detectors": 2, "by chance": "1.5 (0 to 3)"}
    assert expected.items() <= found.items()
    assert (found["p"], found["concepts"]) == (0.6, 2)
    assert found["IoU of detectors"] == pytest.approx(0.3)
    assert found["IoU of all units"] == pytest.approx(0.16)
    assert found["by chance, of all"] == pytest.approx(torch.tensor(NULL).mean().item())
    colour = row(summary, 1, 1)
    assert (colour["category"], colour["concepts detected"], colour["shown"], colour["detectors"]) == (
        "colour",
        1,
        1,
        1,
    )
    assert [line[1] for line in summary.tables[2].rows] == [0, 1]
    assert row(summary, 2, 0)["chance IoU"] == pytest.approx(0.04)


def test_the_sentences_say_what_was_found_and_what_to_doubt(dissection):
    said = " ".join(dissection_summary(dissection).sentences)
    for sentence in (
        "4 units of 1 layer, compared with 2 concepts of 2 categories in 6 images.",
        "here: 2 of 4 units detect a concept (IoU above 0.04), 2 different ones, most often sky (1), red (1); "
        "by chance 1.5 (0 to 3) would, p 0.600. 1 of them has a larger IoU than in any permutation; by chance 0.2 "
        "(0 to 1).",
        "4 times",
        "p cannot be below 0.200",
        "Chance alone gives at least half as many detectors in here:",
        "1 unit gave the same everywhere",
        "1 unit gave the largest activation too often",
        "Remember this.",
    ):
        assert sentence in said


def test_a_concept_that_all_detectors_detect_is_named_once(dissection):
    alike = dataclasses.replace(dissection.layers[0], both=torch.tensor([[50, 0], [10, 0], [4, 0], [0, 0]]))
    said = " ".join(dissection_summary(dataclasses.replace(dissection, layers=(alike,))).sentences)
    assert "detect a concept (IoU above 0.04), always sky; by chance" in said


def test_chance_that_gives_few_is_not_doubted(dissection):
    rare = dataclasses.replace(dissection.layers[0], null_iou=torch.zeros(4, 4))
    said = " ".join(dissection_summary(dataclasses.replace(dissection, layers=(rare,))).sentences)
    assert "Chance alone" not in said
    assert "p 0.200" in said


def test_without_permutations_nothing_is_said_of_chance():
    dissection = made_dissection({"one": 3, "two": 2}, permutations=0)
    summary = dissection_summary(dissection)
    assert "There were no permutations" in " ".join(summary.sentences)
    assert summary.tables[0].texts()[0][5:7] == ["–", "–"]
    assert "nan" not in summary.markdown("x").lower()


def test_without_detectors_there_is_no_table_of_them(dissection):
    summary = dissection_summary(dataclasses.replace(dissection, cutoff=0.9))
    assert len(summary.tables) == 2
    assert row(summary)["detectors"] == 0
    assert "here: 0 of 4 units detect a concept (IoU above 0.9); by chance" in " ".join(summary.sentences)
    assert "nan" not in summary.latex("x").lower()


def test_of_many_layers_those_with_most_detectors_are_told():
    dissection = made_dissection({f"blocks.{number}": number + 2 for number in range(9)})
    sentences = dissection_summary(dissection).sentences
    told = [sentence for sentence in sentences if sentence.startswith("blocks.")]
    assert len(told) == 6
    assert told[0].startswith("blocks.8: ")
    assert any("the table has all 9" in sentence for sentence in sentences)


def test_concepts_out_of_reach_are_those_that_no_overlap_could_bring_above_the_cutoff():
    area = torch.tensor([1000, 100, 10, 1, 0])
    active = 30
    both = torch.tensor([[0, 0, 0, 0, 0], [30, 30, 10, 1, 0]])
    one = layer_of(both.tolist(), (active + area - both).tolist())
    # The largest IoU there can be: 30/1000, 30/100, 10/30, 1/30.
    assert find_concepts_in_reach(one, area, 0.04).tolist() == [False, True, True, False, False]
    # The second unit reaches it, and no other could do better.
    assert one.iou[1, :4].tolist() == pytest.approx([0.03, 0.3, 1 / 3, 1 / 30])
    dissection = dataclasses.replace(
        made_dissection({"x": 1}, dict.fromkeys(["road", "car", "sign", "bolt", "ufo"], "object")),
        layers=(one,),
        area=area,
    )
    said = " ".join(dissection_summary(dissection).sentences)
    assert "No unit here can detect road and bolt, whatever it does" in said
