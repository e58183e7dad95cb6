"""Robust accuracy under our PGD, APGD and AutoAttack, and under Foolbox's and torchattacks', at equal budgets."""

from __future__ import annotations

import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks._eval_images import read_eval_images
from whyfooled import APGD, BIM, PGD, AttackResult, AutoAttack, Untargeted, adapt, load_classifier, run_attack
from whyfooled.registry import number

BATCH = 50
TARGETS = 9


def run(
    data: str, model: str, weights: str, count: int, epsilon: str, steps: int, few: int, full_steps: int, queries: int
) -> None:
    classifier = load_classifier(model, weights=weights)
    radius = number("epsilon", epsilon)
    images, labels = read_eval_images(data, count)
    clean = torch.cat([classifier.predict(images[part]) == labels[part] for part in _parts(len(images))])
    console = Console(width=120)
    console.print(f"{len(images)} images, clean accuracy {_write_share(clean)}, {epsilon}, {steps} steps.")
    console.print(_compare(classifier, images, labels, _single_attacks(classifier, radius, steps)))
    few = min(few, count)
    console.print(f"The first {few} of them, {full_steps} steps, {TARGETS} targets, {queries} queries.")
    console.print(_compare(classifier, images[:few], labels[:few], _protocols(classifier, radius, full_steps, queries)))


def _compare(classifier: Any, images: Tensor, labels: Tensor, attacks: dict[str, Any]) -> Table:
    table = Table("attack", "robust accuracy", "robust", "forwards", "backwards", "seconds")
    for name, attack in attacks.items():
        torch.manual_seed(0)
        started = time.perf_counter()
        result = AttackResult.join(
            [run_attack(attack, classifier, images[part], Untargeted(labels[part])) for part in _parts(len(images))]
        )
        seconds = time.perf_counter() - started
        right = result.clean_logits.argmax(1) == labels
        passes = [f"{float(counts[right].double().mean()):.1f}" for counts in (result.forwards, result.backwards)]
        robust = ~result.success
        table.add_row(name, _write_share(robust), str(int(robust.sum())), *passes, f"{seconds:.0f}")
    return table


def _parts(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def _write_share(flags: Tensor) -> str:
    return f"{float(flags.double().mean()):.2%}"


def _single_attacks(classifier: Any, epsilon: float, steps: int) -> dict[str, Any]:
    """Make what takes a number of steps; PGD with the step that ours takes by default."""
    step = 2.5 * epsilon / steps
    foolbox = import_module("foolbox").attacks
    theirs = import_module("torchattacks") if find_spec("torchattacks") else None
    found: dict[str, Any] = {
        # No random start: what is the same attack must leave the same images.
        "BIM, whyfooled": BIM(epsilon=epsilon, step_size=step, steps=steps),
        "BIM, Foolbox": adapt(foolbox.LinfBasicIterativeAttack(abs_stepsize=step, steps=steps), epsilon=epsilon),
    }
    if theirs:
        found["BIM, torchattacks"] = theirs.BIM(classifier, eps=epsilon, alpha=step, steps=steps)
    found |= {
        "PGD, whyfooled": PGD(epsilon=epsilon, steps=steps),
        "PGD, Foolbox": adapt(foolbox.LinfPGD(abs_stepsize=step, steps=steps), epsilon=epsilon),
    }
    if theirs:
        found["PGD, torchattacks"] = theirs.PGD(classifier, eps=epsilon, alpha=step, steps=steps)
    for loss in ("ce", "dlr"):
        found[f"APGD-{loss.upper()}, whyfooled"] = APGD(epsilon=epsilon, steps=steps, loss=loss)
        if theirs:
            found[f"APGD-{loss.upper()}, torchattacks"] = theirs.APGD(
                classifier, eps=epsilon, steps=steps, loss=loss, seed=0
            )
    found["APGD-T, whyfooled"] = APGD(epsilon=epsilon, steps=steps, loss="dlr", targets=TARGETS)
    if theirs:
        found["APGD-T, torchattacks"] = theirs.APGDT(classifier, eps=epsilon, steps=steps, seed=0)
    return found


def _protocols(classifier: Any, epsilon: float, steps: int, queries: int) -> dict[str, Any]:
    """Make AutoAttack; torchattacks' own takes 10 steps, so its parts are put together with more."""
    found: dict[str, Any] = {"AutoAttack, whyfooled": AutoAttack(epsilon=epsilon, steps=steps, queries=queries)}
    if find_spec("torchattacks"):
        theirs = import_module("torchattacks")
        found["AutoAttack, torchattacks"] = theirs.MultiAttack(
            [
                theirs.APGD(classifier, eps=epsilon, steps=steps, loss="ce", seed=0),
                theirs.APGDT(classifier, eps=epsilon, steps=steps, seed=0),
                theirs.FAB(classifier, eps=epsilon, steps=steps, multi_targeted=True, seed=0),
                theirs.Square(classifier, eps=epsilon, n_queries=queries, seed=0),
            ]
        )
    return found
