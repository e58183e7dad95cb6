"""The example that trains a compact transformer: its mixtures, its loss, and runs that were stopped."""

import numpy as np
import pytest
import torch

from examples import train_small_transformer
from examples.train_small_transformer import SIDE, imitation_loss, mix, small_transformer, train
from whyfooled import load_classifier
from whyfooled.errors import ParameterError

TEACHER = """
import torch
from torch import nn
from whyfooled import Classifier

def make():
    torch.manual_seed(5)
    return Classifier(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10)), size=(32, 32))
"""


@pytest.fixture
def folder(tmp_path):
    """Write images with labels, and a teacher."""
    images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    np.savez(tmp_path / "small.npz", fit_images=images, fit_labels=np.arange(8) % 3)
    (tmp_path / "teacher.py").write_text(TEACHER)
    return tmp_path


def run(folder, output="vit.safetensors", **more):
    source = f"{folder}/small.npz:fit"
    options = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "temperature": 2.0, "every": 2, "seed": 0}
    given = {"images": source, "held_out": source, "teacher": f"{folder}/teacher.py:make", "teacher_weights": None}
    train(**{**given, **options, "output": folder / output, **more})
    return folder / output


def test_what_was_trained_is_loaded(folder, capsys):
    path = run(folder)
    assert "Batch 4 of 4: right on 0." in capsys.readouterr().out
    classifier = load_classifier(f"{train_small_transformer.__file__}:small_transformer", weights=path)
    assert classifier.class_count() == 10
    assert sum(parameter.numel() for parameter in classifier.module.parameters()) < 500_000


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(folder, monkeypatch, capsys):
    whole = run(folder).read_bytes()
    take, calls = train_small_transformer.imitate, []

    def stop(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        take(*given)

    monkeypatch.setattr(train_small_transformer, "imitate", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder, "stopped.safetensors")
    assert run(folder, "stopped.safetensors").read_bytes() == whole
    assert "Going on after batch 2, from" in capsys.readouterr().out
    assert len(calls) == 6


def test_mixtures_are_of_two_images_each():
    flat = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1, 1).expand(3, 3, 16, 16)
    mixtures = mix(flat, 200, torch.Generator().manual_seed(0))
    assert mixtures.shape == (200, 3, 16, 16)
    assert mixtures.min() >= 0
    assert mixtures.max() <= 1
    values = [len(mixture.unique()) for mixture in mixtures]
    assert set(values) == {1, 2}
    two = torch.stack([mixture for mixture, count in zip(mixtures, values, strict=True) if count == 2])
    # A pasted square is as it was; blends are anything between.
    assert set(two.unique().tolist()) == {0.0, 0.25, 1.0}
    assert not set(mixtures.unique().tolist()) <= {0.0, 0.25, 1.0}


def test_an_image_is_shifted_and_mirrored_and_no_more():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8, 5] = 1
    seen = train_small_transformer._vary(image, 300, torch.Generator().manual_seed(0))
    places = {tuple(map(int, one[0].nonzero()[0])) for one in seen}
    assert places == {(row, column) for row in range(6, 11) for column in (*range(3, 8), *range(8, 13))}
    assert (seen.sum((1, 2, 3)) == 1).all()


def test_the_loss_by_hand():
    teacher = torch.tensor([[2 * np.log(3.0), 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    # At temperature 2, the teacher says (3/4, 1/4) and the student (1/2, 1/2).
    expected = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert float(imitation_loss(student, teacher, 2.0)) == pytest.approx(expected)
    assert float(imitation_loss(teacher, teacher, 2.0)) == 0


def test_the_rate_rises_and_falls():
    rates = [train_small_transformer.rate(step / 100) for step in range(101)]
    assert rates.index(max(rates)) == 5
    assert rates[0] == pytest.approx(0.01)
    assert rates[-1] == 0


def test_another_file_than_safetensors_is_refused(folder):
    with pytest.raises(ParameterError, match=r"`output` must be a \.safetensors file"):
        run(folder, "vit.pt")


def test_its_images_are_of_32_pixels():
    assert small_transformer().size == (SIDE, SIDE)
