"""ImageNet, Tiny ImageNet and PASCAL VOC in their published layouts."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets

from tests.helpers.pictures import assert_shows, listed, photograph, write
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ImageError
from whyfooled.sources import class_map, open_source


class TestImagenet:
    def test_folders_of_synsets_have_the_labels_of_the_1000(self, tmp_path):
        photograph(tmp_path / "val" / "n01443537" / "ILSVRC2012_val_00000262.JPEG", 1)
        photograph(tmp_path / "val" / "n15075141" / "ILSVRC2012_val_00000100.JPEG", 2)
        for place in (tmp_path, tmp_path / "val"):
            source = open_source(f"imagenet:{place}")
            assert listed(source) == {
                "n01443537/ILSVRC2012_val_00000262.JPEG": (1,),
                "n15075141/ILSVRC2012_val_00000100.JPEG": (999,),
            }
            assert_shows(source[1], 2)
        assert len(source.class_names) == 1000
        assert source.class_names[1] == "goldfish, Carassius auratus"
        assert class_map(source, load_classifier()) == tuple(range(1000))

    def test_a_folder_that_is_no_synset_is_named(self, tmp_path):
        photograph(tmp_path / "val" / "n01443538" / "x.JPEG")
        with pytest.raises(ImageError, match=r"n01443538 is not named .* Did you mean n01443537"):
            open_source(f"imagenet:{tmp_path}")

    def test_an_empty_root_is_refused(self, tmp_path):
        with pytest.raises(ImageError, match="neither folders named by synsets"):
            open_source(f"imagenet:{tmp_path}")

    @pytest.fixture
    def flat(self, tmp_path, monkeypatch):
        """Write three images and a development kit of two classes, whose own numbers are not the indices."""
        for number in (1, 3):
            photograph(tmp_path / "val" / f"ILSVRC2012_val_{number:08}.JPEG", number)
        data = tmp_path / "kit" / "ILSVRC2012_devkit_t12" / "data"
        write(data / "ILSVRC2012_validation_ground_truth.txt", "2\n1\n1\n")
        synsets = np.array(
            [(1, "n01443537", "goldfish, x", "g", 0), (2, "n01440764", "tench", "t", 0), (3, "n0", "animal", "a", 2)],
            dtype=[("ID", "i4"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "i4")],
        )
        scipy.io.savemat(data / "meta.mat", {"synsets": synsets})
        with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "kit" / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
        md5 = hashlib.md5((tmp_path / "ILSVRC2012_devkit_t12.tar.gz").read_bytes()).hexdigest()
        meta = {"devkit": ("ILSVRC2012_devkit_t12.tar.gz", md5)}
        monkeypatch.setattr("torchvision.datasets.imagenet.ARCHIVE_META", meta)
        return tmp_path

    def test_flat_images_are_labelled_by_the_development_kit(self, flat):
        for _ in range(2):
            source = open_source(f"imagenet:{flat}")
            assert listed(source) == {"ILSVRC2012_val_00000001.JPEG": (0,), "ILSVRC2012_val_00000003.JPEG": (1,)}
            # The second time from meta.bin.
            (flat / "ILSVRC2012_devkit_t12.tar.gz").unlink(missing_ok=True)

    def test_flat_images_without_it_are_refused(self, flat):
        (flat / "ILSVRC2012_devkit_t12.tar.gz").unlink()
        with pytest.raises(ImageError, match=r"not in folders named by synset.*ILSVRC2012_devkit_t12.tar.gz"):
            open_source(f"imagenet:{flat}")

    def test_flat_images_of_other_names_are_refused(self, flat):
        photograph(flat / "val" / "cat.JPEG")
        with pytest.raises(ImageError, match=r"cat.JPEG is not named as ImageNet's"):
            open_source(f"imagenet:{flat}")


class TestTinyImagenet:
    @pytest.fixture
    def root(self, tmp_path):
        write(tmp_path / "wnids.txt", "n02124075\nn01443537\n")
        write(tmp_path / "words.txt", "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\n")
        write(
            tmp_path / "val" / "val_annotations.txt",
            "val_0.JPEG\tn02124075\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t1\t2\t3\t4\n",
        )
        for number in range(2):
            photograph(tmp_path / "val" / "images" / f"val_{number}.JPEG", number)
        return tmp_path

    def test_validation_images_have_the_sorted_synsets_as_classes(self, root):
        source = open_source(f"tiny-imagenet:{root}")
        assert listed(source) == {"val_0.JPEG": (1,), "val_1.JPEG": (0,)}
        assert source.synsets == ("n01443537", "n02124075")
        assert source.class_names == ("goldfish, Carassius auratus", "n02124075")
        assert_shows(source[1], 1)
        # Egyptian cat
        assert class_map(source, load_classifier()) == (1, 285)

    def test_what_is_missing_is_named(self, root):
        (root / "words.txt").unlink()
        with pytest.raises(ImageError, match=r"words.txt, a part of Tiny ImageNet, cannot be read: No such file"):
            open_source(f"tiny-imagenet:{root}")

    @pytest.mark.parametrize("text", ["", "val_0.JPEG\n", "val_0.JPEG\tn00000001\n"])
    def test_other_annotations_are_refused(self, root, text):
        write(root / "val" / "val_annotations.txt", text)
        with pytest.raises(ImageError, match=r"must have an image and one of wnids.txt in every line"):
            open_source(f"tiny-imagenet:{root}")


def annotation(*objects: tuple[str, int]) -> str:
    inside = "".join(
        f"<object><name>{name}</name><part><name>head</name></part><difficult>{difficult}</difficult></object>"
        for name, difficult in objects
    )
    return f"<annotation><filename>x.jpg</filename>{inside}</annotation>"


class TestVoc:
    @pytest.fixture
    def root(self, tmp_path):
        root = tmp_path / "VOCdevkit" / "VOC2012"
        write(root / "ImageSets" / "Main" / "val.txt", "2008_000002\n2008_000003\n2008_000009\n")
        write(root / "ImageSets" / "Main" / "train.txt", "2008_000008\n")
        write(root / "Annotations" / "2008_000002.xml", annotation(("tvmonitor", 0), ("tvmonitor", 0)))
        write(root / "Annotations" / "2008_000003.xml", annotation(("person", 0), ("dog", 1), ("aeroplane", 0)))
        write(root / "Annotations" / "2008_000009.xml", annotation(("cow", 1)))
        write(root / "Annotations" / "2008_000008.xml", annotation(("cow", 1), ("cow", 0)))
        for seed, number in enumerate((2, 3, 9, 8)):
            photograph(root / "JPEGImages" / f"2008_00000{number}.jpg", seed)
        return tmp_path

    def test_an_image_has_every_class_that_it_shows_but_for_difficult_objects(self, root):
        for place in (root, root / "VOCdevkit", root / "VOCdevkit" / "VOC2012"):
            source = open_source(f"voc2012:{place}")
            assert listed(source) == {"2008_000002.jpg": (19,), "2008_000003.jpg": (0, 14), "2008_000009.jpg": ()}
        assert len(source.class_names) == 20
        assert list(source.class_names) == sorted(source.class_names)
        assert_shows(source[1], 1)

    def test_it_lists_the_images_that_torchvision_lists(self, root):
        theirs = torchvision.datasets.VOCDetection(str(root), image_set="val")
        ours = open_source(f"voc2012:{root}")
        assert [Path(path).name for path in theirs.images] == list(ours.names)
        for (image, target), sample in zip(theirs, ours, strict=True):
            assert np.array_equal(np.asarray(image), np.asarray(sample.image))
            named = {found["name"] for found in target["annotation"]["object"] if found["difficult"] == "0"}
            assert {ours.class_names[label] for label in sample.labels} == named

    def test_the_training_images_are_others(self, root):
        assert listed(open_source(f"voc2012-train:{root}")) == {"2008_000008.jpg": (9,)}

    @pytest.mark.parametrize("text", ["<annotation>", annotation(("gnome", 0))])
    def test_a_damaged_annotation_is_named(self, root, text):
        write(root / "VOCdevkit" / "VOC2012" / "Annotations" / "2008_000003.xml", text)
        with pytest.raises(ImageError, match=r"2008_000003.xml cannot be read as an annotation"):
            open_source(f"voc2012:{root}")

    def test_another_folder_is_refused(self, photographs):
        with pytest.raises(ImageError, match=r"val.txt, a part of PASCAL VOC 2012, cannot be read"):
            open_source(f"voc2012:{photographs}")
