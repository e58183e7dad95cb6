"""The runner: shards, resuming, failures, what is written; on a study whose numbers are known."""

import errno
import json
import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.models import small
from tests.helpers.small_studies import Brightness, write_images
from whyfooled import Classifier, Fit
from whyfooled.classifier.memory import batch_size_for, measure_forward_memory
from whyfooled.errors import ImageError, ModelError, OutputError, ParameterError, warn
from whyfooled.images import write_whole
from whyfooled.sources import open_source
from whyfooled.studies import Table, redraw, run_study
from whyfooled.studies.run import runner as _runner


def study(images, folder, **options):
    return run_study(options.pop("study", Brightness()), images, folder, model=small(), shard_size=3, **options)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images.npz")


def pixels(images):
    return torch.from_numpy(np.load(images)["images"]).permute(0, 3, 1, 2) / 255


def test_every_image_is_measured_and_everything_is_written(images, tmp_path):
    result = study(images, tmp_path / "out")
    table = result.table.read()
    assert table["index"].tolist() == list(range(10))
    assert table["image"].tolist() == list(open_source(images).names)
    torch.testing.assert_close(
        torch.tensor(table["brightness"].to_numpy()).float(), pixels(images).mean((1, 2, 3)), rtol=1e-6, atol=1e-6
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "figure.pdf",
        "figure.png",
        "shards",
        "study.json",
        "summary.md",
        "summary.tex",
        "table.parquet",
    ]
    about = json.loads((tmp_path / "out" / "study.json").read_text())
    assert about["study"] == "brightness"
    assert (about["forwards"], about["backwards"]) == (10, 0)
    assert (about["images_measured"], about["images_given"], about["failures"]) == (10, 10, 0)
    assert about["results"][0]["rows"][0]["mean"] == pytest.approx(float(pixels(images).mean()))
    assert "It is bright." in result.summary
    assert "10 of 10 images measured; source:" in result.summary
    assert "true classes: what the model sees in the clean image" in result.summary
    assert Image.open(tmp_path / "out" / "figure.png").size[0] > 100


@pytest.mark.parametrize("lost", [[0], [1, 3], [0, 1, 2, 3]])
def test_a_run_that_lost_shards_ends_in_the_same_bytes_and_measures_only_them(images, tmp_path, lost, monkeypatch):
    whole = study(images, tmp_path / "whole").table.path.read_bytes()
    study(images, tmp_path / "part")
    for shard in lost:
        (tmp_path / "part" / "shards" / f"{shard:06d}.parquet").unlink()
    measured = []
    original = Brightness.measure
    monkeypatch.setattr(
        Brightness, "measure", lambda self, c, batch: (measured.extend(batch.names), original(self, c, batch))[1]
    )
    again = study(images, tmp_path / "part")
    assert again.table.path.read_bytes() == whole
    assert len(measured) == sum(len(range(10)[3 * shard : 3 * shard + 3]) for shard in lost)


def test_a_damaged_shard_is_measured_again(images, tmp_path):
    whole = study(images, tmp_path / "out").table.path.read_bytes()
    shard = tmp_path / "out" / "shards" / "000001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    assert study(images, tmp_path / "out").table.path.read_bytes() == whole


def damage(path, share=0.5):
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_a_shard_with_a_flipped_bit_is_measured_again(images, tmp_path, share):
    whole = study(images, tmp_path / "out").table.path.read_bytes()
    damage(tmp_path / "out" / "shards" / "000001.parquet", share)
    assert study(images, tmp_path / "out").table.path.read_bytes() == whole


@pytest.mark.parametrize("lost", [True, False])
def test_maps_that_are_damaged_or_lost_are_made_again(images, tmp_path, lost):
    study(images, tmp_path / "out", keep_maps=True)
    path = tmp_path / "out" / "maps" / "000002.safetensors"
    whole = path.read_bytes()
    path.unlink() if lost else damage(path)
    study(images, tmp_path / "out", keep_maps=True)
    assert path.read_bytes() == whole


