"""The eleven basic colour names, as people use them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import XKCD_COLORS, to_rgb
from PIL import Image, ImageColor

from tests.helpers.annotated_images import write_broden, write_csv, write_masks
from tests.helpers.pictures import photograph
from whyfooled.errors import ImageError, ParameterError
from whyfooled.units import open_concepts, with_colours
from whyfooled.units.concepts import Annotated, Concepts
from whyfooled.units.concepts.colours import COLOURS, name_colours, open_colours

KNOWN = {
    "black": "black #0a0a0a #1e1e1e #140a05",
    "white": "white whitesmoke snow ivory floralwhite ghostwhite mintcream seashell",
    "grey": "grey dimgrey darkgrey silver slategrey lightgrey #505050 #b0aca8",
    "red": "red darkred firebrick crimson maroon #c81414 #e03020",
    "orange": "orange darkorange coral orangered #e87010 #ffa030",
    "yellow": "yellow gold khaki lemonchiffon palegoldenrod goldenrod #e6d200",
    "green": "green lime darkgreen forestgreen limegreen olive olivedrab seagreen palegreen yellowgreen darkolivegreen "
    "mediumseagreen chartreuse #3c5a1e",
    "blue": "blue navy mediumblue royalblue dodgerblue skyblue deepskyblue steelblue lightblue midnightblue "
    "cornflowerblue cyan powderblue #4a7eb0",
    "purple": "purple indigo darkviolet blueviolet mediumpurple darkorchid rebeccapurple darkmagenta #5a2d6e",
    "pink": "pink lightpink hotpink deeppink palevioletred salmon lightcoral #f4c2c2",
    # With skin, wood and earth.
    "brown": "saddlebrown sienna peru tan burlywood #5c3317 #8d5524 #c68642 #e0ac69 #6b4a2b #4a2c17",
}
"""Colours by hand: CSS names, and what has none."""
CASES = [(colour, name) for name, colours in KNOWN.items() for colour in colours.split()]


def name_of(colour: str) -> str:
    found = name_colours(Image.new("RGB", (1, 1), ImageColor.getrgb(colour)))
    return COLOURS[int(found)]


@pytest.mark.parametrize(("colour", "name"), CASES)
def test_colours_have_the_name_that_people_give_them(colour, name):
    assert name_of(colour) == name


def test_there_are_enough_of_them():
    assert len(CASES) > 80
    assert set(KNOWN) == set(COLOURS)
    assert len(COLOURS) == 11


def test_most_colours_of_a_survey_have_the_name_that_its_participants_gave():
    """The survey's colours that end in a basic name and have no other in them: "dusty pink" is pink."""
    named = []
    for name, value in XKCD_COLORS.items():
        *others, last = name.removeprefix("xkcd:").replace("gray", "grey").replace("/", " ").split()
        if last in COLOURS and not set(others) & set(COLOURS):
            named.append((last, to_rgb(value)))
    assert len(named) > 400
    pixels = (np.array([[rgb for _, rgb in named]]) * 255).round().astype(np.uint8)
    found = name_colours(Image.fromarray(pixels))[0].tolist()
    right = [COLOURS[index] == name for index, (name, _) in zip(found, named, strict=True)]
    assert np.mean(right) > 0.92
    for colour in set(COLOURS) - {"black", "white", "grey"}:
        own = [ok for ok, (name, _) in zip(right, named, strict=True) if name == colour]
        assert np.mean(own) > 0.8, colour


SKIN = "#f6ede4 #f3e7db #f7d7c4 #eac086 #d7a57a #c58c60 #a57e5b #825c43 #604134 #3a312a #ffdbac #f1c27d"


def test_skin_is_pink_or_brown():
    """From light to dark, tones of the Monk and Fitzpatrick kind."""
    names = [name_of(tone) for tone in SKIN.split()]
    assert set(names[2:9]) <= {"pink", "brown"}
    assert set(names) <= {"white", "pink", "brown", "yellow", "black", "grey"}


def test_greys_go_from_black_to_white():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    found = [COLOURS[index] for index in name_colours(Image.fromarray(ramp))[0].tolist()]
    assert found[0] == "black"
    assert found[-1] == "white"
    changes = [(one, other) for one, other in pairwise(found) if one != other]
    assert changes == [("black", "grey"), ("grey", "white")]
    assert found.index("grey") < 64
    assert 200 < found.index("white") < 235


