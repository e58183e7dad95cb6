"""PASCAL VOC 2012's segmentation and COCO-Stuff in their published layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torchvision.datasets

from tests.helpers.annotated_images import numbers, save_grey, save_palette, write_coco_stuff, write_voc
from tests.helpers.pictures import pixels, write
from whyfooled.errors import ImageError
from whyfooled.units import NOTHING, open_concepts


class TestVoc:
    @pytest.mark.parametrize("part", ["val", "train"])
    def test_it_shows_what_torchvision_shows(self, tmp_path, part):
        place = write_voc(tmp_path, part)
        theirs = torchvision.datasets.VOCSegmentation(str(tmp_path), image_set=part)
        ours = open_concepts(place)
        assert len(ours) == len(theirs) == 2
        for annotated, (image, target) in zip(ours, theirs, strict=True):
            assert np.array_equal(np.asarray(annotated.image), np.asarray(image))
            labels = np.asarray(target).astype(int)
            assert set(np.unique(labels)) >= {0, 1, 255}
            # Background and outlines are no concept; label 1 is the first.
            expected = np.where((labels == 0) | (labels == 255), NOTHING, labels - 1)
            assert np.array_equal(annotated.maps.numpy(), expected[None])
            assert annotated.categories == (0,)

    def test_the_concepts_are_the_20_classes(self, tmp_path):
        concepts = open_concepts(write_voc(tmp_path))
        assert concepts.names[::19] == ("aeroplane", "tvmonitor")
        assert len(concepts.names) == 20
        assert concepts.categories == ("object",)
        assert concepts.images == ("2007_000033.jpg", "2007_000042.jpg")

    def test_the_place_may_be_any_of_the_folders(self, tmp_path):
        write_voc(tmp_path)
        for below in ("VOCdevkit", "VOCdevkit/VOC2012"):
            assert len(open_concepts(f"voc2012-segmentation:{tmp_path / below}")) == 2

    def test_outlines_are_no_object_where_nothing_else_is_shown(self, tmp_path):
        place = write_voc(tmp_path)
        for path in (tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass").iterdir():
            save_palette(path, numbers(0, [0, 255]))
        assert [annotated.maps.unique().tolist() for annotated in open_concepts(place)] == [[NOTHING]] * 2

    def test_what_is_missing_is_named(self, tmp_path):
        place = write_voc(tmp_path)
        folder = tmp_path / "VOCdevkit" / "VOC2012"
        with pytest.raises(ImageError, match=r"Segmentation/train.txt, a part of PASCAL VOC 2012, cannot be read"):
            open_concepts(place.replace(":", "-train:", 1))
        (folder / "SegmentationClass" / "2007_000042.png").unlink()
        with pytest.raises(ImageError, match=r"There is no image file .*2007_000042.png"):
            open_concepts(place)[1]
        write(folder / "ImageSets" / "Segmentation" / "val.txt", "\n")
        with pytest.raises(ImageError, match=r"val.txt names no image"):
            open_concepts(place)

    def test_a_label_over_20_is_refused(self, tmp_path):
        place = write_voc(tmp_path)
        path = tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000033.png"
        save_palette(path, numbers(0, [0, 21]))
        with pytest.raises(ImageError, match=r"2007_000033.png must hold the numbers of the 21 labels .*got 21"):
            open_concepts(place)[0]


class TestCocoStuff:
    def test_the_number_v_is_the_label_v_plus_1(self, tmp_path):
        concepts = open_concepts(write_coco_stuff(tmp_path))
        assert concepts.names == ("person", "hair brush", "banner", "wood")
        assert concepts.categories == ("thing", "stuff")
        assert concepts.category_of == (0, 0, 1, 1)
        write(tmp_path / "labels.txt", (tmp_path / "labels.txt").read_text() + "2: bicycle\n")
        concepts = open_concepts(f"coco-stuff:{tmp_path}")
        for seed, annotated in enumerate(concepts):
            values = numbers(seed, [0, 90, 91, 181, 255])
            things = np.select([values == 0, values == 90], [0, 1], NOTHING)
            stuff = np.select([values == 91, values == 181], [2, 3], NOTHING)
            assert np.array_equal(annotated.maps.numpy(), np.stack([things, stuff]))
            assert annotated.categories == (0, 1)
            assert np.array_equal(np.asarray(annotated.image), pixels(seed))

    @pytest.mark.parametrize(("images", "maps"), [(".", "stuffthingmaps"), ("images", "stuffthingmaps")])
    def test_folders_may_have_their_other_names(self, tmp_path, images, maps):
        place = write_coco_stuff(tmp_path, "train2017", images, maps)
        assert open_concepts(place).images == ("000000000139.jpg", "000000000285.jpg")

    def test_a_number_without_a_name_is_refused(self, tmp_path):
        place = write_coco_stuff(tmp_path)
        # The label unlabeled is 255 in the maps; 182 would be the label 183.
        for strange in (1, 182):
            save_grey(tmp_path / "annotations" / "val2017" / "000000000139.png", numbers(0, [0, strange]))
            with pytest.raises(ImageError, match=rf"000000000139.png must hold .*got {strange}\."):
                open_concepts(place)[0]

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(ImageError, match=r"no images of COCO-Stuff: they must be in .*images/val2017 or .*val2017"):
            open_concepts(f"coco-stuff:{tmp_path}")
        place = write_coco_stuff(tmp_path)
        (tmp_path / "images" / "val2017" / "000000000285.jpg").unlink()
        with pytest.raises(
            ImageError, match=r"0 of 1 images are left over and 1 of 2 label maps are left over, such as"
        ):
            open_concepts(place)
        (tmp_path / "labels.txt").unlink()
        with pytest.raises(ImageError, match=r"labels.txt, a part of COCO-Stuff, cannot be read: No such file"):
            open_concepts(place)
        (tmp_path / "annotations").rename(tmp_path / "maps")
        with pytest.raises(ImageError, match=r"no label maps of COCO-Stuff: they must be in .*annotations/val2017"):
            open_concepts(place)

    @pytest.mark.parametrize("line", ["person", "one: person", "1:"])
    def test_a_list_of_another_form_is_refused(self, tmp_path, line):
        place = write_coco_stuff(tmp_path)
        write(tmp_path / "labels.txt", f"0: unlabeled\n{line}\n")
        with pytest.raises(ImageError, match=rf"labels.txt must have lines such as '1: person'; got '{line}'"):
            open_concepts(place)
