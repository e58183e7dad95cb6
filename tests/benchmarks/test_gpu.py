"""The comparison of a GPU with the CPU, with the CPU in its place."""

import pytest
import torch

from benchmarks import gpu
from tests.helpers.nets import HERE
from whyfooled import load_classifier


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_it_says_so_and_ends(capsys):
    gpu.run("lite0", 2, 1)
    assert capsys.readouterr().out == "There is no GPU that PyTorch can use here: nothing was compared.\n"


def test_every_work_gives_on_the_same_device_the_same_numbers(capsys):
    gpu.run(f"{HERE}:other", 2, 2, "cpu")
    rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert len(rows) == len(gpu.WORKS)
    for row, title in zip(rows, gpu.WORKS, strict=True):
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert (cells[0], cells[4], cells[5]) == (title, "yes", "0.0e+00")


def test_what_changes_from_run_to_run_and_how_far_it_is_are_seen():
    # Of a first run, then of the one that counts, on the CPU; of a first run and two more in the GPU's place.
    given = iter(map(torch.tensor, ([0.0, 0.0], [2.0, 4.0], [0.0, 0.0], [2.0, 5.0], [2.0, 5.5])))
    compared = gpu.compare(lambda classifier, images: [next(given)], f"{HERE}:other", 1, 2, "cpu")
    assert not compared.repeats
    assert compared.furthest == pytest.approx(0.25)


def test_the_squares_are_of_the_models_size_and_differ():
    classifier = load_classifier(f"{HERE}:other")
    images = gpu.crop_example(classifier, 3)
    assert images.shape == (3, classifier.channels, *classifier.size)
    assert len({image.numpy().tobytes() for image in images}) == 3
