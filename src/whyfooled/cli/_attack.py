"""``whyfooled attack``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from whyfooled.cli._app import (
    Address,
    Device,
    EngineName,
    Epsilon,
    Quiet,
    Seed,
    Steps,
    Workers,
    app,
    interruptible,
    output_option,
    plain_warnings,
    say,
    whole_number,
)
from whyfooled.cli._methods import describe_all
from whyfooled.cli._model import LITE0, ModelOptions, takes_model
from whyfooled.cli._progress import show_attack
from whyfooled.errors import bad_parameter


@app.command()
@takes_model
@interruptible("Stopped. What was finished is kept: the same command goes on from there.")
def attack(
    images: Annotated[list[Path] | None, typer.Argument(help="Photographs, or folders of them.")] = None,
    method: Annotated[
        str,
        typer.Option(
            "--attack",
            help="The attack, such as cw, fmn or 'pgd(steps=40, epsilon=4/255)'; per-image keeps the class and changes "
            "its map.",
        ),
    ] = "cw",
    output: Annotated[Path, output_option("The folder to write.")] = Path("adversaries"),
    target: Annotated[
        str | None,
        typer.Option(
            help="The class to be taken for (name or index), or: random, least-likely, runner-up; "
            "any wrong class if left out."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="The true class of all (name or index); what the model sees in each if left out."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A CSV file with the columns file and label: the true class of each.")
    ] = None,
    model: ModelOptions = LITE0,
    epsilon: Epsilon = None,
    steps: Steps = None,
    batch_size: Annotated[int, whole_number(help="Photographs attacked together.")] = 8,
    engine: EngineName = "local",
    address: Address = None,
    device: Device = "cpu",
    seed: Seed = 0,
    workers: Workers = None,
    quiet: Quiet = False,
    show: Annotated[bool, typer.Option("--list", help="Describe all attacks and their parameters, and stop.")] = False,
) -> None:
    """Attack photographs, and keep the adversarial images without loss; a stopped run goes on where it was."""
    if show:
        describe_all("attacks", texts=True)
        describe_all("interpretations", texts=True)
        return
    if not images:
        raise bad_parameter("IMAGES", "must be photographs or folders of them", "none", "To see the attacks: --list.")
    if label is not None and labels is not None:
        raise bad_parameter("--labels", "takes the place of --label", labels, "Give one.")

    from whyfooled.attacks.many import TABLE_FILE, attack_files
    from whyfooled.classifier.borrowing import one_thread
    from whyfooled.images import photographs_in
    from whyfooled.registry import with_seed

    overrides = {name: value for name, value in {"epsilon": epsilon, "steps": steps}.items() if value is not None}
    made = with_seed(_make_attack(method, overrides), seed)
    files = photographs_in(images)
    truth = label if labels is None else _read_one_label_each(labels)
    with plain_warnings(), one_thread(workers), show_attack(quiet) as progress:
        _, errors = attack_files(
            model.load(device, seed),
            files,
            made,
            output,
            labels=truth,
            target=target,
            seed=seed,
            batch_size=batch_size,
            workers=workers,
            engine=engine,
            address=address,
            model=model.recipe(seed),
            about={"weights": model.weights, **model.recipe(seed).identity()},
            report=progress,
        )
    for name, reason in errors.items():
        say(f"Left out: {name}: {reason}")
    if not quiet:
        print(_write_account(output / TABLE_FILE, labels is not None and target is None, getattr(made, "stages", ())))
        print(f"\nWritten: {output}, one .safetensors file for each photograph, and table.csv")


def _make_attack(text: str, overrides: Mapping[str, object]) -> Any:
    """Make an attack that changes the class, or one that keeps it and changes its map."""
    from whyfooled.registry import available, parse

    keeps = text.partition("(")[0].strip() in available("interpretations")
    return parse("interpretations" if keeps else "attacks", text, overrides)


def _write_account(path: Path, tells_accuracy: bool, stages: Sequence[str]) -> str:
    """Write what a run came to, from its table.

    Accuracies are told if labels are known and any wrong class will do; of an attack that has stages, what each left.
    """
    import pandas as pd

    everything = pd.read_csv(path)
    table = everything[everything["outcome"].notna()]
    attacked = table[table["outcome"] != "already wrong"]
    fooled = attacked[attacked["outcome"] == "fooled"]
    keeps = bool((table["goal"] == "kept").all())
    lines = [f"{len(fooled)} of {len(attacked)} photographs reached the goal."]
    if keeps:
        lines.append(
            "The goal: the class stays, and its map changes more than random perturbations as large change it."
        )
    if len(fooled):
        norms = ", ".join(f"{norm} {fooled[norm].median():.4g}" for norm in ("l2", "linf", "l1"))
        lines.append(f"Median {norms}, pixels changed {fooled['l0'].median():.0f}.")
    if len(attacked):
        forwards, backwards = attacked["forwards"].mean(), attacked["backwards"].mean()
        lines.append(f"{forwards:.1f} forward and {backwards:.1f} backward passes each, on average.")
    if stages and len(attacked):
        # NaN where no stage reached the goal.
        left = [int((~(attacked["stage"] <= number)).sum()) for number in range(1, len(stages) + 1)]
        listed = ", ".join(f"{stage} {count}" for stage, count in zip(stages, left, strict=True))
        lines.append(f"Not fooled after each stage, of {len(attacked)}: {listed}.")
    if len(table) > len(attacked):
        lines.append(f"Taken for a wrong class already, and not attacked: {len(table) - len(attacked)}.")
    if tells_accuracy and len(table) and not keeps:
        robust, right = (len(attacked) - len(fooled)) / len(table), len(attacked) / len(table)
        lines.append(f"Accuracy {right:.1%}, robust accuracy {robust:.1%}, of {len(table)} photographs.")
    if len(everything) > len(table):
        lines.append(f"Left out: {len(everything) - len(table)}; the reasons are in the table.")
    return "\n".join(lines)


def _read_one_label_each(path: Path) -> dict[str, str]:
    """Read the labels of photographs; an attack has one true class to lead away from."""
    from whyfooled.sources import read_labels

    labels = read_labels(path, "--labels")
    several = next((name for name, own in labels.items() if len(own) > 1), None)
    if several is not None:
        given = f"{len(labels[several])} for {several}"
        raise bad_parameter("--labels", "must have one label for each photograph", given)
    return {name: label for name, (label,) in labels.items()}
