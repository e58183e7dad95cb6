"""The fine-tuning example, from pictures to weights that load and predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.finetune_multilabel import average_precision, finetune, split
from tests.helpers.forked import CommandProcess
from whyfooled import load_classifier
from whyfooled.errors import ParameterError
from whyfooled.sources import class_map, open_source

NAMES = ("red", "green", "blue")
NET = """
import torch
from torch import nn
from whyfooled import Classifier

def make():
    torch.manual_seed(5)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(8, 3),
    )
    return Classifier(module, mean=(0.5,) * 3, std=(0.25,) * 3, size=(16, 16))
"""


@pytest.fixture
def folder(tmp_path):
    """Write pictures of coloured squares, each with one to three of the colours, and what they show."""
    generator = np.random.default_rng(0)
    rows = ["file,label"]
    (tmp_path / "pictures").mkdir()
    for number in range(64):
        pixels = np.zeros((16, 16, 3), np.uint8)
        shown = [channel for channel in range(3) if (number % 7 + 1) >> channel & 1]
        for channel in shown:
            row, column = generator.integers(0, 12, 2)
            pixels[row : row + 4, column : column + 4, channel] = 255
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number:02}.png")
        rows.append(f"{number:02}.png,{';'.join(NAMES[channel] for channel in shown)}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def train(folder: Path, output: str = "w.safetensors", **more) -> Path:
    finetune(
        **{
            "images": str(folder / "pictures"),
            "labels": folder / "labels.csv",
            "output": folder / output,
            "model": f"{folder}/net.py:make",
            "weights": None,
            "epochs": 12,
            "batch_size": 8,
            "learning_rate": 0.05,
            "weight_decay": 0.0,
            "held_out": 0.25,
            "workers": 0,
            "device": "cpu",
            "seed": 0,
            **more,
        }
    )
    return folder / output


def test_what_was_trained_is_loaded_and_predicts(folder, capsys):
    path = train(folder)
    said = capsys.readouterr().out
    assert "Epoch 12 of 12: loss 0." in said
    assert "on 16 held-out images." in said
    assert said.endswith(f"whyfooled explain IMAGE --model {folder}/net.py:make --weights {path} --several-labels\n")
    classifier = load_classifier(f"{folder}/net.py:make", weights=path)
    assert classifier.class_names == ("blue", "green", "red")
    source = open_source(folder / "pictures", folder / "labels.csv")
    assert class_map(source, classifier) == (0, 1, 2)
    shows = torch.zeros(len(source), 3, dtype=torch.bool)
    logits = torch.cat([classifier.logits(classifier.prepare(sample.image)) for sample in source])
    for index in range(len(source)):
        shows[index, list(source.labels(index))] = True
    assert ((logits > 0) == shows).float().mean() > 0.95
    assert torch.equal(
        classifier.module[1].running_mean, load_classifier(f"{folder}/net.py:make").module[1].running_mean
    )


def test_it_is_repeatable_and_goes_on_from_its_weights(folder, capsys):
    path = train(folder, epochs=2)
    assert train(folder, "again.safetensors", epochs=2).read_bytes() == path.read_bytes()
    assert train(folder, "other.safetensors", epochs=2, seed=1).read_bytes() != path.read_bytes()
    before = capsys.readouterr().out
    train(folder, "more.safetensors", epochs=1, learning_rate=1e-6, weights=str(path))
    best = float(before.split("mean average precision ")[3].split(". To")[0])
    assert f"mean average precision {best:.4f} on" in capsys.readouterr().out


def test_a_librarys_model_gets_a_head_for_the_classes(folder, capsys):
    path = train(folder, model="timm:mobilenetv3_small_050", weights="random", epochs=1)
    classifier = load_classifier("timm:mobilenetv3_small_050", weights=path)
    assert classifier.class_names == ("blue", "green", "red")
    assert classifier.class_count() == classifier.logits(torch.rand(1, 3, 224, 224)).shape[1] == 3


def test_labels_may_be_numbers(folder):
    text = (folder / "labels.csv").read_text()
    for number, name in enumerate(NAMES):
        text = text.replace(name, str(number))
    (folder / "labels.csv").write_text(text)
    classifier = load_classifier(f"{folder}/net.py:make", weights=train(folder, epochs=1))
    assert classifier.class_names == ("0", "1", "2")


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1, 3.0], [0.8, 0.2, 2.0], [0.7, 0.3, 1.0], [0.6, 0.4, 0.0]])
    truth = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    # Shown in first and third place: (1/1 + 2/3) / 2. In first and last place: (1/1 + 2/4) / 2. Nowhere.
    found = average_precision(scores, truth)
    torch.testing.assert_close(found, torch.tensor([5 / 6, 3 / 4, float("nan")]), equal_nan=True)


def test_the_held_out_images_are_not_trained_on(folder):
    source = open_source(folder / "pictures", folder / "labels.csv")
    seen, unseen = split(source, 0.25, seed=0)
    assert (len(seen), len(unseen)) == (48, 16)
    assert sorted(seen + unseen) == list(range(64))
    assert split(source, 0.25, seed=1) != (seen, unseen)


def test_images_without_labels_are_refused(folder):
    with pytest.raises(
        ParameterError, match=r"`--images` must have labels .* 0 with labels. Give labels with --labels"
    ):
        train(folder, labels=None)


def test_a_mistake_gets_one_sentence(folder):
    given = ["--images", str(folder / "nix"), "-o", "x.safetensors"]
    example = CommandProcess(Path(__file__).parents[2], *given, script="examples/finetune_multilabel.py")
    assert example.end() == (2, "", f"Error: There is no image file or folder {folder / 'nix'}.\n")
