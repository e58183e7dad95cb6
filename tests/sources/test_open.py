"""How the kind of a source is told, and what all sources have in common."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from tests.helpers.pictures import assert_shows, listed, photograph, pixels, write
from whyfooled.errors import ImageError, ParameterError
from whyfooled.sources import SOURCES, open_source, takes_labels


class TestKinds:
    def test_an_unknown_prefix_is_refused_with_a_suggestion(self):
        with pytest.raises(ParameterError, match=r"got 'imagnet:/data'. Did you mean imagenet"):
            open_source("imagnet:/data")

    def test_a_file_may_have_a_colon_in_its_name(self, tmp_path, monkeypatch):
        photograph(tmp_path / "cat:1.png", 5)
        monkeypatch.chdir(tmp_path)
        assert_shows(open_source("cat:1.png")[0], 5)

    def test_a_prefix_needs_a_place(self):
        with pytest.raises(ImageError, match=r"imagenet: must name a place: imagenet:ROOT"):
            open_source("imagenet:")

    def test_sources_of_other_kinds_come_alone(self, photographs):
        with pytest.raises(
            ParameterError,
            match="must be all photographs, or all folders of adversarial images, or one source of another kind",
        ):
            open_source([str(photographs), f"folder:{photographs}"])
        assert len(open_source([f"folder:{photographs}"])) == 3

    def test_the_home_folder_may_be_a_tilde(self, photographs, monkeypatch):
        monkeypatch.setenv("HOME", str(photographs.parent))
        assert len(open_source("folder:~/photographs")) == 3

    @pytest.mark.parametrize("kind", SOURCES)
    def test_a_place_that_is_not_there_is_named_by_every_kind(self, kind, tmp_path, monkeypatch):
        def unreachable(*_, **__):
            raise OSError("no network")

        for module in ("mnist", "cifar"):
            monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", unreachable)
        with pytest.raises(ImageError, match="nowhere"):
            open_source(f"{kind}:{tmp_path}/nowhere")


class TestSource:
    @pytest.fixture(params=["photographs", "folder", "npz"])
    def place(self, request, photographs, tmp_path):
        if request.param == "npz":
            np.savez(tmp_path / "a.npz", images=np.stack([pixels(seed) for seed in range(3)]), labels=np.arange(3))
            return str(tmp_path / "a.npz")
        return f"{request.param}:{photographs}"

    def test_another_process_gets_the_same_images(self, place, monkeypatch, tmp_path):
        source = open_source(place)
        source[0]
        assert len(pickle.dumps(source)) < 1500
        monkeypatch.chdir(tmp_path)
        # Made anew from the same parts as by pickle.
        arrived = copy.deepcopy(source)
        assert arrived.reader is not source.reader
        assert listed(arrived) == listed(source)
        assert arrived.digest() == source.digest()
        assert np.array_equal(np.asarray(arrived[1].image), np.asarray(source[1].image))

    def test_a_relative_place_is_found_from_another_folder(self, photographs, monkeypatch, tmp_path):
        monkeypatch.chdir(photographs.parent)
        sources = [open_source(place) for place in ("photographs", "folder:photographs")]
        monkeypatch.chdir(photographs)
        for source in sources:
            assert_shows(source[2], 0)

    def test_a_digest_changes_with_names_labels_and_sizes(self, photographs, tmp_path):
        rows = "file,label\na/one.jpg,{}\na/two.JPEG,2\nb/one.png,3\n"
        first, second = (write(tmp_path / f"{label}.csv", rows.format(label)) for label in (0, 1))
        digests = [open_source(photographs).digest(), open_source(f"folder:{photographs}").digest()]
        digests += [open_source(photographs, labels).digest() for labels in (first, second)]
        assert len(set(digests)) == 4
        assert open_source(photographs).digest() == digests[0]
        assert open_source([photographs / "a", photographs / "b"]).digest() == digests[0]
        (photographs / "a" / "one.jpg").write_bytes(b"shorter")
        changed = open_source(photographs).digest()
        (photographs / "a" / "one.jpg").rename(photographs / "a" / "other.jpg")
        renamed = open_source(photographs).digest()
        assert len({digests[0], changed, renamed}) == 3


class TestSome:
    def test_the_images_at_some_places_keep_their_names_labels_and_pixels(self, tmp_path):
        pictures = np.random.default_rng(0).integers(0, 255, (6, 9, 9, 3), dtype=np.uint8)
        np.savez(tmp_path / "i.npz", images=pictures, labels=np.arange(6))
        whole = open_source(tmp_path / "i.npz")
        some = whole.only([4, 1])
        assert (len(some), some.names, some.all_labels) == (2, ("4", "1"), ((4,), (1,)))
        assert np.asarray(some[0].image).tolist() == pictures[4].tolist()
        again = copy.deepcopy(some.only([1]))
        assert np.asarray(again[0].image).tolist() == pictures[1].tolist()
        assert len({whole.digest(), some.digest(), whole.only([1, 4]).digest()}) == 3

    def test_photographs_take_labels_and_arrays_do_not(self, tmp_path):
        assert takes_labels(str(tmp_path))
        assert not takes_labels("some.npz:fit")
        assert not takes_labels(f"folder:{tmp_path}")
