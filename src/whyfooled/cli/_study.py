"""``whyfooled study`` and ``whyfooled figure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whyfooled.cli._app import (
    Address,
    EngineName,
    Quiet,
    Seed,
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
from whyfooled.cli._progress import show_study
from whyfooled.errors import bad_parameter


@app.command()
@takes_model
@interruptible("Stopped. Finished shards are kept: the same command goes on from there.")
def study(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The study, such as recovery or 'recovery(fills=[zero, blur])'. See: whyfooled study --list."
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the images come from: a file, a folder, imagenet:ROOT, ... Can be given several times: "
            "photographs, or folders of adversarial images, each of another attack on the same photographs."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A CSV file with the columns file and label: what photographs show.")
    ] = None,
    output: Annotated[Path | None, output_option("The folder to write.", show_default="runs/NAME")] = None,
    attack: Annotated[str | None, typer.Option(help="The study's attack, or its attacks, separated by commas.")] = None,
    target: Annotated[str | None, typer.Option(help="The attack's target: random, least-likely or runner-up.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="The study's saliency methods, separated by commas, or 'all'.")
    ] = None,
    model: ModelOptions = LITE0,
    count: Annotated[int | None, whole_number(help="How many images to draw at random; all if left out.")] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Keep the saliency maps too, in maps/.")] = False,
    engine: EngineName = "local",
    address: Address = None,
    batch_size: Annotated[
        int | None,
        whole_number(
            help="Images measured together; as many as fit if left out. On a CPU large ones go one at a time."
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        whole_number(help="Images in a shard, the unit of resuming; if left out 2 large ones on a CPU, else 16."),
    ] = None,
    workers: Workers = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto: the GPU if there is one.")] = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
    show: Annotated[bool, typer.Option("--list", help="Describe all studies and sources of images, and stop.")] = False,
) -> None:
    """Run a study on many images: a table, a summary and a figure; a stopped run goes on where it was."""
    if show:
        describe_all("studies", texts=True)
        _describe_sources()
        return
    if name is None:
        raise bad_parameter("NAME", "must be the name of a study", "none", "To see them: --list.")
    if not images:
        raise bad_parameter(
            "--images", "must say where the images come from", "nothing", "To see what it takes: --list."
        )

    from whyfooled.attacks.adversaries import is_run
    from whyfooled.registry import parse
    from whyfooled.studies import run_study

    made = parse("studies", name, _collect_overrides(name, attack, target, methods))
    if not all(images):
        raise bad_parameter("--images", "must say where the images come from", "''")
    folder = output or Path("runs") / made.card.name
    if (attack or target) and any(is_run(Path(place)) for place in images):
        given = "--attack" if attack else "--target"
        raise bad_parameter(given, "has no place here: the images are saved adversarial ones", attack or target)
    with plain_warnings(), show_study(quiet) as progress:
        result = run_study(
            made,
            images[0] if len(images) == 1 else images,
            folder,
            model=model.recipe(seed),
            labels=labels,
            count=count,
            seed=seed,
            batch_size=batch_size,
            shard_size=shard_size,
            workers=workers,
            keep_maps=maps,
            engine=engine,
            address=address,
            device=device,
            report=progress,
        )
    failures = result.about["failures"]
    if failures:
        say(f"Failed: {failures}, such as {result.about['failed'][0]} All are in the table.")
    if not quiet:
        print(result.summary)
        print(f"Written: {folder}: figure.png, figure.pdf, summary.md, summary.tex, table.parquet, study.json")


def _collect_overrides(name: str, attack: str | None, target: str | None, methods: str | None) -> dict[str, object]:
    """Return the options that were given, as parameters of the study."""
    from whyfooled.registry import available, parameters, split_list

    study = available("studies").get(name.partition("(")[0].strip())
    several = study is not None and "attacks" in parameters(study)
    if attack is not None and not several and len(split_list(attack)) > 1:
        raise bad_parameter("--attack", "must be one attack for this study", attack)
    given = {"attacks" if several else "attack": attack, "target": target, "methods": methods}
    return {key: value for key, value in given.items() if value is not None}


def _describe_sources() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from whyfooled.sources import SOURCES

    console = Console(highlight=False)
    console.print("[bold]Images[/bold] (--images)\n")
    table = Table.grid(padding=(0, 2))
    for card in SOURCES.values():
        table.add_row(f"  [bold cyan]{escape(card.form)}[/bold cyan]", escape(card.summary))
    console.print(table)


@app.command()
def figure(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished study.")],
) -> None:
    """Draw a finished study's figure and write its summary again, from its table alone."""
    from whyfooled.studies import redraw

    redraw(folder)
    print(f"Written: {folder}: figure.png, figure.pdf, summary.md, summary.tex")
