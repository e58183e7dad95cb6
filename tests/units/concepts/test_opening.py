"""How the kind of annotated images is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.annotated_images import write_broden, write_photographs
from whyfooled.errors import ImageError, ParameterError
from whyfooled.units import CONCEPTS, open_concepts


def test_an_unknown_kind_is_refused_with_a_suggestion():
    with pytest.raises(
        ParameterError, match=r"`concepts` must start with a kind .*got 'brodn:/x'. Did you mean broden"
    ):
        open_concepts("brodn:/x")
    with pytest.raises(ParameterError, match=r"got 'voc2012:/x'. Did you mean voc2012-segmentation"):
        open_concepts("voc2012:/x")


def test_a_place_without_a_kind_is_refused(tmp_path):
    for place in (str(tmp_path), tmp_path, ""):
        with pytest.raises(ParameterError, match=r"and a colon; got .* Such as masks:IMAGES,LABELS,NAMES"):
            open_concepts(place)


@pytest.mark.parametrize("kind", CONCEPTS)
def test_a_kind_needs_a_place(kind):
    with pytest.raises(ParameterError, match=rf"`concepts` must be {kind}:[A-Z,]+; got '{kind}: '"):
        open_concepts(f"{kind}: ")


@pytest.mark.parametrize("kind", CONCEPTS)
def test_a_place_that_is_not_there_is_named(kind, tmp_path):
    place = f"{tmp_path}/nowhere"
    with pytest.raises(ImageError, match="nowhere"):
        open_concepts(f"{kind}:{place},{place},{place}" if kind == "masks" else f"{kind}:{place}")


def test_the_title_is_the_place_as_it_was_written(tmp_path, monkeypatch):
    write_broden(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    place = f"broden:~/{tmp_path.name}"
    expected = f"Concepts({place}: 3 images, 6 concepts in color, object, material, scene)"
    assert repr(open_concepts(place)) == expected
    assert open_concepts(Path(place), colours=True).categories[-1] == "colour"


def test_photographs_of_the_home_folder(tmp_path, monkeypatch):
    write_photographs(tmp_path / "some pictures")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_concepts("colours:~/some pictures").images == ("0.png", "1.png", "2.png")
