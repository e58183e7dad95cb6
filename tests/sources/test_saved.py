"""Saved adversarial images as a source: one run, and several on the same photographs."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.models import small
from tests.helpers.pictures import listed, photograph, write
from whyfooled import FGSM, FMN, attack_files, load_adversaries
from whyfooled.classifier import Fit
from whyfooled.errors import ImageError, ParameterError, WhyfooledWarning
from whyfooled.sources import open_source

LABELS = {"a/one.jpg": 4, "a/two.JPEG": 2, "b/one.png": 0}
FMN_TEXT, FGSM_TEXT = "fmn(steps=5)", "fgsm(epsilon=0.02)"


@pytest.fixture
def saved(photographs, tmp_path):
    def attacked(name="saved", attack=None, model=None, below="", **goal):
        folder = tmp_path / name
        attack_files(model or small(), [photographs / below], attack or FMN(steps=5), folder, **goal)
        return folder

    return attacked


def forget_true_class(file):
    """Rewrite a file as earlier versions wrote it: with the goal alone."""
    with safe_open(file, framework="pt") as content:
        about = json.loads(content.metadata()["whyfooled"])
    for key in ("format", "seal", "run", "true"):
        del about[key]
    save_file(load_file(file), file, {"whyfooled": json.dumps(about)})


class TestOneRun:
    def test_the_label_is_the_true_class_of_an_untargeted_goal(self, saved):
        folder = saved(labels=LABELS)
        source = open_source(folder)
        assert source.attacks == (FMN_TEXT,)
        assert listed(source) == {"a/one.jpg": (4,), "a/two.JPEG": (2,), "b/one.png": (0,)}
        sample = source[1]
        assert list(sample.adversaries) == [FMN_TEXT]
        assert torch.equal(sample.image, sample.adversaries[FMN_TEXT].clean[0])
        assert sample.adversaries[FMN_TEXT].goal.classes.tolist() == [2]
        assert torch.equal(sample.fitted(Fit((16, 16)), 3), sample.image)

    def test_the_label_is_the_true_class_of_a_targeted_goal_too(self, saved):
        source = open_source(saved(labels=LABELS, target=3))
        assert listed(source) == {"a/one.jpg": (4,), "a/two.JPEG": (2,), "b/one.png": (0,)}
        assert source[0].adversaries[FMN_TEXT].goal.classes.tolist() == [3]

    def test_where_a_targeted_run_recorded_no_true_class_it_is_the_clean_prediction(self, saved):
        folder = saved(labels=LABELS, target=3)
        for name in LABELS:
            forget_true_class(folder / f"{name}.safetensors")
        for sample in open_source(folder):
            assert sample.labels == (int(small().predict(sample.image.unsqueeze(0))),)

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


class TestSeveralRuns:
    def test_each_image_has_what_every_attack_made_of_it(self, saved):
        folders = [saved("fmn", labels=LABELS), saved("fgsm", FGSM(epsilon=0.02), labels=LABELS, target="random")]
        source = open_source(folders)
        assert source.attacks == (FMN_TEXT, FGSM_TEXT)
        assert listed(source) == {name: (label,) for name, label in LABELS.items()}
        for sample in source:
            assert list(sample.adversaries) == [FMN_TEXT, FGSM_TEXT]
            for folder, result in zip(folders, sample.adversaries.values(), strict=True):
                alone = load_adversaries(folder)[sample.name]
                assert torch.equal(result.attempted, alone.attempted)
                assert type(result.goal) is type(alone.goal)
                assert torch.equal(sample.image, alone.clean[0])

    def test_a_relative_place_is_found_from_another_folder_and_by_another_process(self, saved, monkeypatch, tmp_path):
        saved("fmn")
        saved("fgsm", FGSM(epsilon=0.02))
        monkeypatch.chdir(tmp_path)
        source = open_source(["fmn", "adversaries:fgsm"])
        monkeypatch.chdir("/")
        arrived = copy.deepcopy(source)
        assert arrived.digest() == source.digest()
        assert torch.equal(arrived[1].adversaries[FGSM_TEXT].attempted, source[1].adversaries[FGSM_TEXT].attempted)

    def test_photographs_that_not_all_runs_have_are_left_out_with_a_warning(self, saved):
        folders = [saved("fmn"), saved("fgsm", FGSM(epsilon=0.02))]
        (folders[1] / "a" / "one.jpg.safetensors").unlink()
        said = r"1 of 3 photographs are left out .* such as a/one.jpg, which is not in .*/fgsm\."
        for order in (folders, folders[::-1]):
            with pytest.warns(WhyfooledWarning, match=said):
                assert open_source(order).names == ("a/two.JPEG", "b/one.png")

    def test_runs_without_a_photograph_in_common_are_refused(self, saved):
        folders = [saved("fmn", below="a"), saved("fgsm", FGSM(epsilon=0.02), below="b")]
        with pytest.raises(ImageError, match=r"No photograph is in all of .*/fmn, .*/fgsm\."):
            open_source(folders)

    def test_another_photograph_of_the_same_name_is_noticed_when_it_is_read(self, saved, photographs):
        first = saved("fmn", labels=LABELS)
        photograph(photographs / "a" / "two.JPEG", seed=99)
        source = open_source([first, saved("fgsm", FGSM(epsilon=0.02), labels=LABELS)])
        assert len(source[0].adversaries) == 2
        with pytest.raises(ImageError, match=r"a/two.JPEG is not the same clean image in .*/fmn and in .*/fgsm:"):
            source[1]

    def test_a_model_with_another_input_is_noticed_when_it_is_read(self, saved):
        folders = [saved("fmn", labels=LABELS), saved("fgsm", FGSM(epsilon=0.02), small(side=20), labels=LABELS)]
        with pytest.raises(ImageError, match="a model that takes another input"):
            open_source(folders)[0]

    def test_runs_that_do_not_agree_about_what_a_photograph_shows_are_refused(self, saved):
        folders = [saved("fmn", labels=LABELS), saved("fgsm", FGSM(epsilon=0.02), labels={**LABELS, "a/two.JPEG": 1})]
        with pytest.raises(
            ImageError, match=r"about what a/two.JPEG shows: class 2 in .*fmn, class 1 in .*fgsm\. Attack with the same"
        ):
            open_source(folders)

    def test_a_recorded_class_counts_and_not_what_was_seen_in_another_run(self, saved):
        folders = [saved("old", labels=LABELS, target=3), saved("fgsm", FGSM(epsilon=0.02), labels=LABELS)]
        for name in LABELS:
            forget_true_class(folders[0] / f"{name}.safetensors")
        assert listed(open_source(folders)) == {name: (label,) for name, label in LABELS.items()}

    def test_two_runs_of_one_attack_are_told_apart_by_their_folders(self, saved):
        folders = [saved("any"), saved("random", target="random"), saved("fgsm", FGSM(epsilon=0.02))]
        assert open_source(folders).attacks == (f"{FMN_TEXT} (any)", f"{FMN_TEXT} (random)", FGSM_TEXT)
        with pytest.raises(ParameterError, match="must be runs that differ in their attack or in the name of their"):
            open_source([folders[2], folders[2]])

    def test_the_digest_changes_with_every_run(self, saved):
        folders = [saved("fmn"), saved("fgsm", FGSM(epsilon=0.02)), saved("other", FGSM(epsilon=0.03))]
        sources = [folders[:1], folders[:2], folders[1::-1], [folders[0], folders[2]], folders]
        assert len({open_source(one).digest() for one in sources}) == 5

    def test_they_are_not_mixed_with_photographs(self, saved, photographs):
        with pytest.raises(
            ParameterError, match="must be all photographs, or all folders of adversarial images, or one"
        ):
            open_source([saved(), photographs])
