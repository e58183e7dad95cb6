"""Folders of images and of label maps, and a list of names."""

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from tests.helpers.annotated_images import SIZE, numbers, save_grey, write_csv, write_masks
from tests.helpers.pictures import photograph, pixels, write
from whyfooled.errors import ImageError, ParameterError
from whyfooled.images.label_maps import read_label_map
from whyfooled.units import NOTHING, open_concepts


def place(root) -> str:
    return f"masks:{root / 'images'},{root / 'labels'},{root / 'names.txt'}"


@pytest.fixture
def one(tmp_path):
    """Write one image with a label map, and three names."""
    photograph(tmp_path / "images" / "x.png", 0)
    save_grey(tmp_path / "labels" / "x.png", numbers(0, [0, 1, 2, 255]))
    write(tmp_path / "names.txt", "sky\nroad\ncar\n")
    return tmp_path


class TestReading:
    def test_every_pixel_is_read_back(self, tmp_path):
        concepts = open_concepts(write_masks(tmp_path))
        assert concepts.images == ("a/one.jpg", "a/two.jpg", "b/one.jpg")
        assert concepts.names == ("sky", "building", "tree")
        assert (concepts.categories, concepts.category_of) == (("object",), (0, 0, 0))
        meaning = np.full(256, NOTHING)
        meaning[[0, 1, 3]] = [0, 1, 2]
        written = (numbers(1, [0, 1, 2, 3, 4], (20, 24)), numbers(2, [1, 3], (5, 6)), numbers(0, [0, 1, 2, 3, 255]))
        for annotated, values, seed in zip(concepts, written, (1, 2, 0), strict=True):
            assert np.array_equal(annotated.maps.numpy(), meaning[values][None])
            assert np.array_equal(np.asarray(annotated.image), pixels(seed))
            assert (annotated.whole, annotated.categories) == ((), (0,))

    def test_a_label_may_be_a_concept_of_several_categories(self, one):
        write_csv(
            one / "names.csv",
            ["name", "label", "category"],
            [["car", 2, ""], ["metal", 2, "material"], ["sky", 0, "object"], ["Void", 1, "part"]],
        )
        concepts = open_concepts(place(one).replace("txt", "csv"))
        assert list(zip(concepts.names, concepts.category_of, strict=True)) == [("car", 0), ("metal", 1), ("sky", 0)]
        # A name that is none makes no category.
        assert concepts.categories == ("object", "material")
        values = numbers(0, [0, 1, 2, 255])
        objects = np.select([values == 0, values == 2], [2, 0], NOTHING)
        materials = np.where(values == 2, 1, NOTHING)
        assert np.array_equal(concepts[0].maps.numpy(), np.stack([objects, materials]))

    def test_labels_of_one_name_are_one_concept(self, one):
        write(one / "names.txt", "road\ncar\nroad\n")
        concepts = open_concepts(place(one))
        assert concepts.names == ("road", "car")
        values = numbers(0, [0, 1, 2, 255])
        assert np.array_equal(concepts[0].maps[0].numpy(), np.select([values == 255, values == 1], [NOTHING, 1], 0))

    @pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "void", "ignore", "-", ""])
    def test_names_of_nothing_are_no_concepts(self, one, name):
        write(one / "names.txt", f"sky\n {name}\ncar\n")
        concepts = open_concepts(place(one))
        assert concepts.names == ("sky", "car")
        assert set(concepts[0].maps.unique().tolist()) == {NOTHING, 0, 1}

    def test_255_has_a_name_where_the_list_reaches_that_far(self, one):
        write(one / "names.txt", "".join(f"name {label}\n" for label in range(256)))
        assert set(open_concepts(place(one))[0].maps.unique().tolist()) == {0, 1, 2, 255}

    def test_a_16_bit_label_map_has_labels_over_255(self, one):
        values = numbers(1, [0, 300])
        Image.fromarray(values.astype(np.uint16)).save(one / "labels" / "x.png")
        write_csv(one / "names.csv", ["label", "name"], [[0, "-"], [300, "car"]])
        maps = open_concepts(place(one).replace("txt", "csv"))[0].maps
        assert np.array_equal(maps[0].numpy(), np.where(values == 300, 0, NOTHING))

    def test_paths_may_have_spaces_and_tildes(self, one, monkeypatch):
        (one / "two words").mkdir()
        (one / "labels").rename(one / "two words" / "labels")
        monkeypatch.setenv("HOME", str(one))
        assert len(open_concepts("masks:~/images, ~/two words/labels, ~/names.txt")) == 1


