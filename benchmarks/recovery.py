"""Recovery of every saliency method on adversaries of the bundled classifier (Gu & Tresp 2019, fig. 4)."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from torch import Tensor

from benchmarks._photographs import correct_photographs
from whyfooled import (
    Classifier,
    Deconvnet,
    Enhanced,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    Untargeted,
    enhance,
    load_classifier,
    recovery_curve,
    run_attack,
)
from whyfooled.explaining import title
from whyfooled.fills import FILLS
from whyfooled.measures import random_maps
from whyfooled.registry import parse
from whyfooled.saliency.enhanced import NORMS

BASES = (GuidedBackprop(), Gradient(), InputXGradient(), Deconvnet(), GradCAM())
RANDOM_ORDERS = 5
BATCH = 6
RESAMPLES = 10_000


def run(folder: str, count: int, attack: str, seed: int) -> None:
    classifier = load_classifier()
    images, labels = correct_photographs(classifier, folder, count, seed)
    clean, adversarial, true, wrong, l2 = _attacked(classifier, images, labels, attack)
    print(f"{len(true)} adversaries of {len(labels)} images by {attack}; mean l2 {l2:.4f}\n")
    results: dict[str, dict[str, list[Tensor]]] = {}
    for start in track(range(0, len(true), BATCH), "recovery", console=Console(stderr=True)):
        part = slice(start, start + BATCH)
        for name, maps in _orders(classifier, clean[part], adversarial[part], true[part], wrong[part], seed).items():
            for fill in FILLS:
                curves = [
                    recovery_curve(classifier, adversarial[part], true[part], one, fill=fill, seed=seed) for one in maps
                ]
                mean = torch.stack([curve.mean for curve in curves]).mean(0)
                results.setdefault(name, {}).setdefault(fill, []).append(mean)
    _print({name: {fill: torch.cat(parts) for fill, parts in fills.items()} for name, fills in results.items()}, seed)


def _attacked(
    classifier: Classifier, images: Tensor, labels: Tensor, attack: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    method = parse("attacks", attack)
    results = [
        run_attack(method, classifier, images[start : start + BATCH], Untargeted(labels[start : start + BATCH]))
        for start in track(range(0, len(labels), BATCH), "attack", console=Console(stderr=True))
    ]
    success = torch.cat([result.success for result in results])
    adversarial = torch.cat([result.adversarial for result in results])[success]
    wrong = torch.cat([result.predictions for result in results])[success]
    l2 = torch.cat([result.l2 for result in results])[success]
    return images[success], adversarial, labels[success], wrong, float(l2.mean())


def _orders(
    classifier: Classifier, clean: Tensor, adversarial: Tensor, true: Tensor, wrong: Tensor, seed: int
) -> dict[str, list[Tensor]]:
    """Compute the wrong class's map of every method; enhanced ones hold it against the true class."""
    classes = torch.stack([wrong, true], dim=1)
    found: dict[str, list[Tensor]] = {}
    for base in BASES:
        maps = base(classifier, adversarial, classes)
        for norm in NORMS if isinstance(base, GuidedBackprop) else NORMS[:1]:
            found[title(Enhanced(base, norm))] = [enhance(maps[:, 0], maps[:, 1], norm)]
        found[title(base)] = [maps[:, 0]]
    found["Size of the perturbation"] = [(adversarial - clean).abs()]
    found["Random order"] = [random_maps(adversarial, seed + number) for number in range(RANDOM_ORDERS)]
    return found


def _print(results: dict[str, dict[str, Tensor]], seed: int) -> None:
    """Print means with bootstrap intervals over the images, and the paired difference to the best plain method."""
    plain = [name for name in results if not name.startswith(("Enhanced", "Size"))]
    table = Table(Column("order of the pixels", no_wrap=True), *FILLS, "zero: difference to the best of the others")
    best = max(plain, key=lambda name: float(results[name]["zero"].mean()))
    for name in sorted(results, key=lambda name: -float(results[name]["zero"].mean())):
        cells = [_interval(results[name][fill], seed) for fill in FILLS]
        against = "" if name == best else _interval(results[name]["zero"] - results[best]["zero"], seed, sign="+")
        table.add_row(name, *cells, against)
    console = Console(width=190)
    console.print(table)
    console.print(
        f"Mean of the recovery curve, bootstrap 95 % interval over images; best plain method or random order: {best}."
    )


def _interval(values: Tensor, seed: int, sign: str = "") -> str:
    generator = torch.Generator().manual_seed(seed)
    resampled = values[torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)].mean(1)
    low, high = resampled.quantile(torch.tensor([0.025, 0.975])).tolist()
    return f"{float(values.mean()):{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
