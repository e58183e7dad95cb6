"""What a GPU saves, whether it gives the same each time, and how far from the CPU's its numbers are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from whyfooled import (
    DDN,
    CarliniWagner,
    Classifier,
    Untargeted,
    explain,
    load_classifier,
    recovery_curve,
    run_attack,
    sensitivity,
)
from whyfooled.explanations.shown_maps import DEFAULT_METHODS
from whyfooled.images import example_photograph
from whyfooled.saliency.pairs import pair_maps
from whyfooled.types import Images

Work = Callable[[Classifier, Images], list[Tensor]]
console = Console(width=120)


@dataclass(frozen=True)
class Comparison:
    """What one kind of work took, in seconds on the clock, and what it gave.

    Parameters
    ----------
    cpu, gpu
        Seconds: of one run, and the median of several.
    repeats
        Whether every run on the GPU gave the same to the bit.
    furthest
        The largest difference from the CPU's numbers, over the largest of these, of every tensor that it gives.
    """

    cpu: float
    gpu: float
    repeats: bool
    furthest: float


def run(models: str, count: int, repeats: int, device: str = "cuda") -> None:
    """Do each kind of work on both, and print what it took; without a GPU, say so."""
    if device == "cuda" and not torch.cuda.is_available():
        console.print("There is no GPU that PyTorch can use here: nothing was compared.")
        return
    name = torch.cuda.get_device_name() if device == "cuda" else device
    for model in models.split(","):
        table = Table("work", "CPU, s", "GPU, s", "ratio", "same each time", "furthest from the CPU", title=model)
        for title, work in WORKS.items():
            compared = compare(work, model, count, repeats, device)
            numbers = f"{compared.cpu:.2f}", f"{compared.gpu:.2f}", f"{compared.cpu / compared.gpu:.1f}"
            table.add_row(title, *numbers, "yes" if compared.repeats else "NO", f"{compared.furthest:.1e}")
        console.print(table)
    threads = torch.get_num_threads()
    console.print(f"{name}; {threads} threads of the CPU, {count} images, {repeats} runs on the GPU after a first one")


def compare(work: Work, model: str, count: int, repeats: int, device: str) -> Comparison:
    """Do one kind of work on the CPU and, so many times, on another device."""
    classifier = load_classifier(model)
    images = crop_example(classifier, count)
    # The first time, a library is loaded, kernels are chosen, and memory is asked for.
    work(classifier, images[:1])
    started = time.perf_counter()
    expected = work(classifier, images)
    cpu = time.perf_counter() - started
    classifier, images = classifier.to(device), images.to(device)
    work(classifier, images)
    seconds, given = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        # What is on its way is waited for.
        given.append([tensor.cpu() for tensor in work(classifier, images)])
        seconds.append(time.perf_counter() - started)
    same = all(torch.equal(one, other) for each in given for one, other in zip(given[0], each, strict=True))
    furthest = max(
        float((one - other.cpu()).abs().max() / other.abs().max().clamp_min(1e-12))
        for one, other in zip(given[0], expected, strict=True)
    )
    return Comparison(cpu, median(seconds), same, furthest)


def crop_example(classifier: Classifier, count: int) -> Images:
    """Cut so many squares out of the example photograph, each of the model's input size and at another place."""
    photograph = example_photograph()
    side, cuts = min(photograph.size) // 2, []
    for number in range(count):
        left = number * (photograph.width - side) // max(count, 2)
        top = number * (photograph.height - side) // max(count, 2)
        cuts.append(classifier.prepare(photograph.crop((left, top, left + side, top + side))))
    return torch.cat(cuts)


def _compute_maps(classifier: Classifier, images: Images) -> list[Tensor]:
    two = classifier.logits(images).topk(2).indices
    pairs = pair_maps(list(DEFAULT_METHODS), classifier, images, two[:, 0], two[:, 1], both=True)
    return [maps for _, maps in pairs if isinstance(maps, Tensor)]


def _attack(classifier: Classifier, images: Images) -> list[Tensor]:
    return [run_attack(CarliniWagner(), classifier, images, Untargeted(classifier.predict(images))).l2]


def _measure_regions(classifier: Classifier, images: Images) -> list[Tensor]:
    two = classifier.logits(images).topk(2).indices
    attacked = (images + 0.02 * images.flip(3)).clamp(0, 1)
    return [sensitivity(classifier, images, attacked, two[:, 0], two[:, 1]).true_change]


def _measure_recovery(classifier: Classifier, images: Images) -> list[Tensor]:
    return [recovery_curve(classifier, images, classifier.predict(images), images, fill="noise").probability]


def _explain(classifier: Classifier, images: Images) -> list[Tensor]:
    return [explain(classifier, images[:1], attack=DDN()).logits]


WORKS: dict[str, Work] = {
    "maps of two classes": _compute_maps,
    "Carlini-Wagner, ℓ2": _attack,
    "sensitivity of regions": _measure_regions,
    "recovery": _measure_recovery,
    "explanation of one image": _explain,
}