def test_a_damaged_table_is_named_and_made_again_by_the_same_run(images, tmp_path):
    table = study(images, tmp_path / "out").table
    whole = table.path.read_bytes()
    damage(table.path)
    with pytest.raises(ImageError, match=r"table\.parquet is no table of `whyfooled study`, or is damaged\. Run the"):
        Table(table.path).read()
    assert study(images, tmp_path / "out").table.path.read_bytes() == whole


def test_a_damaged_study_file_is_named_and_written_anew(images, tmp_path):
    study(images, tmp_path / "out")
    path = tmp_path / "out" / "study.json"
    whole = path.read_bytes()
    damage(path)
    with pytest.raises(ImageError, match=r"has no readable study\.json"):
        redraw(tmp_path / "out")
    with pytest.raises(OutputError, match=r"study\.json is not of a run, or is damaged\. Give another folder"):
        study(images, tmp_path / "out", seed=3)
    study(images, tmp_path / "out")
    assert path.read_bytes() == whole


def test_a_folder_in_which_a_study_works_is_refused(images, tmp_path, monkeypatch):
    refused, measure = [], Brightness.measure

    def nosy(self, classifier, batch):
        monkeypatch.setattr(Brightness, "measure", measure)
        with pytest.raises(OutputError) as error:
            study(images, tmp_path / "out")
        refused.append(str(error.value))
        return measure(self, classifier, batch)

    monkeypatch.setattr(Brightness, "measure", nosy)
    study(images, tmp_path / "out")
    assert f"out is in use: a run is working there (process {os.getpid()} on this machine, since " in refused[0]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("name", ["study.json.partial", "table.parquet.partial", ".whyfooled-12345678"])
def test_what_a_killed_study_left_does_not_block_the_next(images, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("half")
    if name[0] == ".":
        (tmp_path / "out" / f"{name}.lock").write_text(f"{2**22 + 5}\n{socket.gethostname()}\n")
    study(images, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name or path.name[0] == "."]


def test_an_output_path_that_is_too_long_is_one_sentence(images, tmp_path):
    for name in ("a" * 300, "a/" * 3000):
        with pytest.raises(OutputError, match=r"cannot be used: File name too long\.$"):
            study(images, tmp_path / name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"study": Brightness(limit=0.9)}, r"its study was brightness, now it is brightness\(limit=0.9\)"),
        ({"seed": 3}, "its seed was 0, now it is 3"),
        ({"count": 5}, "its count was None, now it is 5"),
        ({"batch_size": 2}, "its batch_size was 8, now it is 2"),
        ({"keep_maps": True}, "its keep_maps was False"),
    ],
)
def test_another_run_is_refused_and_nothing_is_lost(images, tmp_path, options, said):
    before = study(images, tmp_path / "out").table.path.read_bytes()
    with pytest.raises(OutputError, match=said):
        study(images, tmp_path / "out", **options)
    assert (tmp_path / "out" / "table.parquet").read_bytes() == before


def test_other_images_and_other_weights_are_refused(images, tmp_path):
    study(images, tmp_path / "out")
    other = write_images(tmp_path / "other.npz", count=9)
    with pytest.raises(OutputError, match="its images, or their labels, are not the same"):
        study(other, tmp_path / "out")
    with pytest.raises(OutputError, match="its model had other weights"):
        run_study(Brightness(), images, tmp_path / "out", model=small(seed=4), shard_size=3)
    write_images(tmp_path / "images.npz", seed=3)
    with pytest.raises(OutputError, match="its images, or their labels, are not the same"):
        study(images, tmp_path / "out")


def test_labels_that_stand_for_other_classes_and_another_fit_are_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\na.png,ash\n")
    Image.new("RGB", (40, 20), (9, 90, 200)).save(tmp_path / "a.png")
    names = ["ash", "birch", "cedar", "elm", "fir"]

    def model(names, fit=None):
        return Classifier(small().module, size=(16, 16), class_names=names, fit=fit, name="trees")

    def start(classifier):
        run_study(Brightness(), tmp_path / "a.png", tmp_path / "out", labels=tmp_path / "labels.csv", model=classifier)

    start(model(names))
    with pytest.raises(OutputError, match="its labels stood for other classes of the model"):
        start(model(names[::-1]))
    with pytest.raises(OutputError, match="its fit was"):
        start(model(names, Fit((16, 16), squash=True)))


