"""``whyfooled dissect`` and ``whyfooled layers``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

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
    real_number,
    whole_number,
)
from whyfooled.cli._model import LITE0, ModelOptions, takes_model
from whyfooled.cli._progress import show_stages
from whyfooled.errors import bad_parameter

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto: the GPU if there is one.")]


@app.command()
@takes_model
@interruptible("Stopped. What was finished of it is kept: the same command goes on from there.")
def dissect(
    concepts: Annotated[
        str | None,
        typer.Option(help="Annotated images, such as masks:IMAGES,LABELS,NAMES. To see what it takes: --list."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer's name; a pattern, such as 'blocks.*'; or last-stage. Can be given several times. To see "
            "what there is: whyfooled layers.",
            show_default="last-stage",
        ),
    ] = None,
    colours: Annotated[
        bool, typer.Option("--colours", help="Colours of the pixels are concepts too: red, blue, …")
    ] = False,
    count: Annotated[
        int | None, whole_number(help="How many annotated images to draw at random; all if left out.")
    ] = None,
    top: Annotated[
        float, real_number(help="The share of a unit's activations, at most, that are above its threshold.")
    ] = 0.005,
    cutoff: Annotated[float, real_number(help="The IoU above which a unit detects its best concept.")] = 0.04,
    permutations: Annotated[
        int, whole_number(help="How often annotations are permuted among the images, to see what chance gives.")
    ] = 20,
    model: ModelOptions = LITE0,
    output: Annotated[Path, output_option("The folder to write.")] = Path("whyfooled-out"),
    batch_size: Annotated[
        int | None,
        whole_number(help="Images worked on together; as many as fit into memory if left out, one large one on a CPU."),
    ] = None,
    memory: Annotated[
        float,
        real_number(
            help="GiB of activations that may be kept, so that each image goes through the model once; where they take "
            "more, twice. The result is the same."
        ),
    ] = 1.0,
    engine: EngineName = "local",
    address: Address = None,
    device: Device = "auto",
    seed: Seed = 0,
    workers: Workers = None,
    quiet: Quiet = False,
    show: Annotated[bool, typer.Option("--list", help="Describe all kinds of annotated images, and stop.")] = False,
) -> None:
    """Find out which concepts hidden units detect (network dissection): a page, tables, a summary, a figure."""
    if show:
        _describe_concepts()
        return
    if not concepts:
        given = "nothing" if concepts is None else "''"
        raise bad_parameter("--concepts", "must say where annotated images are", given, "To see what it takes: --list.")

    from whyfooled.classifier.borrowing import one_thread
    from whyfooled.classifier.layers import LAST_STAGE
    from whyfooled.images import output_folder
    from whyfooled.tensors.randomness import choose
    from whyfooled.units import dissect as dissect_units
    from whyfooled.units import dissection_summary, open_concepts
    from whyfooled.units.dissection.page import write_files, write_summary
    from whyfooled.units.dissection.unfinished import discard_unfinished

    with output_folder(output) as staging, plain_warnings(), one_thread(workers):
        annotated = open_concepts(concepts, colours)
        if count is not None:
            annotated = annotated.only(choose(len(annotated), count, seed))
        with show_stages(quiet) as progress:
            progress(0, 1, "loading")
            classifier = model.load(device, seed)
            progress(1, 1, "loading")
            dissection = dissect_units(
                classifier,
                layer or LAST_STAGE,
                annotated,
                top=top,
                cutoff=cutoff,
                permutations=permutations,
                batch_size=batch_size,
                memory=memory,
                seed=seed,
                workers=workers,
                engine=engine,
                address=address,
                model=model.recipe(seed),
                unfinished=output,
                progress=progress,
            )
            write_files(dissection, staging, progress)
    discard_unfinished(output)
    if not quiet:
        print(write_summary(dissection, dissection_summary(dissection)))
        print(
            f"Written: {output}: index.html, figure.png, units.csv, units.parquet, overlaps.parquet, summary.md, "
            "summary.tex"
        )


def _describe_concepts() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from whyfooled.units import CONCEPTS

    console = Console(highlight=False)
    console.print("[bold]Annotated images[/bold] (--concepts)\n")
    table = Table.grid(padding=(0, 2))
    for card in CONCEPTS.values():
        table.add_row(f"  [bold cyan]{escape(card.form)}[/bold cyan]", escape(card.summary))
    console.print(table)


@app.command()
@takes_model
@interruptible("Stopped.")
def layers(
    model: ModelOptions = LITE0,
    every: Annotated[
        bool, typer.Option("--all", help="Those without places too, which have no units to dissect.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="As comma-separated values.")] = False,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """List a model's layers in the order in which they run: their class, output, units, and places of each unit."""
    import pandas as pd

    from whyfooled.classifier.layers import LAST_STAGE, Layer, choose_layers, list_layers

    with plain_warnings():
        classifier = model.load(device, seed)
        known = list_layers(classifier)
        # Without any, a list of those that there are is what helps.
        last = choose_layers(classifier, LAST_STAGE) if not every or any(one.spatial for one in known) else ()

    def row(layer: Layer) -> dict[str, Any]:
        return {
            "layer": layer.name,
            "class": layer.kind,
            "output": "x".join(map(str, layer.shape)) or "one number",
            "units": layer.units if layer.spatial else "-",
            "places": layer.places if layer.spatial else "-",
            "dissect": LAST_STAGE if layer in last else "yes" if layer.spatial else "no",
        }

    table = pd.DataFrame([row(one) for one in known if every or one.spatial])
    if csv:
        table.to_csv(sys.stdout, index=False)
    else:
        _print_columns(table)


def _print_columns(table: Any) -> None:
    """Print a table with a line for each row: text at the left of its column, numbers at the right."""
    numbers = {"units", "places"}
    lines = [list(table.columns), *(list(map(str, line)) for line in table.itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(table.columns, line, widths, strict=True)
        )
        print("  ".join(cells).rstrip())
