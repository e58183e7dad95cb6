"""Saved adversarial images as a source."""

from __future__ import annotations

import pytest
import torch

from tests.models import small
from tests.sources.pictures import listed, write
from whyfooled import FMN, attack_files
from whyfooled.classifier import Fit
from whyfooled.errors import ImageError
from whyfooled.sources import open_source


class TestSaved:
    @pytest.fixture
    def saved(self, photographs, tmp_path):
        def attacked(**goal):
            folder = tmp_path / "-".join(["saved", *goal])
            attack_files(small(), [photographs], FMN(steps=5), folder, **goal)
            return folder

        return attacked

    def test_the_label_is_the_true_class_of_an_untargeted_goal(self, saved):
        folder = saved(labels={"a/one.jpg": 4, "a/two.JPEG": 2, "b/one.png": 0})
        source = open_source(folder)
        assert listed(source) == {"a/one.jpg": (4,), "a/two.JPEG": (2,), "b/one.png": (0,)}
        sample = source[1]
        assert torch.equal(sample.image, sample.adversary.clean[0])
        assert sample.adversary.goal.classes.tolist() == [2]
        assert torch.equal(sample.fitted(Fit((16, 16)), 3), sample.image)

    def test_the_label_is_the_clean_prediction_of_a_targeted_goal(self, saved):
        source = open_source(saved(target="least-likely"))
        for sample in source:
            assert sample.labels == (int(small().predict(sample.adversary.clean)),)
            assert sample.adversary.goal.classes.tolist() != list(sample.labels)

    def test_a_damaged_file_is_named_when_it_is_read(self, saved):
        folder = saved()
        (folder / "a" / "one.jpg.safetensors").write_bytes(b"damaged")
        source = open_source(folder)
        assert source.labels(0) == ()
        with pytest.raises(ImageError, match=r"one.jpg.safetensors .* is damaged"):
            source[0]

    def test_a_run_without_results_is_refused(self, tmp_path):
        write(tmp_path / "run.json", '{"images": ["a.png"]}')
        with pytest.raises(ImageError, match="no adversarial image yet"):
            open_source(tmp_path)
