"""A folder with small inputs under the names that the guides use, and a small network in place of published ones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.helpers.annotated_images import write_voc
from tests.helpers.onnx_export import export
from tests.helpers.pictures import write
from whyfooled.attacks import FMN, run_attack
from whyfooled.classifier import Classifier, Fit, Untargeted, zoo
from whyfooled.images import read_photograph
from whyfooled.sources.published import imagenet_synsets

SIDE = 32
NAMES = ("cat", "dog", "fox", "owl")
"""What the photographs are called; `cat` is the guides' own."""
MADE = {
    "adversaries": "attack photographs/ --attack fmn(steps=5) -o adversaries",
    "adversaries-bim": "attack photographs/ --attack bim(epsilon=8/255) -o adversaries-bim",
    "adversaries-cw": "attack photographs/ --attack fmn(steps=10) -o adversaries-cw",
    "changed-maps": "attack photographs/ --attack per-image(epsilon=2) -o changed-maps",
    "delta.safetensors": "universal fit --images fit/ --epsilon 2 -o delta.safetensors",
    "runs/recovery": "study recovery --images photographs/ --labels labels.csv -o runs/recovery",
    "street-units": "dissect --layer blocks.5 --concepts masks:street/images,street/labels,street/names.txt "
    "-o street-units",
}
"""What a reader has from an earlier command of a guide, and a quick way to it."""
OWN_MODEL = """
from tests.helpers.guide_workspace import make_small


def make_model(classes=10, seed=1):
    return make_small(classes, seed, ["tabby", *map(str, range(1, classes))])


def plain():
    return make_small(4, 1)


def robust():
    return make_small(4, 2)


def trained_on_shuffled_labels():
    return make_small(1000, 3)
"""
_CLEAN = 99
"""Photographs in ``clean``: as many as a share of false positives of 1 % takes."""


class Small(nn.Module):
    """A network with the last layers' names that the bundled classifier has."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        widths = (3, 8, 8, 8, 8, 8, 8, 12)
        blocks = (nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(widths))
        self.blocks = nn.Sequential(*blocks)
        self.blocks[1].add_module("pool", nn.MaxPool2d(4))
        self.head = nn.Linear(widths[-1], classes)
        for name, parameter in self.named_parameters():  # no constant outweighs what an image adds
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.kaiming_normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return 5 * self.head(self.blocks(x - 0.5).mean((2, 3)))


@cache
def imagenet_names() -> tuple[str, ...]:
    return tuple(zoo.load_classifier().class_names)


def make_small(classes: int, seed: int = 0, names: Sequence[str] | None = None) -> Classifier:
    return Classifier(Small(classes, seed), size=(SIDE, SIDE), class_names=names, fit=Fit((SIDE, SIDE), SIDE))


def make_published(classes: int | None = None) -> Classifier:
    """Make what stands for each network that is large or would be fetched."""
    names = imagenet_names()
    return make_small(classes or len(names), 0, names if classes is None else None)


def without_published_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a small network in the place of each that a guide names and that is large or would be fetched."""
    imagenet_names()  # of the true one
    monkeypatch.setattr(zoo, "_make_bundled", lambda name, load, classes: make_published(classes))
    for library in zoo._LIBRARIES:
        monkeypatch.setitem(zoo._LIBRARIES, library, lambda name, load, classes: make_published(classes))


def draw_photograph(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)


def write_photographs(folder: Path, names: Sequence[str], first_seed: int = 0, quality: int = 95) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names, first_seed):
        draw_photograph(seed).save(folder / f"{name}.jpg", quality=quality)


def write_workspace(folder: Path) -> None:
    """Write everything that a guide's commands read, but what another command makes (`MADE`)."""
    for place in ("photographs", "suspects", "street/images"):
        write_photographs(folder / place, NAMES)
    shutil.copy(folder / "photographs" / "cat.jpg", folder)
    write_photographs(folder / "fit", NAMES, 10)
    write_photographs(folder / "test", NAMES, quality=80)
    write_photographs(folder / "clean", [f"{number:02}" for number in range(_CLEAN)], 30)
    write_label_maps(folder)
    write_models(folder)
    write_data_sets(folder)
    write_labels(folder)
    write_adversarial(folder)


def write_label_maps(folder: Path) -> None:
    """Write a label map for each photograph, and what the labels are called."""
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 1
    for place in ("masks", "street/labels"):
        (folder / place).mkdir()
        for name in NAMES:
            Image.fromarray(labels).save(folder / place / f"{name}.png")
    Image.fromarray(labels).save(folder / "mask.png")
    for place in (folder, folder / "street"):
        (place / "names.txt").write_text("background\nobject\n")


def write_models(folder: Path) -> None:
    for file in ("my_models.py", "nets.py"):
        (folder / file).write_text(OWN_MODEL)
    save_file(make_small(10, 4).module.state_dict(), folder / "my_weights.safetensors")
    save_file(make_small(20, 4).module.state_dict(), folder / "voc.safetensors")
    export(Small(2, 5), folder / "filter.onnx", (1, 3, SIDE, SIDE))


def write_data_sets(folder: Path) -> None:
    """Write images with labels, in the layouts that the guides name."""
    write_voc(folder / "VOC")
    voc = folder / "VOC" / "VOCdevkit" / "VOC2012"
    write(voc / "ImageSets" / "Main" / "val.txt", "2007_000033\n2007_000042\n")
    for number, shown in (("2007_000033", "cat"), ("2007_000042", "dog")):
        write(voc / "Annotations" / f"{number}.xml", f"<annotation><object><name>{shown}</name></object></annotation>")
    for number, photograph in enumerate(sorted((folder / "photographs").iterdir())):
        place = folder / "IMAGENET" / "val" / imagenet_synsets()[predict(photograph)]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(photograph, place / f"ILSVRC2012_val_{number + 1:08}.JPEG")
    pixels = np.random.default_rng(5).integers(0, 255, (12, SIDE, SIDE, 3), dtype=np.uint8)
    labels = make_small(10, 1).predict(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).numpy()
    halves = {"train": slice(6), "test": slice(6, None)}
    arrays = {f"{part}_images": pixels[half] for part, half in halves.items()}
    arrays |= {f"{part}_labels": labels[half] for part, half in halves.items()}
    (folder / "npz").mkdir()
    np.savez(folder / "npz" / "cifar10.npz", **arrays)


def predict(photograph: Path) -> int:
    network = make_published()
    return int(network.predict(network.prepare(read_photograph(photograph))))


def write_labels(folder: Path) -> None:
    """Say that the photographs show what the network sees in them, which makes them worth attacking."""
    rows = [{"file": path.name, "label": predict(path)} for path in sorted((folder / "photographs").iterdir())]
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)


def write_adversarial(folder: Path) -> None:
    """Write a tensor that fools the network, as another program would."""
    network = make_published()
    clean = network.prepare(read_photograph(folder / "cat.jpg"))
    result = run_attack(FMN(steps=5), network, clean, Untargeted(network.predict(clean)))
    assert result.success.all()
    save_file({"adversarial": result.adversarial[0].contiguous()}, folder / "fooled.safetensors")
