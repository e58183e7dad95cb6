"""Whether maps pass sanity checks, and what a report says of it, follows from its numbers."""

import pytest

from whyfooled.classifier.passes import Passes
from whyfooled.explanations.report.checks import (
    collect_check_numbers,
    write_check_count,
    write_check_sentence,
    write_check_sentences,
)
from whyfooled.saliency.map_checks import Likeness, MapCheck, MapChecks


def numbers_of(*cases):
    """Make the numbers of methods, each with the likeness under some changes; chance gives 0.01, at most 0.1."""
    checks = [
        MapCheck(
            f"m{number}", f"Method {number}", {kind: Likeness(value, 0.01, 0.1) for kind, value in case.items()}, "fc"
        )
        for number, case in enumerate(cases)
    ]
    return collect_check_numbers(MapChecks(tuple(checks), 0.5, Passes()))


GOOD = {"noise": 0.9, "method seed": 0.8, "cascading": 0.05, "independent": 0.5}


@pytest.mark.parametrize(
    ("case", "verdict", "sentence"),
    [
        (GOOD, "passes", "It depends on the model's weights, and hardly changes under what should not matter."),
        (
            GOOD | {"noise": 0.4},
            "fragile",
            "Noise of the attack's size (0.40) alone changes it: do not read it pixel by pixel.",
        ),
        (
            GOOD | {"method seed": 0.3, "attack seed": 0.2, "universal": 0.1},
            "fragile",
            "Another seed of its own (0.30), another seed of the attack (0.20) and the universal perturbation (0.10) "
            "alone change it: do not read it pixel by pixel.",
        ),
        (
            GOOD | {"cascading": 0.6},
            "ignores weights",
            "Much of it is the same with all weights random: it shows the image more than the model.",
        ),
        # More than by chance, and next to nothing.
        (
            GOOD | {"cascading": 0.15},
            "passes",
            "It depends on the model's weights, and hardly changes under what should not matter.",
        ),
        (
            GOOD | {"independent": 0.95, "noise": 0.45},
            "ignores weights",
            "It is the same with random weights in fc: it does not show what those have learned; and noise of the "
            "attack's size (0.45) alone changes it.",
        ),
        (
            GOOD | {"cascading": float("nan")},
            "cannot tell",
            "With random weights the map is empty, so what it depends on cannot be said.",
        ),
        (
            dict.fromkeys(GOOD, float("nan")),
            "cannot tell",
            "The map is empty, so nothing can be said.",
        ),
    ],
)
def test_a_verdict_follows_from_what_changes_the_map_and_what_does_not(case, verdict, sentence):
    method = numbers_of(case)["methods"][0]
    assert (method["verdict"], write_check_sentence(method)) == (verdict, sentence)


def test_the_account_groups_methods_by_their_verdicts():
    sentences = write_check_sentences(numbers_of(GOOD, GOOD | {"cascading": 0.6}, GOOD))
    assert sentences == [
        "The maps of Method 0 and Method 2 pass: they depend on the weights, and hardly change under noise and other "
        "seeds.",
        "The map of Method 1 ignores weights: it does not depend on all that the model has learned.",
    ]
    one_of_each = numbers_of(GOOD, GOOD | {"noise": 0.1}, GOOD | {"noise": float("nan")})
    assert write_check_sentences(one_of_each) == [
        "The map of Method 0 passes: it depends on the weights, and hardly changes under noise and other seeds.",
        "The map of Method 1 is fragile: it changes under what should not matter.",
        "The map of Method 2 cannot be judged: it is empty, here or with random weights.",
    ]


def test_the_page_counts_and_names_them():
    ignoring, empty = GOOD | {"cascading": 0.6}, GOOD | {"noise": float("nan")}
    assert write_check_count(numbers_of(GOOD, ignoring, GOOD)) == (
        "2 of 3 maps pass: Method 0 and Method 2; 1 ignores weights: Method 1."
    )
    fragile = GOOD | {"noise": 0.1}
    assert write_check_count(numbers_of(GOOD, fragile, fragile, empty)) == (
        "1 of 4 maps passes: Method 0; 2 are fragile: Method 1 and Method 2; 1 cannot be judged: Method 3."
    )
    assert write_check_count(numbers_of(fragile)) == "1 of 1 map is fragile: Method 0."
    assert write_check_count(numbers_of(*[GOOD] * 5)) == "5 of 5 maps pass: Method 0, Method 1 and 3 more."
