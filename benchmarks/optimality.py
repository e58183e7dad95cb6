"""How near minimal-norm attacks come to the smallest perturbations that any of them finds, at equal evaluations.

What each attack found is written down at once: the same command goes on where it was stopped, also with more budgets.
After a change of an attack, delete the folder of what was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks._recording import record
from whyfooled import DDN, EAD, FMN, CarliniWagner, Classifier, DeepFool, Untargeted, load_classifier, run_attack
from whyfooled.errors import one_of
from whyfooled.images import write_whole
from whyfooled.images.seals import digest_content
from whyfooled.sources import open_source

NORMS = {"l2": 2, "l1": 1}
BATCH = 50
console = Console(width=150)

Make = Callable[[int], Any]
Measure = Callable[[Any, int], Tensor]
"""Returns (n,) the smallest norms that an attack finds within a number of evaluations."""


@dataclass(frozen=True)
class Contestant:
    """One attack of one library.

    Parameters
    ----------
    name
        The library's name and the attack's.
    settings
        For each setting, how the attack is made for a number of evaluations. More than one: the best is chosen.
    """

    name: str
    settings: Mapping[str, Make]


@dataclass(frozen=True)
class Outcome:
    """What an attack found with a budget: (n,) the smallest norms, infinite where nothing was found.

    Chosen is what was run with the attack's best setting, others were tried for that.
    """

    name: str
    setting: str
    budget: int
    norms: Tensor
    chosen: bool = True


def run(
    data: str,
    model: str,
    weights: str | None,
    count: int,
    norm: str,
    budgets: list[int],
    tuned_at: int,
    output: str,
) -> None:
    one_of("norm", norm, tuple(NORMS))
    torch.set_num_threads(1)
    classifier = load_classifier(model, weights=weights)
    images, labels = _take_correct(classifier, data, count)
    folder = Path(output)
    name = Path(classifier.name).name.replace(":", "_")
    stem = f"optimality_{name}_{norm}"
    kept = folder / f"{stem}_{_digest(classifier, images, labels)}"
    measure = partial(_measure, classifier, images, labels, NORMS[norm])
    outcomes: list[Outcome] = []
    for contestant in track(_contestants(norm), "attacks", console=Console(stderr=True)):
        outcomes += _compete(contestant, measure, kept, budgets, tuned_at)
        console.print(f"[dim]{contestant.name}: done[/dim]")
    best = torch.stack([outcome.norms for outcome in outcomes]).amin(0)
    table = _tabulate(outcomes, best)
    table.to_csv(folder / f"{stem}.csv", index=False)
    _print(table, f"{classifier.name}, {norm}, {len(images)} images, mean of the smallest {float(best.mean()):.4g}")
    _draw(table, norm, folder / f"{stem}.png")


def _take_correct(classifier: Classifier, data: str, count: int) -> tuple[Tensor, Tensor]:
    """Take the first images that are classified correctly."""
    source = open_source(data)
    images, labels = [], []
    for index in range(len(source)):
        sample = source[index]
        image = sample.fitted(classifier.fit, classifier.channels).unsqueeze(0)
        prediction = int(classifier.predict(image))
        if prediction in sample.labels:
            images.append(image)
            labels.append(prediction)
        if len(labels) == count:
            break
    return torch.cat(images).contiguous(), torch.tensor(labels)


def _contestants(norm: str) -> list[Contestant]:
    if find_spec("adv_lib") is None:
        console.print("[yellow]adv-lib is not installed: left out.[/yellow]")
        return [*_ours(norm), *_foolbox(norm)]
    return [*_ours(norm), *_foolbox(norm), *_adv_lib(norm)]


def _ours(norm: str) -> Iterator[Contestant]:
    if norm == "l1":
        # How much the squared ℓ2 norm counts beside, which is not asked about here.
        yield Contestant(
            "whyfooled EAD",
            _grid(
                lambda budget, beta: EAD(beta=beta, decision="l1", steps=_share(budget - 7, 3), rounds=3),
                beta=(0.1, 1.0, 10.0),
            ),
        )
        return
    yield Contestant(
        "whyfooled Carlini-Wagner", {"as it is": lambda budget: CarliniWagner(steps=_share(budget - 7, 2))}
    )
    yield Contestant("whyfooled FMN", {"as it is": lambda budget: FMN(steps=_share(budget, 2))})
    yield Contestant("whyfooled DDN", {"as it is": lambda budget: DDN(steps=budget - 7)})
    yield Contestant("whyfooled DeepFool", {"as it is": lambda budget: DeepFool(steps=budget - 7)})


def _foolbox(norm: str) -> Iterator[Contestant]:
    attacks = import_module("foolbox").attacks
    if norm == "l1":

        def ead(budget: int, constant: float, rate: float) -> Any:
            return attacks.EADAttack(
                binary_search_steps=5,
                steps=_share(budget, 5),
                initial_const=constant,
                initial_stepsize=rate,
                decision_rule="L1",
                abort_early=False,
            )

        yield Contestant("Foolbox EAD", _grid(ead, constant=(0.1, 1.0, 10.0), rate=(0.01, 0.1)))
        yield Contestant(
            "Foolbox FMN", _grid(lambda budget, a: attacks.L1FMNAttack(steps=budget, max_stepsize=a), a=(1.0, 10.0))
        )
        return

    def carlini_wagner(budget: int, constant: float, rate: float) -> Any:
        return attacks.L2CarliniWagnerAttack(
            binary_search_steps=5,
            steps=_share(budget, 5),
            initial_const=constant,
            stepsize=rate,
            abort_early=False,
        )

    yield Contestant("Foolbox Carlini-Wagner", _grid(carlini_wagner, constant=(0.1, 1.0), rate=(0.005, 0.02)))
    yield Contestant(
        "Foolbox FMN", _grid(lambda budget, a: attacks.L2FMNAttack(steps=budget, max_stepsize=a), a=(1.0, 0.1))
    )
    yield Contestant(
        "Foolbox DDN", _grid(lambda budget, e: attacks.DDNAttack(steps=budget, init_epsilon=e), e=(1.0, 0.1))
    )
    yield Contestant("Foolbox DeepFool", {"as it is": lambda budget: attacks.L2DeepFoolAttack(steps=budget)})


def _adv_lib(norm: str) -> Iterator[Contestant]:
    attacks = import_module("adv_lib.attacks")

    def call(attack: Callable[..., Any], more: dict[str, Any]) -> Callable[..., Any]:
        def called(model: Any, x: Tensor, y: Tensor, targeted: bool = False) -> Any:
            return attack(model, x, y, targeted=targeted, **more)

        return called

    def fmn(budget: int, a: float) -> Any:
        return call(attacks.fmn, {"norm": NORMS[norm], "steps": budget, "α_init": a})

    if norm == "l1":
        yield Contestant("adv-lib FMN", _grid(fmn, a=(1.0, 10.0)))
        yield Contestant(
            "adv-lib PDPGD",
            _grid(
                lambda budget, r: call(attacks.pdpgd, {"norm": 1, "num_steps": budget, "primal_lr": r}), r=(0.1, 1.0)
            ),
        )
        return

    def carlini_wagner(budget: int, constant: float, rate: float) -> Any:
        more = {
            "binary_search_steps": 5,
            "max_iterations": _share(budget, 5),
            "initial_const": constant,
            "learning_rate": rate,
            "abort_early": False,
        }
        return call(attacks.carlini_wagner_l2, more)

    yield Contestant("adv-lib Carlini-Wagner", _grid(carlini_wagner, constant=(0.1, 1.0), rate=(0.005, 0.02)))
    yield Contestant("adv-lib FMN", _grid(fmn, a=(1.0, 0.1)))
    yield Contestant(
        "adv-lib DDN",
        _grid(lambda budget, e: call(attacks.ddn, {"steps": budget, "init_norm": e, "levels": None}), e=(1.0, 0.1)),
    )
    yield Contestant(
        "adv-lib ALMA",
        _grid(
            lambda budget, r: call(attacks.alma, {"num_steps": budget, "distance": "l2", "init_lr_distance": r}),
            r=(1.0, 0.1),
        ),
    )


def _share(budget: int, rounds: int) -> int:
    return max(budget // rounds, 1)


def _grid(make: Callable[..., Any], **choices: tuple[float, ...]) -> dict[str, Make]:
    """Make every combination of the choices."""
    settings: dict[str, dict[str, float]] = {"": {}}
    for name, values in choices.items():
        settings = {
            f"{title} {name}={value:g}".strip(): {**chosen, name: value}
            for title, chosen in settings.items()
            for value in values
        }
    return {title: partial(make, **chosen) for title, chosen in settings.items()}


def _compete(
    contestant: Contestant, measure: Measure, kept: Path, budgets: list[int], tuned_at: int
) -> Iterator[Outcome]:
    """Choose the setting with the smallest mean norm at one budget, the failures counted last; then run them all."""

    def attempt(setting: str, budget: int) -> Outcome:
        path = kept / f"{contestant.name}, {setting}, {budget}.json"
        if not path.exists():
            norms = measure(contestant.settings[setting](budget), budget)
            write_whole(path, json.dumps(norms.tolist()).encode())
        return Outcome(contestant.name, setting, budget, torch.tensor(json.loads(path.read_text())))

    titles = list(contestant.settings)
    tried = [attempt(title, tuned_at) for title in titles] if len(titles) > 1 else []
    setting = min(tried, key=_rank).setting if tried else titles[0]
    yield from (replace(outcome, chosen=outcome.setting == setting) for outcome in tried)
    for budget in budgets:
        if not tried or budget != tuned_at:
            yield attempt(setting, budget)


def _digest(classifier: Classifier, images: Tensor, labels: Tensor) -> str:
    """Return some letters that are others for another model or other images."""
    content = classifier.digest().encode() + images.numpy().tobytes() + labels.numpy().tobytes()
    return digest_content(content)[:8]


def _rank(outcome: Outcome) -> tuple[int, float]:
    found = outcome.norms.isfinite()
    return int((~found).sum()), float(outcome.norms[found].mean())


def _measure(
    classifier: Classifier, images: Tensor, labels: Tensor, norm: int, attack: Any, evaluations: int
) -> Tensor:
    """Return (n,) the smallest norm among the first evaluations, whatever the attack gives back in the end."""
    found = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        goal = Untargeted(labels[part])
        with record(classifier, images[part], goal, norm) as recording:
            torch.manual_seed(0)
            run_attack(attack, classifier, images[part], goal)
        found.append(recording.after(evaluations))
    return torch.cat(found)


def find_optimality(norms: Tensor, best: Tensor) -> float:
    """Return the local optimality: 1 for the best known norms (n,), 0 for an attack that reaches none of them.

    The area between the curves of robust accuracy over the norm, as a share of the area that is above the best curve.
    For images that are all classified correctly: ``1 − (mean(clipped) − mean(best)) / (max(best) − mean(best))``.
    """
    most = best.max()
    return float(1 - (norms.clamp_max(most).mean() - best.mean()) / (most - best.mean()))


def find_trapezoid_optimality(norms: Tensor, best: Tensor) -> float:
    """Return the same with areas by the trapezoidal rule over the norms, as AttackBench does (Cinà et al. 2025).

    What lies below an attack's smallest norm is left out there: where that is large, more than 1 may come out.
    """
    most = float(best.max())
    least = _integrate(best)
    return 1 - (_integrate(norms.clamp_max(most)) - least) / (most - least)


def _integrate(norms: Tensor) -> float:
    sizes, counts = np.unique(norms.double().numpy(), return_counts=True)
    return float(np.trapezoid(1 - counts.cumsum() / len(norms), sizes))


def _tabulate(outcomes: list[Outcome], best: Tensor) -> pd.DataFrame:
    rows = [
        {
            "attack": outcome.name,
            "setting": outcome.setting,
            "evaluations": outcome.budget,
            "chosen": outcome.chosen,
            "optimality": find_optimality(outcome.norms, best),
            "trapezoid": find_trapezoid_optimality(outcome.norms, best),
            "found": int(outcome.norms.isfinite().sum()),
            "mean": float(outcome.norms[outcome.norms.isfinite()].mean()),
            "median": float(outcome.norms.median()),
        }
        for outcome in outcomes
    ]
    return pd.DataFrame(rows)


def _print(table: pd.DataFrame, title: str) -> None:
    chosen = table[table["chosen"]]
    budgets = sorted(chosen["evaluations"].unique())
    printed = Table("attack", "setting", *(f"at {budget}" for budget in budgets), "trapezoid", "mean norm", title=title)
    for (name, setting), rows in chosen.groupby(["attack", "setting"], sort=False):
        at = rows.set_index("evaluations")
        last = at.loc[max(at.index)]
        printed.add_row(
            str(name),
            str(setting),
            # A library's settings may be tuned at evaluations that were not asked for.
            *(f"{at['optimality'][budget]:.3f}" if budget in at.index else "" for budget in budgets),
            f"{last['trapezoid']:.3f}",
            f"{last['mean']:.4g}",
        )
    console.print(printed)


def _draw(table: pd.DataFrame, norm: str, path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator

    figure, axes = plt.subplots(figsize=(9, 4.8), layout="constrained")
    styles = {"whyfooled": "-", "Foolbox": "--", "adv-lib": ":"}
    colours: dict[str, str] = {}
    for name, rows in table[table["chosen"]].groupby("attack", sort=False):
        library, _, kind = str(name).partition(" ")
        colour = colours.setdefault(kind, f"C{len(colours)}")
        at = rows.sort_values("evaluations")
        axes.plot(at["evaluations"], 1 - at["optimality"], styles[library], color=colour, marker="o", label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="evaluations of an image (forward passes)",
        ylabel=f"1 - local optimality in {norm}; less is better",
    )
    axes.xaxis.set_major_locator(FixedLocator(sorted(table["evaluations"].unique())))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    console.print(f"Drawn: {path}")
