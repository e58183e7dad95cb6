"""``whyfooled units explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whyfooled.cli._app import (
    Device,
    Figures,
    Quiet,
    Seed,
    app,
    check_figures,
    interruptible,
    output_option,
    plain_warnings,
)
from whyfooled.cli._model import LITE0, ModelOptions, describe_run, takes_model
from whyfooled.cli._pair import Adversarial, Clean, Label, Target, read_pair
from whyfooled.cli._progress import show_stages

units = typer.Typer(no_args_is_help=True, help="What an attack does to hidden units.")
app.add_typer(units, name="units")


@units.command()
@takes_model
@interruptible("Stopped. Nothing was written.")
def explain(
    clean: Clean,
    dissection: Annotated[
        Path, typer.Option("--dissection", "--units", help="The folder of a dissection of this model.")
    ],
    adversarial: Adversarial = None,
    label: Label = None,
    target: Target = None,
    model: ModelOptions = LITE0,
    figures: Figures = None,
    output: Annotated[Path, output_option("The folder to write.")] = Path("whyfooled-out"),
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Show what an attack does to hidden units: which change, what they detect, and what that does to the logits."""
    check_figures(figures)

    from dataclasses import replace

    from whyfooled.explanations.of_pair import explain_units
    from whyfooled.explanations.report.folder import write_files
    from whyfooled.images import output_folder

    with output_folder(output) as staging, plain_warnings():
        before, after = read_pair(clean, adversarial)
        with show_stages(quiet) as progress:
            progress(0, 1, "loading")
            classifier = model.load(device, seed)
            progress(1, 1, "loading")
            explanation = explain_units(
                classifier, before, after, dissection, label=label, target=target, seed=seed, progress=progress
            )
        explanation = replace(explanation, parameters={**explanation.parameters, **describe_run(model)})
        write_files(explanation, explanation.to_dict(), staging, figures)
    if not quiet:
        print(f"{explanation.summary()}\n\nReport: {output / 'report.html'}")
