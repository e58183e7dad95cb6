"""Robust accuracy under our PGD, Foolbox's and torchattacks', at equal radius, step size and number of steps."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks._eval_images import read_eval_images
from whyfooled import PGD, AttackResult, Untargeted, adapt, load_classifier, run_attack

RADII = (1, 2, 8)
BATCH = 250


def run(data: str, model: str, weights: str, count: int, steps: int) -> None:
    classifier = load_classifier(model, weights=weights)
    images, labels = read_eval_images(data, count)
    parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    clean = torch.cat([classifier.predict(images[part]) for part in parts]) == labels
    table = Table("attack", "radius", "accuracy left", "forwards", "backwards")
    for radius in RADII:
        for name, attack in _attacks(classifier, radius / 255, steps).items():
            torch.manual_seed(0)
            result = AttackResult.join(
                [run_attack(attack, classifier, images[part], Untargeted(labels[part])) for part in parts]
            )
            left = float((~result.success).double().mean())
            passes = [f"{float(counts[clean].double().mean()):.1f}" for counts in (result.forwards, result.backwards)]
            table.add_row(name, f"{radius}/255", f"{left:.2%}", *passes)
    console = Console()
    console.print(f"{len(images)} images, clean accuracy {float(clean.double().mean()):.2%}, {steps} steps.")
    console.print(table)


def _attacks(classifier: Any, epsilon: float, steps: int) -> dict[str, Any]:
    """Make the three, with the step that ours takes by default."""
    step = 2.5 * epsilon / steps
    foolbox = import_module("foolbox").attacks
    found: dict[str, Callable[..., Tensor] | Any] = {
        "whyfooled": PGD(epsilon=epsilon, steps=steps),
        "foolbox": adapt(foolbox.LinfPGD(abs_stepsize=step, steps=steps), epsilon=epsilon),
    }
    if find_spec("torchattacks"):
        found["torchattacks"] = import_module("torchattacks").PGD(classifier, eps=epsilon, alpha=step, steps=steps)
    return found