class TestRefusals:
    def test_a_label_without_a_name_is_named_with_its_file(self, one):
        for strange, values in ((7, [0, 1, 7]), (254, [0, 254])):
            save_grey(one / "labels" / "x.png", numbers(0, values))
            with pytest.raises(ImageError, match=rf"x\.png must hold the numbers of the 3 labels .*got {strange}\."):
                open_concepts(place(one))[0]
        (one / "labels" / "x.png").unlink()
        np.save(one / "labels" / "x.npy", numbers(0, [0, -1]))
        with pytest.raises(ImageError, match=r"x\.npy must hold .*got -1\."):
            open_concepts(place(one))[0]

    def test_a_gap_in_a_table_has_no_name(self, one):
        write_csv(one / "names.csv", ["label", "name"], [[0, "sky"], [2, "car"]])
        with pytest.raises(ImageError, match=r"of the 2 labels .*got 1"):
            open_concepts(place(one).replace("txt", "csv"))[0]

    @pytest.mark.parametrize("size", [(10, 12), (5, 6), (30, 36), (3, 4), (100, 121), (31, 36)])
    def test_label_maps_of_about_the_images_proportions(self, one, size):
        (one / "labels" / "x.png").unlink()
        np.save(one / "labels" / "x.npy", np.zeros(size, dtype=np.uint8))
        assert open_concepts(place(one))[0].maps.shape == (1, *size)

    @pytest.mark.parametrize("size", [(12, 10), (10, 10), (100, 112), (30, 40)])
    def test_other_proportions_are_refused(self, one, size):
        (one / "labels" / "x.png").unlink()
        np.save(one / "labels" / "x.npy", np.zeros(size, dtype=np.uint8))
        with pytest.raises(ImageError, match=rf"12 × 10 pixels; got {size[1]} × {size[0]}. Do they belong together"):
            open_concepts(place(one))[0]
        assert SIZE == (10, 12)

    def test_what_does_not_pair_up_is_counted(self, one):
        photograph(one / "images" / "more" / "y.png", 1)
        photograph(one / "images" / "z.png", 1)
        save_grey(one / "labels" / "y.png", numbers(0, [0]))
        with pytest.raises(
            ImageError,
            match=r"2 of 3 images are left over, such as more/y.png and 1 of 2 label maps are left over, such as y.png",
        ):
            open_concepts(place(one))

    def test_one_name_for_two_files_is_refused(self, one):
        photograph(one / "images" / "x.jpg", 1)
        with pytest.raises(ImageError, match=r"images in .* must differ .*got x.jpg and x.png"):
            open_concepts(place(one))

    def test_hidden_and_other_files_do_not_count(self, one):
        write(one / "images" / "notes.txt", "")
        write(one / "labels" / ".x.png", "")
        assert len(open_concepts(place(one))) == 1

    def test_nothing_there(self, one):
        for folder, what in (("labels", "label maps"), ("images", "images")):
            for path in (one / folder).iterdir():
                path.unlink()
            with pytest.raises(ImageError, match=f"No {what} .* were found in"):
                open_concepts(place(one))
        with pytest.raises(ImageError, match=r"There is no file .*names.txt2 with the labels' names"):
            open_concepts(f"{place(one)}2")

    def test_a_list_of_nothing_is_refused(self, one):
        write(one / "names.txt", "void\n-\n")
        with pytest.raises(ImageError, match="has no concept"):
            open_concepts(place(one))

    def test_a_binary_list_is_refused(self, one):
        (one / "names.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ImageError, match=r"names.txt cannot be read"):
            open_concepts(place(one))

    def test_damaged_lines_of_a_table_are_reported_together(self, one):
        table = (
            "label,name,category\n0,sky,\nx,road,\n0,cloud,object\n-1,car,\n3\n70000,bus,\n\n5,a,b,c\n1,fine,\n6,y\n"
        )
        write(one / "names.csv", table)
        with pytest.raises(ImageError) as caught:
            open_concepts(place(one).replace("txt", "csv"))
        assert str(caught.value) == (
            f"{one}/names.csv has 7 damaged lines: line 3: label must be a whole number from 0 to 65535; got 'x'; "
            "line 4: label 0 has a name in the category object already: 'sky'; "
            "line 5: label must be a whole number from 0 to 65535; got '-1'; line 6: it must have 3 values; got 1; "
            "line 7: label must be a whole number from 0 to 65535; got '70000'; and 2 more, up to line 11."
        )

    def test_a_table_without_its_columns_is_refused(self, one):
        write(one / "names.csv", "number,name\n0,sky\n")
        with pytest.raises(ImageError, match=r"must have the columns label, name; label is missing"):
            open_concepts(place(one).replace("txt", "csv"))

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ("a", r"LABELS \(a folder of label maps\) and NAMES"),
            ("a,b", "Add NAMES"),
            ("a,,c", "Add LABELS"),
            ("a,b,c,d", "of three parts; got 4"),
        ],
    )
    def test_what_is_missing_of_the_three_parts_is_said(self, parts, message):
        with pytest.raises(ParameterError, match=message):
            open_concepts(f"masks:{parts}")

    def test_a_label_map_that_is_a_jpeg_is_refused(self, one):
        (one / "labels" / "x.png").unlink()
        Image.fromarray(numbers(0, [0, 1]).astype(np.uint8)).save(one / "labels" / "x.jpg", format="JPEG")
        with pytest.raises(ImageError, match="a JPEG, which changes them"):
            open_concepts(place(one))[0]


