"""What an account says of hidden units follows from their numbers, whichever signs these have."""

import pytest

from whyfooled.explanations.report.units_account import write_unit_sentences

CHANGE = {"true": -4.0, "wrong": 5.0}


def concept(name, true, wrong):
    return {"concept": name, "true_effect": true, "wrong_effect": wrong}


def layer(name, *concepts, detectors=4, units=20, moving=10):
    share = 0.7 if moving else None
    return {
        "layer": name,
        "units": units,
        "detectors": detectors if concepts else 0,
        "carried": {cls: sum(one[f"{cls}_effect"] for one in concepts) for cls in ("true", "wrong")},
        "concepts": list(concepts),
        "beyond_chance": {"moving": moving, "share": share, "chance": 0.2, "draws": 4},
    }


def told(*layers, change=CHANGE):
    return write_unit_sentences({"layers": list(layers), "logit_change": change}, "oak", "elm")


def said(*layers, change=CHANGE):
    return told(*layers, change=change)[0]


def test_the_layer_whose_detectors_carry_most_is_told_of_with_net_sums():
    first = layer("a", concept("sky", -1.2, 0.5), concept("road", 0.4, 0.1))
    second = layer("b", concept("sky", -0.3, 0.3), concept("sea", 0.1, 0.1))
    assert told(first, second, layer("c")) == [
        "In a the 4 of 20 units (20 %) that detect a concept carry -0.80 of -4.00 in the logit of oak (20 %) and +0.60 "
        "of +5.00 in the logit of elm (12 %, less than their share), most of it sky (-1.20 and +0.50).",
        "7 of the 10 units of a that change at all change more under the attack than under any of 4 random "
        "perturbations of the same length; by chance 2 of them would.",
    ]
    assert told(second, first) == told(first, second)
    assert told(layer("a", concept("sky", -1, 1), moving=20))[1].startswith("14 of the 20 units of a change more")


def test_what_goes_the_other_way_is_not_carried():
    against = layer("a", concept("sky", 3.0, -3.0))
    assert said(against, layer("b", concept("sea", -0.01, 0.0), detectors=1, units=50)) == (
        "In b the 1 of 50 units (2 %) that detects a concept carries -0.01 of -4.00 in the logit of oak (0 %, less "
        "than its share) and +0.00 of +5.00 in the logit of elm (0 %, less than its share), all of it sea."
    )
    assert "+3.00 of -4.00 in the logit of oak (-75 %, less than their share)" in said(against)
    # Of an image that is brought back, the true class's logit rises and the wrong one's falls.
    back = {"true": 4.0, "wrong": -5.0}
    assert said(against, layer("b", concept("sea", -9.0, 9.0)), change=back).startswith("In a ")


@pytest.mark.parametrize(
    ("concepts", "end"),
    [
        ([("sky", -1, 1), ("road", -1, 0.9)], "most of it sky (-1.00 and +1.00)."),
        ([("sky", -1, 1), ("road", -1, 1)], "the largest parts sky (-1.00 and +1.00) and road (-1.00 and +1.00)."),
        ([("sea", 0, 1), ("sky", 2, 0), ("road", -3, 1)], "most of it road (-3.00 and +1.00)."),
        ([("sea", 0, 1), ("sky", 3, 0), ("road", 0, 2.5)], "parts sky (+3.00 and +0.00) and road (+0.00 and +2.50)."),
        ([("sky", -1, 1)], "all of it sky."),
    ],
)
def test_one_or_two_concepts_are_named(concepts, end):
    assert said(layer("a", *(concept(*one) for one in concepts))).endswith(end)


def test_a_logit_that_does_not_change_has_no_shares():
    assert "-1.00 of +0.00 in the logit of oak and +1.00 of +5.00 in the logit of elm (20 %)" in said(
        layer("a", concept("sky", -1, 1)), change={"true": 0.0, "wrong": 5.0}
    )


def test_layers_without_detectors_and_units_that_do_not_move_are_told_of():
    assert told(layer("a"), layer("b", moving=0)) == [
        "No hidden unit of a or b detects a concept.",
        "No unit of b changes at all, under the attack or under random perturbations.",
    ]
