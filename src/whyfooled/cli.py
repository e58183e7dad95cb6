"""The command line: parses, calls the library, prints. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from whyfooled import __version__
from whyfooled.errors import WhyfooledError, WhyfooledWarning, bad_parameter

_STARTED = time.perf_counter()
_INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Why an image classifier was fooled, and whether an explanation can be trusted.",
)

# The options that several commands share.
_Model = Annotated[
    str, typer.Option(help="lite0 (bundled), lite1, lite2, torchvision:NAME, timm:NAME or path/to/file.py:factory.")
]
_Weights = Annotated[
    str | None, typer.Option(help="A file with the model's state dict, or 'random' for the untrained model.")
]
_Epsilon = Annotated[str | None, typer.Option(help="The attack's radius, for values from 0 to 1, such as 4/255.")]
_Steps = Annotated[int | None, typer.Option(help="The attack's steps.")]
_Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")]
_Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no account, only errors.")]


def main() -> None:
    """Run the command line; an error of ours becomes one sentence and exit code 2."""
    try:
        app()
    except WhyfooledError as error:
        _say(f"Error: {error}")
        sys.exit(2)


@contextmanager
def _interruptible(sentence: str) -> Iterator[None]:
    """Make of Ctrl-C one sentence and the exit code that shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        _say(sentence)
        raise typer.Exit(_INTERRUPTED) from None


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print_version(asked: bool | None) -> None:
    if asked:
        print(f"whyfooled {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    pass


@app.command()
@_interruptible("Stopped. Nothing was written.")
def explain(
    image: Annotated[
        Path | None, typer.Argument(help="The photograph; an example (a cup of coffee) if left out.")
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            help="The attack, such as cw, bim or 'pgd(steps=40, epsilon=4/255)'. See: whyfooled methods.  [default: cw]"
        ),
    ] = None,
    adversarial: Annotated[
        Path | None,
        typer.Option(
            help="An adversarial image made elsewhere, in place of an attack: .safetensors, .npy, .pt, or a picture."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The class to be taken for (name or index); any wrong class if left out.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="The true class (name or index); what the model sees in the clean image if left out."),
    ] = None,
    model: _Model = "lite0",
    weights: _Weights = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Saliency methods to show, separated by commas. See: whyfooled methods.  [default: all]"),
    ] = None,
    epsilon: _Epsilon = None,
    steps: _Steps = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("whyfooled-out"),
    device: _Device = "cpu",
    seed: _Seed = 0,
    quiet: _Quiet = False,
) -> None:
    """Attack a photograph and explain why the classifier is fooled: a report, pictures, numbers, tensors."""
    # Only what an early mistake needs comes before the imports that take seconds.
    overrides: dict[str, object] = {
        name: value for name, value in {"epsilon": epsilon, "steps": steps}.items() if value is not None
    }
    if adversarial is not None and (attack is not None or overrides):
        given = "--attack" if attack is not None else f"--{next(iter(overrides))}"
        raise bad_parameter(
            "--adversarial", f"takes the place of an attack and excludes {given}", adversarial, "Give one."
        )

    from dataclasses import replace

    from whyfooled.explaining import explain as explain_image
    from whyfooled.images import example_photograph, output_folder, read_photograph
    from whyfooled.registry import parse, split_list
    from whyfooled.report.page import write_files
    from whyfooled.zoo import RANDOM, load_classifier

    with output_folder(output) as staging, _plain_warnings():
        made: Any = None if adversarial is not None else parse("attacks", attack or "cw", overrides)
        chosen = None if methods is None else [parse("saliency", name) for name in split_list(methods)]
        photograph = example_photograph() if image is None else read_photograph(image)
        with _progress(quiet) as report:
            report(0, 1, "loading")
            classifier = load_classifier(model, weights=weights, device=device, seed=seed)
            loading = time.perf_counter() - _STARTED
            report(1, 1, "loading")
            if weights == RANDOM:
                _say("Warning: the model is untrained, so what it sees means nothing.")
            explanation = explain_image(
                classifier,
                photograph,
                attack=made,
                adversarial=adversarial,
                label=label,
                target=target,
                methods=chosen,
                seed=seed,
                progress=report,
            )
        explanation = replace(
            explanation,
            parameters={**explanation.parameters, "image": "the example photograph" if image is None else str(image)},
            seconds={"starting and loading the model": loading, **explanation.seconds},
        )
        write_files(explanation, staging)
    if not quiet:
        print(f"{explanation.summary()}\n\nReport: {output / 'report.html'}")


