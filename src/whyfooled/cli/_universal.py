"""``whyfooled universal fit`` and ``whyfooled universal test``."""

from __future__ import annotations

from contextlib import nullcontext
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
    whole_number,
)
from whyfooled.cli._methods import describe_all
from whyfooled.cli._model import LITE0, ModelOptions, takes_model
from whyfooled.cli._progress import show_fit
from whyfooled.errors import bad_parameter

universal = typer.Typer(no_args_is_help=True, help="One perturbation that breaks the saliency maps of most images.")
app.add_typer(universal, name="universal")

Images = Annotated[
    list[str] | None,
    typer.Option(
        help="Where the images come from: a file, a folder, imagenet:ROOT, ... as for whyfooled study. Photographs can "
        "be given several times."
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="A CSV file with the columns file and label: what photographs show. Those that the model gets wrong are "
        "left out."
    ),
]
Count = Annotated[int | None, whole_number(help="How many images to draw at random; all if left out.")]
BatchSize = Annotated[
    int | None,
    whole_number(help="Images worked on together; as many as fit if left out. On a CPU large ones go one at a time."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto: the GPU if there is one.")]


@universal.command()
@takes_model
@interruptible("Stopped. Nothing was written.")
def fit(
    method: Annotated[
        str, typer.Option(help="How to find it, such as grad, pca or 'pca(contrast=0.5)'. See: --list.")
    ] = "grad",
    images: Images = None,
    output: Annotated[Path, output_option("The .safetensors file to write.")] = Path("delta.safetensors"),
    epsilon: Annotated[
        str | None,
        typer.Option(help="Its largest size: the radius of the ball, on the scale of --scale.", show_default="10"),
    ] = None,
    ball: Annotated[
        str | None, typer.Option(help="l2: --epsilon is a Euclidean length; linf: a largest change.", show_default="l2")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="The value of white that --epsilon is given for: 1 or 255.", show_default="1")
    ] = None,
    saliency: Annotated[
        str, typer.Option(help="The method whose maps are to change; one that can be differentiated.")
    ] = "gradient",
    labels: Labels = None,
    model: ModelOptions = LITE0,
    count: Count = None,
    engine: EngineName = "local",
    address: Address = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
    show: Annotated[
        bool, typer.Option("--list", help="Describe all ways to find one and their parameters, and stop.")
    ] = False,
) -> None:
    """Find one small perturbation that breaks the saliency maps of most images, and write it to a file."""
    if show:
        describe_all("universal", texts=True)
        return
    place = _require_images(images)
    if output.suffix != ".safetensors":
        raise bad_parameter("--output", "must be a .safetensors file", output)

    from whyfooled.images import check_output_file
    from whyfooled.registry import parse, with_seed
    from whyfooled.sources import open_source

    options = {"epsilon": epsilon, "ball": ball, "scale": scale}
    overrides = {name: value for name, value in options.items() if value is not None}
    made = with_seed(parse("universal", method, overrides, argument="--method"), seed)
    maps = with_seed(parse("saliency", saliency, argument="--saliency"), seed)
    check_output_file(output)
    with plain_warnings(), show_fit(quiet) as progress:
        source = open_source(place, labels)
        progress(0, 1, "loading")
        classifier = model.load(device, seed)
        progress(1, 1, "loading")
        perturbation = made.fit(
            classifier,
            source,
            maps,
            count=count,
            batch_size=batch_size,
            engine=engine,
            address=address,
            workers=workers,
            progress=progress,
        )
        perturbation.save(output)
    if not quiet:
        from whyfooled.universal.account import write_fit_account

        print(write_fit_account(perturbation))
        print(f"\nWritten: {output}. To see what it does to other images: whyfooled universal test {output} --images …")


@universal.command("test")
@takes_model
@interruptible("Stopped. Nothing was written.")
def evaluate_perturbation(
    perturbation: Annotated[Path, typer.Argument(help="The .safetensors file of a universal perturbation.")],
    images: Images = None,
    saliency: Annotated[
        str | None, typer.Option(help="The method whose maps are looked at.", show_default="the one it was fitted to")
    ] = None,
    labels: Labels = None,
    model: ModelOptions = LITE0,
    count: Count = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Bring the perturbation to the model's input size, its norm kept.")
    ] = False,
    output: Annotated[Path | None, output_option("A folder for the table, the summary and a figure.")] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write into PERTURBATION what share of the images it alters; whyfooled explain --trust then says so.",
        ),
    ] = False,
    batch_size: BatchSize = None,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Measure what a universal perturbation does to images that it was not fitted to, beside what chance does."""
    place = _require_images(images)
    if record and resize:
        raise bad_parameter("--record", "is for the perturbation as it is", "--resize too", "Leave one out.")

    from whyfooled.images import output_folder
    from whyfooled.registry import parse, with_seed
    from whyfooled.sources import open_source
    from whyfooled.universal import UniversalPerturbation, evaluate
    from whyfooled.universal.account import write_evaluation_remarks, write_evaluation_summary
    from whyfooled.universal.files import TITLE, write_test

    folder: Any = nullcontext() if output is None else output_folder(output, replaced=())
    with folder as staging, plain_warnings():
        given = UniversalPerturbation.load(perturbation)
        maps = with_seed(parse("saliency", saliency or given.saliency or "gradient", argument="--saliency"), seed)
        source = open_source(place, labels)
        with show_fit(quiet) as progress:
            progress(0, 1, "loading")
            classifier = model.load(device, seed)
            progress(1, 1, "loading")
            resized = given.resized(classifier.size) if resize else given
            evaluation = evaluate(
                classifier, resized, source, maps, count=count, seed=seed, batch_size=batch_size, progress=progress
            )
        summary = write_evaluation_summary(evaluation, write_evaluation_remarks(given, evaluation, classifier, source))
        if staging is not None:
            write_test(evaluation, summary, staging, (f"{perturbation}, seed {seed}.",))
    if record:
        evaluation.record(classifier).save(perturbation)
    if not quiet:
        print(summary.markdown(TITLE))
        if output is not None:
            print(f"Written: {output}: table.parquet, table.csv, summary.md, summary.tex, figure.png")


def _require_images(images: list[str] | None) -> Any:
    """Return what `open_source` opens."""
    if not images or not all(images):
        fix = "To see what it takes: whyfooled study --list."
        raise bad_parameter("--images", "must say where the images come from", "''" if images else "nothing", fix)
    return images[0] if len(images) == 1 else images
