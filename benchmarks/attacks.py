"""Our attacks beside those of Foolbox, adv-lib and torchattacks, in one run, on equal images and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks._photographs import correct_photographs
from benchmarks._recording import Recording, record
from whyfooled import (
    EAD,
    FMN,
    AttackResult,
    CarliniWagner,
    Classifier,
    StrAttack,
    Targeted,
    Untargeted,
    choose_targets,
    load_classifier,
    run_attack,
)
from whyfooled.errors import bad_parameter
from whyfooled.registry import split_list

CELL = 13
PARTS = ("cw", "fmn", "ead", "strattack")
console = Console(width=150)

Goal = Untargeted | Targeted


@dataclass
class Entry:
    """One attack on all images: what it reached, and what it took."""

    name: str
    result: AttackResult
    recording: Recording

    @property
    def evaluations(self) -> float:
        """Forward passes an image, in the mean."""
        return float(self.result.forwards.double().mean())

    def mean(self, norm: str) -> float:
        """Return the mean of a norm over the images that were fooled."""
        sizes: Tensor = groups(self.result.delta) if norm == "groups" else getattr(self.result, norm)
        return float(sizes[self.result.success].double().mean())


def run(folder: str, count: int, only: str, output: str, seed: int) -> None:
    chosen = split_list(only)
    if unknown := [name for name in chosen if name not in PARTS]:
        raise bad_parameter("--only", f"must name parts among {', '.join(PARTS)}", ", ".join(unknown))
    classifier = load_classifier()
    images, labels = correct_photographs(classifier, folder, count, seed)
    goals: dict[str, Goal] = {
        "untargeted": Untargeted(labels),
        "random targets": choose_targets(classifier, images, "random", labels=labels, seed=seed),
    }
    for part in chosen:
        for title, goal in goals.items():
            entries = [_entry(name, attack, classifier, images, goal) for name, attack in _contest(part).items()]
            _print(f"{part}, {title}, {len(images)} photographs", entries)
            if part == "cw":
                _compare_curves(entries, title, Path(output))


def _entry(name: str, attack: Any, classifier: Classifier, images: Tensor, goal: Goal) -> Entry:
    console.print(f"[dim]{name} ...[/dim]")
    with record(classifier, images, goal) as recording:
        result = run_attack(attack, classifier, images, goal)
    return Entry(name, result, recording)


def _contest(part: str) -> dict[str, Any]:
    """List the attacks of one comparison, ours first."""
    foolbox = import_module("foolbox").attacks
    theirs = import_module("adv_lib.attacks") if find_spec("adv_lib") else None
    if theirs is None:
        console.print("[yellow]adv-lib is not installed: left out.[/yellow]")

    def adv_lib(title: str, name: str, **more: Any) -> dict[str, Callable[..., Any]]:
        def call(model: Any, x: Tensor, y: Tensor, targeted: bool = False) -> Any:
            return getattr(theirs, name)(model, x, y, targeted=targeted, **more)

        return {} if theirs is None else {f"adv-lib {title}": call}

    if part == "cw":
        settings = {"binary_search_steps": 5, "initial_const": 1.0}
        return {
            "whyfooled 2 x 45": CarliniWagner(),
            "whyfooled 2 x 200": CarliniWagner(steps=200),
            "foolbox 5 x 200": foolbox.L2CarliniWagnerAttack(steps=200, **settings),
            **adv_lib("5 x 200", "carlini_wagner_l2", max_iterations=200, **settings),
        }
    if part == "fmn":
        return {
            "whyfooled 50": FMN(steps=25),
            **adv_lib("50", "fmn", norm=2, steps=50),
            "whyfooled 100": FMN(steps=50),
            **adv_lib("100", "fmn", norm=2, steps=100),
        }
    if part == "ead":
        budget = {"binary_search_steps": 9, "steps": 100}
        return {
            "whyfooled, rule EN": EAD(),
            "foolbox 9 x 100, rule EN": foolbox.EADAttack(decision_rule="EN", **budget),
            "whyfooled, rule l1": EAD(decision="l1"),
            "foolbox 9 x 100, rule l1": foolbox.EADAttack(decision_rule="L1", **budget),
        }
    return {
        "whyfooled": StrAttack(group_size=CELL),
        **adv_lib("6 x 100, refined", "str_attack", max_iterations=100, group_size=CELL, stride=CELL),
    }


def groups(delta: Tensor) -> Tensor:
    """Count (n,) the cells of the grid in which a perturbation is not 0; pixels right of and below it do not count."""
    cells = torch.nn.functional.unfold(delta, CELL, stride=CELL)
    return (cells != 0).any(1).sum(1)


def _print(title: str, entries: list[Entry]) -> None:
    names = ("success", "l2", "l1", "linf", "groups", "forwards", "backwards", "seconds")
    table = Table("attack", *names, title=title)
    for entry in entries:
        result = entry.result
        table.add_row(
            entry.name,
            f"{int(result.success.sum())}/{len(result.success)}",
            *(f"{entry.mean(norm):.4g}" for norm in ("l2", "l1", "linf", "groups")),
            f"{entry.evaluations:.0f}",
            f"{float(result.backwards.double().mean()):.0f}",
            f"{entry.recording.seconds:.0f}",
        )
    console.print(table)


def _compare_curves(entries: list[Entry], title: str, output: Path) -> None:
    """Say how soon ours is where the better of the others ends, and how far below it is with its evaluations."""
    short, long, *others = entries
    best = min(others, key=lambda entry: (-int(entry.result.success.sum()), entry.mean("l2")))
    level = float(best.recording.best.mean())
    soon = short.recording.evaluations_to(level)
    seconds = short.recording.seconds_to(level)
    if soon is None or seconds is None:
        console.print(f"[red]{short.name} does not reach {level:.4f}, where {best.name} ends.[/red]")
    else:
        console.print(
            f"{short.name} reaches {level:.4f}, where {best.name} ends, after {soon} evaluations "
            f"({soon / best.evaluations:.2f} of its {best.evaluations:.0f}) and {seconds:.0f} s "
            f"({seconds / best.recording.seconds:.2f} of its time)."
        )
    curve = long.recording.mean_curve()
    then = float(curve[min(len(curve), round(best.evaluations)) - 1])
    console.print(f"With as many evaluations {long.name} is at {then:.4f}: {1 - then / level:.0%} below.\n")
    _draw(entries, title, output / f"attacks_cw_{title.replace(' ', '_')}.png")


def _draw(entries: list[Entry], title: str, path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for entry in entries:
        curve = entry.recording.mean_curve()
        axes.plot(range(1, len(curve) + 1), curve, label=entry.name)
    axes.set(
        xlabel="evaluations of an image",
        ylabel="mean l2 of the smallest example so far",
        title=f"Carlini-Wagner, {title}",
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    console.print(f"Drawn: {path}")