def test_the_same_images_by_another_path_are_the_same(images, tmp_path, monkeypatch):
    before = study(images, tmp_path / "out").table.path.read_bytes()
    monkeypatch.chdir(tmp_path)
    assert study("images.npz", tmp_path / "out").table.path.read_bytes() == before


def test_a_shard_whose_rows_are_damaged_is_measured_again(images, tmp_path):
    whole = study(images, tmp_path / "out").table.path.read_bytes()
    shard = tmp_path / "out" / "shards" / "000001.parquet"
    content = bytearray(shard.read_bytes())
    content[4:60] = bytes(56)
    shard.write_bytes(content)
    assert study(images, tmp_path / "out").table.path.read_bytes() == whole


def test_a_folder_of_nothing_but_errors_can_be_used_again(images, tmp_path):
    with pytest.raises(ImageError, match="too bright"):
        study(images, tmp_path / "out", study=Brightness(limit=0))
    assert len(study(images, tmp_path / "out").table.read()) == 10


def test_a_name_that_no_utf_8_can_hold_is_written_with_backslashes(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    Image.new("RGB", (20, 20)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / name)
    result = study(tmp_path, tmp_path / "out", keep_maps=True)
    assert result.table.read()["image"].tolist() == ["caf\\udce9.png"]
    assert list(load_file(tmp_path / "out" / "maps" / "000000.safetensors")) == ["caf\\udce9.png/bright"]


def test_a_model_of_another_size_is_one_sentence(images, tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
    with pytest.raises(ModelError, match="If it needs another size"):
        run_study(Brightness(), images, tmp_path / "out", model=Classifier(module, size=(16, 16)))


def test_a_failing_image_is_recorded_and_the_others_of_its_batch_are_measured(images, tmp_path):
    means = pixels(images).mean((1, 2, 3))
    limit = float(means.sort().values[-2:].mean())
    result = study(images, tmp_path / "out", study=Brightness(limit=limit))
    brightest = int(means.argmax())
    errors = result.table.errors()
    assert errors["index"].tolist() == [brightest]
    assert errors["error"].tolist() == ["It is too bright."]
    assert sorted(result.table.read()["index"]) == [number for number in range(10) if number != brightest]
    assert result.about["failures"] == 1
    assert "It is too bright." in result.summary


def test_an_unreadable_file_among_good_ones_is_recorded(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number in range(4):
        Image.fromarray(np.full((20, 20, 3), 40 * number, dtype=np.uint8)).save(
            tmp_path / "photographs" / f"{number}.png"
        )
    (tmp_path / "photographs" / "2.png").write_bytes(b"\x89PNG damaged")
    result = study(tmp_path / "photographs", tmp_path / "out")
    assert len(result.table.read()) == 3
    (error,) = result.table.errors()["error"]
    assert "2.png is not an image" in error


def test_when_no_image_can_be_measured_the_first_reason_is_given_and_shards_stay(images, tmp_path):
    with pytest.raises(ImageError, match=r"None of the 10 images could be measured\. .*: It is too bright\."):
        study(images, tmp_path / "out", study=Brightness(limit=0))
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 4


def test_an_error_of_the_model_is_recorded_with_its_kind(images, tmp_path, monkeypatch):
    original = Brightness.measure
    middle = pixels(images).mean((1, 2, 3)).sort().values[4:6].mean()

    def measure(self, classifier, batch):
        if (batch.images.mean((1, 2, 3)) > middle).any():
            raise ZeroDivisionError("no")
        return original(self, classifier, batch)

    monkeypatch.setattr(Brightness, "measure", measure)
    errors = study(images, tmp_path / "out").table.errors()
    assert set(errors["error"]) == {"ZeroDivisionError: no"}
    assert errors["index"].tolist() == (pixels(images).mean((1, 2, 3)) > middle).nonzero()[:, 0].tolist()


def test_a_full_disk_is_one_sentence_and_finished_shards_are_kept(images, tmp_path, monkeypatch):
    replace = Path.replace

    def full(self, target):
        if "000002" in target.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"000002\.parquet cannot be written: No space left on device"):
        study(images, tmp_path / "out")
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "out" / "shards").glob("*.parquet")) == [
        "000000.parquet",
        "000001.parquet",
    ]
    assert len(study(images, tmp_path / "out").table.read()) == 10


