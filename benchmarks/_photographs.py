"""The photographs that benchmarks run on."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from whyfooled import Classifier
from whyfooled.errors import bad_parameter
from whyfooled.images import read_photograph


def correct_photographs(classifier: Classifier, folder: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Take correctly classified photographs, in an order that depends on the seed alone; return images and labels."""
    files = sorted(path for path in Path(folder).glob("*") if re.match(r"\d+_", path.name))
    if not files:
        raise bad_parameter(
            "--images", "must be a folder of photographs named by class index, such as 0281_tabby.jpg", folder
        )
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    images: list[Tensor] = []
    labels: list[int] = []
    for path in track([files[i] for i in order], "photographs", console=Console(stderr=True)):
        image = classifier.prepare(read_photograph(path))
        label = int(path.name.partition("_")[0])
        if int(classifier.predict(image)) == label:
            images.append(image)
            labels.append(label)
        if len(labels) == count:
            break
    return torch.cat(images), torch.tensor(labels)
