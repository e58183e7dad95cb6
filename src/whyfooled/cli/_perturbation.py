"""``whyfooled perturbation``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from whyfooled.cli._app import (
    Device,
    Figures,
    Quiet,
    RegionNames,
    Seed,
    app,
    check_figures,
    interruptible,
    output_option,
    plain_warnings,
    whole_number,
)
from whyfooled.cli._model import LITE0, ModelOptions, describe_run, takes_model
from whyfooled.cli._pair import Adversarial, Clean, Label, Target, read_pair
from whyfooled.cli._progress import show_stages
from whyfooled.errors import bad_parameter


@app.command()
@takes_model
@interruptible("Stopped. Nothing was written.")
def perturbation(
    clean: Clean,
    adversarial: Adversarial = None,
    label: Label = None,
    target: Target = None,
    cell: Annotated[
        int | None,
        whole_number(help="Side of a region, in pixels.", show_default="13 of every 224 pixels of the shorter side"),
    ] = None,
    superpixels: Annotated[
        int | None, whole_number(help="Take about so many superpixels as regions, in place of a grid.")
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(help="Take the regions of a label map, in place of a grid: .npy, or a picture of whole numbers."),
    ] = None,
    names: RegionNames = None,
    cam: Annotated[
        str | None,
        typer.Option(
            help="The maps that the perturbation is compared with, such as gradcam, gradcampp or cam.",
            show_default="gradcam",
        ),
    ] = None,
    model: ModelOptions = LITE0,
    figures: Figures = None,
    output: Annotated[Path, output_option("The folder to write.")] = Path("whyfooled-out"),
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Show what a perturbation does, region by region: where it holds the true class down, where it lifts the other."""
    check_figures(figures)
    given = {"--cell": cell, "--superpixels": superpixels, "--regions": regions}
    chosen = [option for option, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise bad_parameter(chosen[1], f"excludes {chosen[0]}", given[chosen[1]], "Give one.")

    if names is not None and regions is None:
        raise bad_parameter("--names", "is about the regions of --regions", "no --regions", "Give both, or neither.")

    from dataclasses import replace

    from whyfooled.explanations.of_pair import explain_perturbation
    from whyfooled.explanations.report.folder import write_files
    from whyfooled.images import output_folder
    from whyfooled.images.label_maps import read_label_map
    from whyfooled.perturbation import Grid, Superpixels
    from whyfooled.registry import parse

    with output_folder(output) as staging, plain_warnings():
        maps: Any = None if cam is None else parse("saliency", cam, argument="--cam")
        parts: Any = Grid(cell) if superpixels is None else Superpixels(superpixels)
        if regions is not None:
            parts = read_label_map(regions)
        before, after = read_pair(clean, adversarial)
        with show_stages(quiet) as progress:
            progress(0, 1, "loading")
            classifier = model.load(device, seed)
            progress(1, 1, "loading")
            explanation = explain_perturbation(
                classifier,
                before,
                after,
                label=label,
                target=target,
                regions=parts,
                names=names,
                cam=maps,
                seed=seed,
                progress=progress,
            )
        explanation = replace(explanation, parameters={**explanation.parameters, **describe_run(model)})
        write_files(explanation, explanation.to_dict(), staging, figures)
    if not quiet:
        print(f"{explanation.summary()}\n\nReport: {output / 'report.html'}")