def test_a_result_does_not_depend_on_batches_and_shards(images, tmp_path):
    one = run_study(Brightness(), images, tmp_path / "one", model=small(), shard_size=100, batch_size=10).table.read()
    other = run_study(Brightness(), images, tmp_path / "other", model=small(), shard_size=1, batch_size=1).table.read()
    np.testing.assert_allclose(one["logit"], other["logit"], rtol=1e-4, atol=1e-6)
    assert one["image"].tolist() == other["image"].tolist()


@pytest.mark.parametrize(("batch_size", "shards"), [(1, 5), (2, 1), (None, 1)])
def test_shards_are_small_where_each_image_is_measured_by_itself(images, tmp_path, batch_size, shards):
    def list_shards(**options):
        run_study(Brightness(), images, tmp_path / "out", model=small(), **options)
        return sorted(path.name for path in (tmp_path / "out/shards").iterdir())

    begun = list_shards(batch_size=batch_size)
    assert len(begun) == shards
    # A run that was begun goes on in its own shards.
    assert list_shards() == begun


def test_a_shard_has_at_least_one_image(images, tmp_path):
    with pytest.raises(ParameterError, match="`shard_size` must be at least 1; got 0"):
        run_study(Brightness(), images, tmp_path / "out", model=small(), shard_size=0)


def test_a_count_draws_images_by_the_seed(images, tmp_path):
    few = [study(images, tmp_path / str(seed), count=4, seed=seed).table.read()["index"].tolist() for seed in (0, 1)]
    assert [len(set(one)) for one in few] == [4, 4]
    assert few[0] == sorted(few[0])
    assert few[0] != few[1]
    assert study(images, tmp_path / "again", count=4).table.read()["index"].tolist() == few[0]


def test_a_folder_with_other_files_is_refused(images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"out holds other files, such as thesis\.tex, and no study"):
        study(images, tmp_path / "out")


def test_what_a_drawn_sample_is_drawn_from_is_said(images, tmp_path):
    summary = study(images, tmp_path / "out", count=4).summary
    assert "4 of 4 images measured, drawn at random from 10; source:" in summary
    assert "Intervals of means over fewer than 20 images are too narrow." in summary


def test_maps_are_kept_beside_the_table_if_asked_for(images, tmp_path):
    study(images, tmp_path / "out", keep_maps=True)
    files = sorted((tmp_path / "out" / "maps").iterdir())
    assert len(files) == 4
    kept = {name: one for file in files for name, one in load_file(file).items()}
    assert set(kept) == {f"{name}/bright" for name in open_source(images).names}
    torch.testing.assert_close(kept[f"{open_source(images).name(3)}/bright"], pixels(images)[3])


def test_progress_counts_up_to_all_images_and_shows_the_mean_so_far(images, tmp_path):
    seen = []
    study(images, tmp_path / "out", report=seen.append)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, 10, 10)
    assert seen[-1].value == pytest.approx(float(pixels(images).mean()), abs=1e-6)
    assert seen[-1].headline == "brightness"
    assert seen[-1].rate > 0
    seen.clear()
    study(images, tmp_path / "out", report=seen.append)
    assert (seen[0].done, seen[0].rate) == (10, 0)


def test_labels_reach_the_study_as_the_classifiers_classes(tmp_path, monkeypatch):
    images = write_images(tmp_path / "images.npz", count=3, labels=[4, 0, 2])
    seen = []
    original = Brightness.measure
    monkeypatch.setattr(
        Brightness, "measure", lambda self, c, batch: (seen.extend(batch.labels), original(self, c, batch))[1]
    )
    study(images, tmp_path / "out")
    assert seen == [(4,), (0,), (2,)]


