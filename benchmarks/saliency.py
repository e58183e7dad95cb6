"""Time of enhanced guided backpropagation against Captum's, which needs a call for each of the two classes."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from torch import Tensor, nn
from torchvision import models

from whyfooled import EnhancedGuidedBackprop, count_passes, enhance, load_classifier

MODELS = {"vgg16": 0.75, "resnet50": 0.80}
"""The models, and the share of Captum's time that must not be exceeded."""


def run(repeats: int, batch: int) -> None:
    warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
    versions = f"torch {version('torch')}, captum {version('captum')}"
    print(f"{versions}, {torch.get_num_threads()} threads, float32, batch {batch}")
    for name, limit in MODELS.items():
        _compare(name, limit, repeats, batch)


def _compare(name: str, limit: float, repeats: int, batch: int) -> None:
    classifier = load_classifier(f"torchvision:{name}", weights="random")
    torch.manual_seed(0)
    plain = models.get_model(name, weights=None).eval()
    images = torch.rand(batch, 3, 224, 224)
    classes, contrast = torch.arange(batch), torch.arange(batch) + 1
    method = EnhancedGuidedBackprop()
    normalised = (images - classifier.mean) / classifier.std
    entries: dict[str, Callable[[], Tensor]] = {
        "Captum, torchvision's model as it is": lambda: _captum(plain, normalised, classes, contrast),
        "Captum, our channels-last classifier": lambda: _captum(classifier, images, classes, contrast),
        "whyfooled": lambda: method(classifier, images, classes, contrast=contrast),
    }
    with count_passes(classifier) as passes:
        ours = entries["whyfooled"]()
    theirs = entries["Captum, our channels-last classifier"]()
    difference = float((ours - theirs).norm() / theirs.norm())
    times: dict[str, list[float]] = {entry: [] for entry in entries}
    for _ in range(repeats):
        for entry, call in entries.items():
            started = time.perf_counter()
            call()
            times[entry].append(time.perf_counter() - started)
    medians = {entry: statistics.median(own) for entry, own in times.items()}
    reference = next(iter(medians.values()))
    print(f"\n{name}: {passes.forwards / batch:g} forward, {passes.backwards / batch:g} backwards an image; ")
    print(f"relative difference to Captum's maps on the same classifier {difference:.1e}")
    for entry, median in medians.items():
        print(f"  {entry:<38} {median:7.3f} s  {median / reference:5.2f}x")
    print(
        f"  limit for the last line: {limit:.2f}x, {'kept' if medians['whyfooled'] <= limit * reference else 'MISSED'}"
    )


def _captum(model: nn.Module, images: Tensor, classes: Tensor, contrast: Tensor) -> Tensor:
    method = CaptumGuidedBackprop(model)
    first = method.attribute(images.clone().requires_grad_(), target=classes)
    second = method.attribute(images.clone().requires_grad_(), target=contrast)
    return enhance(first.detach(), second.detach())
