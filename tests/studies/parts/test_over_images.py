"""Differences are judged together: a family of true nulls seldom holds a claim, and clear ones are all told."""

import torch

from whyfooled.studies.parts.over_images import Spread, judge, say_family


def spread(images, entries, shift=0.0, seed=0):
    values = torch.randn(images, entries, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    return Spread(tuple(map(str, range(entries))), values, seed, differences=True)


def test_a_family_of_nulls_seldom_holds_a_claim():
    families = 60
    claims = 0
    for seed in range(families):
        family = {number: spread(20, 7, seed=10 * seed + number) for number in range(3)}
        claims += any(side != "open" for sides in judge(family).values() for side in sides.values())
    # Uncorrected, two families of three would hold one.
    assert claims <= 9


def test_clear_differences_are_told_with_their_side():
    assert judge({"a": spread(20, 2, 3.0), "b": spread(20, 1, -3.0)}) == {
        "a": {"0": "above", "1": "above"},
        "b": {"0": "below"},
    }


def test_a_family_is_corrected_for_all_that_is_in_it():
    values = torch.tensor([[-1.0], *[[1.0]] * 9], dtype=torch.float64)
    alone = Spread(("clear",), values, 0, differences=True)
    # 11 of 512 ways to turn the signs, twice: p = 0.021.
    assert judge({"": alone}) == {"": {"clear": "above"}}
    assert judge({"": alone, "more": spread(20, 4)})[""] == {"clear": "open"}


def test_of_too_few_images_nothing_is_judged():
    few = spread(20, 2, 3.0)
    few.values[:12, 0] = torch.nan
    assert judge({"": few}) == {"": {"1": "above"}}
    assert judge({"": spread(9, 1, 3.0)}) == {"": {}}
    assert judge({}) == {}


def test_the_correction_is_said_where_there_is_one():
    assert say_family({"": {"a": "above"}}) == "tests of the paired differences"
    assert say_family({"": {"a": "above"}, "b": {"c": "open", "d": "open"}}) == (
        "tests of the paired differences, corrected (Holm) for 3 comparisons"
    )