def test_a_study_is_drawn_again_from_its_table_alone(images, tmp_path):
    study(images, tmp_path / "out")
    for name in ("figure.png", "summary.md"):
        (tmp_path / "out" / name).unlink()
    with pytest.raises(ImageError, match="holds no study"):
        redraw(tmp_path)
    with pytest.raises(ImageError, match="holds the study brightness, which is not installed here"):
        redraw(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "spark"}, "`engine` must be one of local, ray; got spark"),
        ({"count": 0}, "`count` must be at least 1; got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1; got 0"),
        ({"workers": 0}, "`workers` must be at least 1; got 0"),
        ({"seed": 2**70}, "`seed` must be a whole number from 0"),
        ({"batch_size": -1}, "`batch_size` must be at least 1; got -1"),
        ({"device": "tpu"}, "`device`"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(images, tmp_path, options, said):
    with pytest.raises(ParameterError, match=said):
        run_study(Brightness(), images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_partial_file_of_a_killed_process_is_no_shard(images, tmp_path):
    folder = tmp_path / "out"
    write_whole(folder / "shards" / "000000.parquet.partial", b"half")
    assert len(study(images, folder).table.read()) == 10


def test_memory_decides_how_many_images_are_measured_together(monkeypatch):
    classifier = small(side=32)
    kept = measure_forward_memory(classifier)
    # Two ReLU outputs, two inputs of convolutions (one of them the first ReLU's output), the pooled features.
    values = 3 * 32 * 32 + 12 * 32 * 32 + 16 * 16 * 16
    assert 4 * values <= kept <= 4 * 2 * values
    monkeypatch.setattr("whyfooled.classifier.memory._find_free_memory", lambda device: 16 * 3 * kept)
    assert batch_size_for(classifier) == 3
    monkeypatch.setattr("whyfooled.classifier.memory._find_free_memory", lambda device: 1)
    assert batch_size_for(classifier) == 1
    monkeypatch.undo()
    assert batch_size_for(classifier) == 8


def test_a_resumed_run_keeps_the_batch_size_it_began_with(images, tmp_path, monkeypatch):
    whole = study(images, tmp_path / "out").table.path.read_bytes()
    (tmp_path / "out" / "shards" / "000001.parquet").unlink()
    monkeypatch.setattr(_runner, "batch_size_for", lambda classifier: 1)
    assert study(images, tmp_path / "out").table.path.read_bytes() == whole


def test_warnings_of_the_shards_are_noted_once(images, tmp_path, monkeypatch):
    original = Brightness.measure

    def measure(self, classifier, batch):
        warn("Something is odd.")
        return original(self, classifier, batch)

    monkeypatch.setattr(Brightness, "measure", measure)
    result = study(images, tmp_path / "out")
    assert result.about["notes"] == ["Something is odd."]
    assert "Something is odd." in result.summary


def test_a_table_that_is_opened_again_reads_the_same(images, tmp_path):
    result = study(images, tmp_path / "out")
    assert Table(tmp_path / "out" / "table.parquet").read().equals(result.table.read())
    assert "10 images" in repr(result)


def test_a_classifier_is_given_under_either_name(images, tmp_path):
    named = run_study(Brightness(), images, tmp_path / "a", model=small(), shard_size=3).table.read()
    other = run_study(Brightness(), images, tmp_path / "b", classifier=small(), shard_size=3).table.read()
    pd.testing.assert_frame_equal(other, named)
    with pytest.raises(ParameterError, match="`classifier` must be left out where `model` is given"):
        run_study(Brightness(), images, tmp_path / "c", model="lite0", classifier=small())


def test_a_run_that_was_begun_with_several_threads_is_refused_in_a_sentence(images, tmp_path, monkeypatch):
    monkeypatch.setattr(_runner, "THREADS", 2)
    study(images, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(OutputError, match=r"another run: it was begun with several threads for each operation, which"):
        study(images, tmp_path / "out")