class TestBinaryMasks:
    """Of 0 and 255: the object, or what was left out?"""

    @staticmethod
    def masks(root, *values):
        for number, drawn in enumerate(values):
            photograph(root / "images" / f"{number}.png", number)
            save_grey(root / "labels" / f"{number}.png", numbers(number, list(drawn)))
        return place(root)

    def test_with_names_for_0_and_1_they_are_refused_with_the_fix(self, tmp_path):
        write(tmp_path / "names.txt", "background\nobject\n")
        with pytest.raises(ImageError) as caught:
            open_concepts(self.masks(tmp_path, [0], [0, 255], [255]))
        assert str(caught.value) == (
            f"The label maps have 0 and 255 alone, and {tmp_path}/names.txt names labels up to 1: is 255 the object of "
            "a mask, or what was left out? Divide such masks by 255, or say it in a CSV file with the columns label "
            "and name: 255,object or 255,void."
        )

    @pytest.mark.parametrize(("name", "shown"), [("object", {NOTHING, 0}), ("void", {NOTHING})])
    def test_a_list_that_names_255_says_what_it_is(self, tmp_path, name, shown):
        write_csv(tmp_path / "names.csv", ["label", "name"], [[0, "-"], [255, name], [1, "car"]])
        concepts = open_concepts(self.masks(tmp_path, [0, 255], [0, 255]).replace("txt", "csv"))
        assert {int(value) for annotated in concepts for value in annotated.maps.unique()} == shown

    @pytest.mark.parametrize("other", [1, 7])
    def test_beside_other_numbers_255_is_left_out(self, tmp_path, other):
        write(tmp_path / "names.txt", "".join(f"name {label}\n" for label in range(8)))
        concepts = open_concepts(self.masks(tmp_path, [0, 255], [0, other]))
        assert concepts[0].maps.unique().tolist() == [NOTHING, 0]

    def test_label_maps_are_read_until_one_has_another_number(self, tmp_path, monkeypatch):
        write(tmp_path / "names.txt", "background\nobject\n")
        read = []
        monkeypatch.setattr(
            "whyfooled.units.concepts.masks.read_label_map",
            lambda path: (read.append(path.name), read_label_map(path))[1],
        )
        open_concepts(self.masks(tmp_path, [0, 255], [0, 1], [0, 255], [0, 1]))
        assert read == ["0.png", "1.png"]

    def test_with_a_name_for_0_alone_nothing_is_lost(self, tmp_path):
        write(tmp_path / "names.txt", "sky\nvoid\n")
        assert open_concepts(self.masks(tmp_path, [0, 255]))[0].maps.unique().tolist() == [NOTHING, 0]

    def test_a_gap_at_255_is_no_name(self, tmp_path):
        write_csv(tmp_path / "names.csv", ["label", "name"], [[0, "sky"], [300, "car"]])
        concepts = open_concepts(self.masks(tmp_path, [0, 255]).replace("txt", "csv"))
        with pytest.raises(
            ImageError, match=r"must hold the numbers of the 2 labels that .*names\.csv names; got 255\."
        ):
            concepts[0]

    def test_a_damaged_label_map_is_named_when_it_is_read(self, tmp_path):
        write(tmp_path / "names.txt", "background\nobject\n")
        self.masks(tmp_path, [0, 255], [0, 1])
        (tmp_path / "labels" / "0.png").write_bytes(b"no picture")
        concepts = open_concepts(place(tmp_path))
        concepts[1]
        with pytest.raises(ImageError, match=r"0\.png is not an image"):
            concepts[0]


