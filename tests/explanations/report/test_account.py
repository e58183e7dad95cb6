"""The account's verdict follows its numbers."""

import pytest

from whyfooled.explanations.report.account import _write_recovery


def found(evidence, chance, spread, seen=1):
    def curve(probability):
        return {
            "fraction": [0.1, 0.3],
            "mean_probability": probability,
            "mean": 0.5,
            "probability_std": [spread, spread],
        }

    recovery = [{"fills": {"zero": curve(value)}} for value in (evidence, chance)]
    return {
        "true": {"name": "oak", "index": 0},
        "wrong": {"name": "elm", "index": 1},
        "recovery": recovery,
        "predictions": {"adversarial": [{"index": seen}]},
    }


@pytest.mark.parametrize(
    ("evidence", "chance", "spread", "verdict"),
    [
        (0.8, 0.5, 0.1, "back better than"),
        (0.2, 0.5, 0.1, "back worse than"),
        (0.55, 0.5, 0.1, "back about as well as"),
        # Both next to nothing, and hardly any spread between the random orders.
        (0.0001, 0.0002, 0.00001, "back about as well as"),
    ],
)
def test_a_difference_counts_when_random_orders_differ_less(evidence, chance, spread, verdict):
    (sentence,) = _write_recovery(found(evidence, chance, spread))
    assert verdict in sentence
    assert sentence.endswith("and it is predicted at 1 of 2 shares (at random 1.0).")


def test_what_was_never_lost_is_not_brought_back():
    assert _write_recovery(found(0.8, 0.5, 0.1, seen=0)) == []