def test_every_colour_has_a_name_and_neighbours_do_not_matter():
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, len(levels), 3)
    found = name_colours(Image.fromarray(cube))
    assert found.shape == cube.shape[:2]
    assert found.dtype == torch.int64
    assert set(found.unique().tolist()) == set(range(11))
    turned = name_colours(Image.fromarray(np.ascontiguousarray(cube[::-1, ::-1])))
    assert torch.equal(turned, found.flip(0, 1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_other_modes_are_taken_as_rgb(mode):
    picture = Image.new("RGB", (9, 8), (200, 20, 20)).convert(mode)
    assert torch.equal(name_colours(picture), name_colours(picture.convert("RGB")))


def halves(folder):
    """Write an image that is red on the left and blue on the right."""
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 255
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "x.png")


class TestWithColours:
    @pytest.mark.parametrize("size", [(40, 60), (4, 6), (120, 180)])
    def test_the_map_has_the_size_of_the_others(self, tmp_path, size):
        halves(tmp_path / "images")
        (tmp_path / "labels").mkdir()
        np.save(tmp_path / "labels" / "x.npy", np.zeros(size, dtype=np.uint8))
        (tmp_path / "names.txt").write_text("sky\n")
        place = f"masks:{tmp_path}/images,{tmp_path}/labels,{tmp_path}/names.txt"
        concepts = with_colours(open_concepts(place))
        assert concepts.names == ("sky", *COLOURS)
        assert concepts.category_of == (0, *[1] * 11)
        assert concepts.categories == ("object", "colour")
        annotated = concepts[0]
        assert annotated.maps.shape == (2, *size)
        assert annotated.categories == (0, 1)
        third = size[1] // 3
        assert {concepts.names[index] for index in annotated.maps[1, :, :third].unique().tolist()} == {"red"}
        assert {concepts.names[index] for index in annotated.maps[1, :, -third:].unique().tolist()} == {"blue"}

    def test_images_without_label_maps_have_one_then(self, tmp_path):
        concepts = open_concepts(write_broden(tmp_path), colours=True)
        assert concepts[2].maps.shape == (1, 1, 1)
        assert concepts[2].categories == (1, 4)

    def test_a_category_of_that_name_is_not_doubled(self, tmp_path):
        write_masks(tmp_path)
        write_csv(tmp_path / "names.csv", ["label", "name", "category"], [[0, "red", "colour"]])
        place = f"masks:{tmp_path}/images,{tmp_path}/labels,{tmp_path}/names.csv"
        with pytest.raises(ParameterError, match=r"`colours` cannot be added to concepts that have a category colour"):
            open_concepts(place, colours=True)

    def test_other_readers_maps_keep_their_type(self):
        class Small:
            def read(self, index: int) -> Annotated:
                maps = torch.zeros(1, 8, 9, dtype=torch.int16)
                return Annotated("x", self.picture(index), maps, (), (0,))

            def picture(self, index: int) -> Image.Image:
                return Image.new("RGB", (9, 8))

            def files(self):
                return ()

        concepts = with_colours(Concepts("made", ("x",), ("a", "b"), (0, 0), ("object",), Small()))
        assert concepts[0].maps.dtype == torch.int16
        assert concepts[0].maps[1].unique().tolist() == [2]


class TestPhotographs:
    def test_small_ones_keep_their_size_and_large_ones_are_shrunk(self, tmp_path):
        halves(tmp_path)
        Image.new("RGB", (600, 300), (0, 128, 0)).save(tmp_path / "y.png")
        concepts = open_concepts(f"colours:{tmp_path}")
        assert (concepts.names, concepts.categories) == (COLOURS, ("colour",))
        assert concepts[0].maps.shape == (1, 40, 60)
        assert concepts[0].maps[0, :, :30].unique().tolist() == [COLOURS.index("red")]
        assert concepts[1].maps.shape == (1, 128, 256)
        assert concepts[1].image.size == (600, 300)
        assert open_colours(tmp_path, longest=10)[0].maps.shape == (1, 7, 10)
        assert open_colours(tmp_path, longest=1)[1].maps.shape == (1, 1, 1)

    def test_any_source_of_pictures_will_do(self, tmp_path):
        pixels = np.full((2, 9, 8, 3), (250, 250, 0), dtype=np.uint8)
        np.savez(tmp_path / "a.npz", images=pixels)
        concepts = open_concepts(f"colours:{tmp_path}/a.npz")
        assert len(concepts) == 2
        assert concepts[1].maps.unique().tolist() == [COLOURS.index("yellow")]
        photograph(tmp_path / "tree" / "cat" / "x.png")
        assert open_concepts(f"colours:folder:{tmp_path}/tree").images == ("cat/x.png",)

    def test_arrays_of_floats_are_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", images=np.zeros((2, 9, 8, 3), dtype=np.float32))
        concepts = open_concepts(f"colours:{tmp_path}/a.npz")
        with pytest.raises(
            ImageError, match=r"must be a picture for its colours to be named; it is an array of floats"
        ):
            concepts[0]

    def test_colours_are_not_added_twice(self, tmp_path):
        halves(tmp_path)
        assert open_concepts(f"colours:{tmp_path}", colours=True).names == COLOURS

    def test_nothing_there_is_said(self, tmp_path):
        with pytest.raises(ImageError, match="No photographs"):
            open_concepts(f"colours:{tmp_path}")
        with pytest.raises(ParameterError, match="`longest` must be at least 1; got 0"):
            open_colours(tmp_path, longest=0)