class TestNames:
    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_lists_may_be_in_any_unicode(self, one, encoding):
        (one / "names.txt").write_bytes("Straße\nbús\ncar\n".encode(encoding))
        assert open_concepts(place(one)).names == ("Straße", "bús", "car")
        (one / "names.csv").write_bytes("label;name\n0;Straße\n1;bús\n2;car\n".encode(encoding))
        assert open_concepts(place(one).replace("txt", "csv")).names == ("Straße", "bús", "car")

    @pytest.mark.parametrize(("images", "maps"), [("NFC", "NFD"), ("NFD", "NFC")])
    def test_accents_may_be_written_in_either_form(self, one, images, maps):
        photograph(one / "images" / normalize(images, "é.jpg"), 1)
        save_grey(one / "labels" / normalize(maps, "é.png"), numbers(1, [0, 1]))
        concepts = open_concepts(place(one))
        assert concepts.images == (normalize(images, "é.jpg"), "x.png")[:: 1 if images == "NFD" else -1]
        assert all(len(annotated.maps) == 1 for annotated in concepts)

    def test_hidden_folders_do_not_count_and_links_do(self, one, tmp_path_factory):
        photograph(one / "images" / ".ipynb_checkpoints" / "x-checkpoint.png", 1)
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        photograph(elsewhere / "images" / "y.png", 1)
        save_grey(elsewhere / "labels" / "y.png", numbers(0, [0]))
        for folder in ("images", "labels"):
            (one / folder / "more").symlink_to(elsewhere / folder)
        assert open_concepts(place(one)).images == ("more/y.png", "x.png")

    def test_a_label_map_is_turned_as_its_image_is(self, one):
        exif = Image.Exif()
        exif[0x0112] = 6
        values = numbers(0, [0, 1, 2, 255])
        Image.fromarray(values.astype(np.uint8)).save(one / "labels" / "x.png", exif=exif)
        Image.fromarray(pixels(0)).save(one / "images" / "x.png", exif=exif)
        annotated = open_concepts(place(one))[0]
        assert np.array_equal(np.asarray(annotated.image), np.rot90(pixels(0), -1))
        expected = np.rot90(np.where(values == 255, NOTHING, values), -1)
        assert np.array_equal(annotated.maps[0].numpy(), expected)
