"""Chance is what random directions do: one more of them is seldom told from it, and what is more is."""

import numpy as np
import pandas as pd
import pytest

from whyfooled.studies.parts.over_images import judge
from whyfooled.studies.universal.comparison import CHANCE, D_AND_FOOLED, compare

IMAGES, DIRECTIONS = 40, 6


def rows_of(seed, gain):
    """Make rows in which a direction is worth something on all images, and a perturbation is one more direction."""
    random = np.random.default_rng(seed)
    image = random.normal(0.5, 0.1, IMAGES)
    rows = []
    for number in range(DIRECTIONS + 1):
        values = image + random.normal(0, 0.02) + random.normal(0, 0.01, IMAGES)
        is_chance = number < DIRECTIONS
        about = {"method": CHANCE if is_chance else "ours", "direction": number if is_chance else None, "fooled": 0.0}
        rows += [
            {"index": place, "dissimilarity": value + (0 if is_chance else gain), **about}
            for place, value in enumerate(values)
        ]
    return pd.DataFrame(rows)


def sides(gain, times=120):
    compared = [compare(rows_of(seed, gain), "method", D_AND_FOOLED, seed) for seed in range(times)]
    return [judge({"": one.less_chance})[""]["ours"] for one in compared]


def test_one_more_random_direction_is_seldom_told_from_chance():
    found = sides(0.0)
    # The middle 99.9 % of what 120 comparisons at 5 % give reaches to 12 %.
    assert found.count("open") >= 0.88 * len(found)


def test_a_perturbation_that_moves_maps_more_is():
    assert set(sides(0.2, times=10)) == {"above"}
    assert set(sides(-0.2, times=10)) == {"below"}


def test_differences_hold_one_more_direction():
    held = 0
    for seed in range(120):
        compared = compare(rows_of(seed, 0.1), "method", D_AND_FOOLED, seed)
        gain, over = compared.less_chance.means["ours"], compared.over_chance["ours"]
        held += gain.low <= 0.1 <= gain.high
        chance = compared.d.means[CHANCE].mean
        assert over.mean == pytest.approx(compared.d.means["ours"].mean / chance)
        assert over.high - over.low == pytest.approx(over.mean * (gain.high - gain.low) / chance, rel=0.25)
    assert held >= 0.9 * 120


def test_chance_is_the_mean_of_its_directions():
    rows = rows_of(0, 0.1)
    compared = compare(rows, "method", D_AND_FOOLED, 0)
    chance = rows[rows["method"] == CHANCE]
    assert compared.d.means[CHANCE].mean == pytest.approx(chance["dissimilarity"].mean())
    by_direction = chance.groupby("direction")["dissimilarity"].mean()
    assert [mean.mean for mean in compared.directions.means.values()] == pytest.approx(by_direction.tolist())