@app.command()
@_interruptible("Stopped. What was finished is kept: the same command goes on from there.")
def attack(
    images: Annotated[list[Path] | None, typer.Argument(help="Photographs, or folders of them.")] = None,
    method: Annotated[
        str, typer.Option("--attack", help="The attack, such as cw, fmn or 'pgd(steps=40, epsilon=4/255)'.")
    ] = "cw",
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("adversaries"),
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
    model: _Model = "lite0",
    weights: _Weights = None,
    epsilon: _Epsilon = None,
    steps: _Steps = None,
    batch_size: Annotated[int, typer.Option(help="Photographs attacked together.")] = 8,
    device: _Device = "cpu",
    seed: _Seed = 0,
    quiet: _Quiet = False,
    show: Annotated[bool, typer.Option("--list", help="Describe all attacks and their parameters, and stop.")] = False,
) -> None:
    """Attack photographs, and keep the adversarial images without loss; a stopped run goes on where it was."""
    if show:
        _describe("attacks", texts=True)
        return
    if not images:
        raise bad_parameter("IMAGES", "must be photographs or folders of them", "none", "To see the attacks: --list.")
    if label is not None and labels is not None:
        raise bad_parameter("--labels", "takes the place of --label", labels, "Give one.")

    from whyfooled.attacking import TABLE_FILE, attack_files
    from whyfooled.images import photographs_in
    from whyfooled.registry import parse, with_seed
    from whyfooled.zoo import load_classifier

    overrides = {name: value for name, value in {"epsilon": epsilon, "steps": steps}.items() if value is not None}
    made = with_seed(parse("attacks", method, overrides), seed)
    files = photographs_in(images)
    truth = label if labels is None else _read_labels(labels)
    with _plain_warnings(), _standing(quiet) as report:
        _, errors = attack_files(
            load_classifier(model, weights=weights, device=device, seed=seed),
            files,
            made,
            output,
            labels=truth,
            target=target,
            seed=seed,
            batch_size=batch_size,
            about={"weights": weights},
            report=report,
        )
    for name, reason in errors.items():
        _say(f"Left out: {name}: {reason}")
    if not quiet:
        print(_account(output / TABLE_FILE))
        print(f"\nWritten: {output}, one .safetensors file for each photograph, and table.csv")


def _account(path: Path) -> str:
    """Write what a run came to, from its table."""
    import pandas as pd

    everything = pd.read_csv(path)
    table = everything[everything["outcome"].notna()]
    attacked = table[table["outcome"] != "already wrong"]
    fooled = attacked[attacked["outcome"] == "fooled"]
    lines = [f"{len(fooled)} of {len(attacked)} photographs reached the goal."]
    if len(fooled):
        norms = ", ".join(f"{norm} {fooled[norm].median():.4g}" for norm in ("l2", "linf", "l1"))
        lines.append(f"Median {norms}, pixels changed {fooled['l0'].median():.0f}.")
    if len(attacked):
        forwards, backwards = attacked["forwards"].mean(), attacked["backwards"].mean()
        lines.append(f"{forwards:.1f} forward and {backwards:.1f} backward passes each, on average.")
    if len(table) > len(attacked):
        lines.append(f"Taken for a wrong class already, and not attacked: {len(table) - len(attacked)}.")
    if len(everything) > len(table):
        lines.append(f"Left out: {len(everything) - len(table)}; the reasons are in the table.")
    return "\n".join(lines)


def _read_labels(path: Path) -> dict[str, str]:
    """Read the columns file and label of a CSV file."""
    import csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {row["file"]: row["label"].strip() for row in csv.DictReader(file)}
    except OSError as error:
        raise bad_parameter("--labels", "must be a CSV file that can be read", f"{path}: {error.strerror}") from None
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error):
        raise bad_parameter("--labels", "must be a CSV file with the columns file and label", path) from None


@app.command()
def methods() -> None:
    """List the attacks and saliency methods, with their parameters, costs and sources."""
    _describe("attacks")
    _describe("saliency")


def _describe(kind: Any, texts: bool = False) -> None:
    """Print every method of a kind; with a line about each parameter, if asked for."""
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from whyfooled.registry import available, describe, parameter_texts, parameters, refused

    console = Console(highlight=False)
    console.print(f"[bold]{'Attacks' if kind == 'attacks' else 'Saliency methods'}[/bold]")
    for name, method in available(kind).items():
        card = method.card
        console.print(f"\n  [bold cyan]{name}[/bold cyan]  {escape(card.title)}: {escape(card.summary)}")
        given = {key: describe(value) if hasattr(value, "card") else value for key, value in parameters(method).items()}
        if texts:
            about = parameter_texts(method)
            table = Table.grid(padding=(0, 2))
            for key, value in given.items():
                text = about.get(key, "").replace("`", "")
                table.add_row(f"[green]{key}={escape(_short(value))}[/green]", escape(text))
            console.print(Padding(table, (0, 0, 0, 4)))
        elif given:
            settings = ", ".join(f"{key}={_short(value)}" for key, value in given.items())
            console.print(f"    parameters: {escape(settings)}")
        console.print(f"    cost: {escape(card.cost)}")
        console.print(f"    source: {escape(card.source)}")
    for name, reason in refused(kind).items():
        console.print(f"\n  [bold]{name}[/bold]  {escape(reason)}")
    console.print()


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    levels = value * 255
    rounded = f"{value:.4g}"
    return f"{levels:.0f}/255" if float(rounded) != value and abs(levels - round(levels)) < 1e-9 else rounded


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print our warnings as one sentence, and leave other libraries' to Python."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, WhyfooledWarning):
            _say(f"Warning: {message}")
        else:
            usual(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar for each stage; on a terminal only, and on stderr, so that the account can be piped."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    bars = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
    tasks: dict[str, Any] = {}

    def report(done: int, total: int, doing: str) -> None:
        bars.start()
        if doing not in tasks:
            tasks[doing] = bars.add_task(doing, total=total)
        bars.update(tasks[doing], completed=done, total=total)

    try:
        yield report
        for task in tasks.values():
            # Work that ended early is done too.
            bars.update(task, completed=bars.tasks[task].total)
    finally:
        if tasks:
            bars.stop()


@contextmanager
def _standing(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Show a bar with the success rate and the median norm so far; on a terminal only, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)

        def report(standing: Any) -> None:
            text = f"{int(standing.done)} of {standing.total}"
            if standing.attacked:
                text += f", {standing.fooled / standing.attacked:.0%} fooled"
            if standing.median_l2 is not None:
                text += f", median l2 {standing.median_l2:.3g}"
            bar.update(task, completed=standing.done, total=standing.total, description=text)

        yield report


if __name__ == "__main__":
    main()
