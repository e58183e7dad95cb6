"""What holds for every kind of annotated images, whichever it is."""

import copy
import pickle

import numpy as np
import pytest
import torch

from tests.helpers.annotated_images import WRITERS
from tests.helpers.pictures import pixels
from whyfooled.errors import ImageError
from whyfooled.units import CONCEPTS, NOTHING, open_concepts

KIND = pytest.mark.parametrize("kind", WRITERS)


@pytest.fixture(params=[False, True], ids=["plain", "colours"])
def colours(request):
    return request.param


def test_every_kind_is_tried():
    assert set(WRITERS) == set(CONCEPTS)
    for kind, card in CONCEPTS.items():
        assert card.form.startswith(f"{kind}:")
        assert card.summary


@KIND
def test_images_show_what_the_contract_says(kind, colours, tmp_path):
    concepts = open_concepts(WRITERS[kind](tmp_path / "a place"), colours=colours)
    assert len(concepts) == len(set(concepts.images)) >= 2
    pairs = list(zip(concepts.names, concepts.category_of, strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(concepts.category_of) == set(range(len(concepts.categories)))
    assert len(set(concepts.categories)) == len(concepts.categories)
    for name, annotated in zip(concepts.images, concepts, strict=True):
        assert annotated.name == name
        assert annotated.maps.dtype == torch.int64
        assert annotated.maps.device.type == "cpu"
        assert annotated.maps.shape[1] > 0
        assert annotated.maps.shape[2] > 0
        assert list(annotated.categories) == sorted(set(annotated.categories))
        assert set(annotated.categories) <= set(range(len(concepts.categories)))
        assert len(set(annotated.whole)) == len(annotated.whole)
        assert {concepts.category_of[concept] for concept in annotated.whole} <= set(annotated.categories)
        for label_map in annotated.maps:
            shown = set(label_map.unique().tolist()) - {NOTHING}
            assert shown <= set(range(len(concepts.names)))
            # Each map is of one category, which is annotated.
            assert len({concepts.category_of[concept] for concept in shown}) <= 1
            assert {concepts.category_of[concept] for concept in shown} <= set(annotated.categories)


def assert_equal(one, other):
    assert (one.name, one.whole, one.categories) == (other.name, other.whole, other.categories)
    assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    assert torch.equal(one.maps, other.maps)


@KIND
def test_an_image_is_the_same_whenever_it_is_read(kind, colours, tmp_path):
    concepts = open_concepts(WRITERS[kind](tmp_path), colours=colours)
    in_order = list(concepts)
    for index in reversed(range(len(concepts))):
        assert_equal(concepts[index], in_order[index])
    assert_equal(concepts[-1], in_order[-1])
    with pytest.raises(IndexError):
        concepts[len(concepts)]


@KIND
def test_another_process_gets_the_same_from_another_folder(kind, colours, tmp_path, monkeypatch):
    place = WRITERS[kind](tmp_path / "here").replace(f"{tmp_path}/", "")
    monkeypatch.chdir(tmp_path)
    concepts = open_concepts(place, colours=colours)
    # Made anew from the same parts as by pickle.
    arrived = copy.deepcopy(concepts)
    assert arrived.reader is not concepts.reader
    assert len(pickle.dumps(concepts)) < 12000
    monkeypatch.chdir("/")
    assert arrived.digest() == concepts.digest()
    for one, other in zip(arrived, concepts, strict=True):
        assert_equal(one, other)


@KIND
def test_listing_and_reading_keep_no_picture(kind, colours, tmp_path):
    concepts = open_concepts(WRITERS[kind](tmp_path), colours=colours)
    before = len(pickle.dumps(concepts))
    list(concepts)
    assert len(pickle.dumps(concepts)) == before


@KIND
def test_a_digest_changes_with_every_file(kind, colours, tmp_path):
    place = WRITERS[kind](tmp_path)
    before = open_concepts(place, colours=colours).digest()
    assert open_concepts(place, colours=colours).digest() == before
    assert open_concepts(place, colours=not colours).digest() != before or kind == "colours"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        # Blank lines and what follows a picture change nothing but the size.
        path.write_bytes(content + b"\n\n")
        assert open_concepts(place, colours=colours).digest() != before or "ImageSets" in path.parts, path
        path.write_bytes(content)
    assert open_concepts(place, colours=colours).digest() == before


@KIND
def test_colours_are_added_once_for_every_pixel(kind, tmp_path):
    place = WRITERS[kind](tmp_path)
    plain, coloured = open_concepts(place), open_concepts(place, colours=True)
    assert coloured.categories.count("colour") == 1
    assert coloured.names[: len(plain.names)] == plain.names
    colour = coloured.categories.index("colour")
    for one, other in zip(plain, coloured, strict=True):
        assert colour in other.categories
        assert torch.equal(other.maps[: len(one.maps)], one.maps)
        assert len(other.maps) == len(one.maps) + (kind != "colours")
        assert {coloured.category_of[concept] for concept in other.maps[-1].unique().tolist()} == {colour}


@KIND
def test_a_picture_alone_needs_no_label_map(kind, colours, tmp_path):
    concepts = open_concepts(WRITERS[kind](tmp_path), colours=colours)
    whole = [np.asarray(annotated.image) for annotated in concepts]
    for path in concepts.reader.files():
        # What is no image: label maps and lists.
        if not path.as_posix().endswith(concepts.images):
            path.unlink()
    for index, expected in enumerate(whole):
        assert np.array_equal(np.asarray(concepts.reader.picture(index)), expected)


@KIND
def test_the_pictures_are_those_in_the_files(kind, tmp_path):
    concepts = open_concepts(WRITERS[kind](tmp_path))
    read = sorted(np.asarray(annotated.image).tobytes() for annotated in concepts)
    assert read == sorted(pixels(seed).tobytes() for seed in range(len(concepts)))


@KIND
def test_a_damaged_picture_is_named_when_it_is_read(kind, tmp_path):
    place = WRITERS[kind](tmp_path)
    concepts = open_concepts(place)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".png", ".jpg", ".npy"):
            content = path.read_bytes()
            path.write_bytes(content[:60])
            with pytest.raises(ImageError, match=path.name):
                list(open_concepts(place))
            path.write_bytes(content)
    assert len(list(concepts)) == len(concepts)
