"""Words of sentences go by the number that they are about."""

import pytest

from whyfooled.drawing.words import by_number, counted


@pytest.mark.parametrize(
    ("count", "written"), [(0, "0 maps pass"), (1, "1 map passes"), (2, "2 maps pass"), (21, "21 maps pass")]
)
def test_nouns_and_verbs_go_by_number(count, written):
    assert f"{counted(count, 'map')} {by_number(count, 'passes', 'pass')}" == written


def test_a_plural_that_takes_more_than_an_s_is_given():
    assert [counted(count, "pass", "passes") for count in (1, 3)] == ["1 pass", "3 passes"]
