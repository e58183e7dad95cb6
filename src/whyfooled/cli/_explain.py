"""``whyfooled explain``."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whyfooled.cli._app import (
    Device,
    Epsilon,
    Figures,
    Quiet,
    RegionNames,
    Seed,
    Steps,
    Workers,
    app,
    check_figures,
    interruptible,
    output_option,
    plain_warnings,
    say,
    whole_number,
)
from whyfooled.cli._model import LITE0, ModelOptions, describe_run, takes_model
from whyfooled.cli._progress import show_explained, show_stages
from whyfooled.errors import bad_parameter

if TYPE_CHECKING:
    from whyfooled.classifier import Classifier
    from whyfooled.defences import Calibration
    from whyfooled.types import Progress

_UNTRAINED = "The model is untrained, so what it sees means nothing."
_STARTED = time.perf_counter()


@app.command()
@takes_model
@interruptible("Stopped. Nothing was written.")
def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="The photograph, or several, or folders of them; an example (a cup of coffee) if left out."
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            help="The attack, such as cw, bim or 'pgd(steps=40, epsilon=4/255)'. See: whyfooled methods.",
            show_default="cw",
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
    labels: Annotated[
        Path | None,
        typer.Option(help="A CSV file with the columns file and label: what each of several photographs shows."),
    ] = None,
    count: Annotated[
        int | None, whole_number(help="How many of several photographs to draw at random; all if left out.")
    ] = None,
    model: ModelOptions = LITE0,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Saliency methods to show beside the enhanced map, separated by commas, or 'all'. "
            "See: whyfooled methods.",
            show_default="guided,gradient,input-x-gradient,gradcam",
        ),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            help="A universal perturbation of `whyfooled universal fit`: see how much it changes the photograph's maps."
        ),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Bring the perturbation of --trust to the model's input size.")
    ] = False,
    units: Annotated[
        Path | None,
        typer.Option(help="The folder of a dissection of this model: see what the attack does to hidden units."),
    ] = None,
    checks: Annotated[
        bool | None,
        typer.Option(
            "--checks/--no-checks",
            help="See whether each map passes sanity checks: it hardly changes under noise and other seeds, and "
            "depends on the weights. --checks runs an attack with a seed once more.",
            show_default="where it takes little",
        ),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            help="A label map of the photograph, .npy or a picture of whole numbers: see on which region it acts."
        ),
    ] = None,
    names: RegionNames = None,
    attack_in: Annotated[
        str | None, typer.Option(help="The region of --regions, by name, in which alone the attack may act.")
    ] = None,
    forge: Annotated[
        bool,
        typer.Option("--forge", help="Try to forge the explanation: could its map look as if there were no attack?"),
    ] = False,
    detector: Annotated[
        str | None,
        typer.Option(
            help="A detector, such as median or 'noise(sigma=4/255)': would it have flagged the image? Needs --clean. "
            "See: whyfooled detect --list."
        ),
    ] = None,
    clean: Annotated[
        list[Path] | None,
        typer.Option(help="Images that nobody has attacked, which --detector learns from; may be repeated."),
    ] = None,
    epsilon: Epsilon = None,
    steps: Steps = None,
    figures: Figures = None,
    output: Annotated[Path, output_option("The folder to write.")] = Path("whyfooled-out"),
    device: Device = "cpu",
    seed: Seed = 0,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Attack photographs and explain why the classifier is fooled: a report, pictures, numbers, tensors of each.

    Of several photographs there is an index too, and a stopped run goes on where it was.
    """
    # Only what an early mistake needs comes before the imports that take seconds.
    check_figures(figures)
    overrides: dict[str, object] = {
        name: value for name, value in {"epsilon": epsilon, "steps": steps}.items() if value is not None
    }
    if adversarial is not None and (attack is not None or overrides):
        given = "--attack" if attack is not None else f"--{next(iter(overrides))}"
        raise bad_parameter(
            "--adversarial", f"takes the place of an attack and excludes {given}", adversarial, "Give one."
        )
    for option, value in {"--names": names, "--attack-in": attack_in}.items():
        if value is not None and regions is None:
            raise bad_parameter(option, "is about the regions of --regions", "no --regions", "Give both, or neither.")
    if attack_in is not None and adversarial is not None:
        raise bad_parameter("--attack-in", "is for an attack that is run here", "--adversarial", "Give one.")
    if label is not None and labels is not None:
        raise bad_parameter("--labels", "takes the place of --label", labels, "Give one.")
    if (detector is None) != (not clean):
        given, missing = ("--clean", "--detector") if detector is None else ("--detector", "--clean")
        raise bad_parameter(given, f"goes together with {missing}", f"no {missing}")
    if resize and trust is None:
        raise bad_parameter("--resize", "is for the perturbation of --trust", "no --trust")

    from dataclasses import replace

    from whyfooled.classifier.borrowing import one_thread
    from whyfooled.classifier.zoo import RANDOM
    from whyfooled.explanations.of_image import explain as explain_image
    from whyfooled.explanations.shown_maps import make_methods
    from whyfooled.images import (
        example_photograph,
        is_folder,
        is_tensor_file,
        output_folder,
        photographs_in,
        read_photograph,
    )
    from whyfooled.registry import parse, split_list, with_seed
    from whyfooled.universal import UniversalPerturbation

    image = images[0] if images else None
    chosen = None if methods is None else split_list(methods)
    # So that a mistake in them is said before the model is loaded.
    make_methods(chosen or (), seed)
    watcher = None if detector is None else with_seed(parse("detectors", detector, argument="--detector"), seed)
    if images and (len(images) > 1 or is_folder(images[0])):
        for option, value in {"--adversarial": adversarial, "--regions": regions}.items():
            if value is not None:
                raise bad_parameter(option, "belongs to one photograph", f"{value} for several", "Give one photograph.")
        photographs_in(images)
        with plain_warnings(), one_thread(workers):
            _explain_many(
                images,
                output,
                load=lambda: model.load(device, seed),
                quiet=quiet,
                resize=resize,
                trust=trust,
                attack=parse("attacks", attack or "cw", overrides),
                label=label,
                labels=labels,
                target=target,
                methods=chosen,
                units=units,
                checks=checks,
                forge=forge,
                detector=watcher,
                clean=clean or [],
                run_as=describe_run(model),
                figures=figures,
                count=count,
                seed=seed,
                about={"weights": model.weights, **model.recipe(seed).identity()},
            )
        return
    several: dict[str, object] = {"--count": count, "--labels": labels}
    for option, setting in several.items():
        if setting is not None:
            raise bad_parameter(option, "is for several photographs, or folders of them", setting)

    with output_folder(output) as staging, plain_warnings(), one_thread(workers):
        made: Any = None if adversarial is not None else parse("attacks", attack or "cw", overrides)
        universal = None if trust is None else UniversalPerturbation.load(trust)
        photograph: Any = image
        if image is None or not is_tensor_file(image):
            photograph = example_photograph() if image is None else read_photograph(image)
        with show_stages(quiet) as progress:
            progress(0, 1, "loading")
            classifier = model.load(device, seed)
            loading = time.perf_counter() - _STARTED
            progress(1, 1, "loading")
            # What draws the report is imported beside the attack, on another core.
            Thread(target=import_module, args=("whyfooled.explanations.report.folder",)).start()
            if model.weights == RANDOM:
                say(f"Warning: {_UNTRAINED}")
            if universal is not None and resize:
                universal = universal.resized(classifier.size)
            explanation = explain_image(
                classifier,
                photograph,
                attack=made,
                adversarial=adversarial,
                label=label,
                target=target,
                methods=chosen,
                trust=universal,
                units=units,
                regions=regions,
                names=names,
                attack_in=attack_in,
                checks=checks,
                forge=forge,
                detector=_calibrate(classifier, watcher, clean or [], seed, progress),
                seed=seed,
                progress=progress,
            )
        from whyfooled.explanations.report.folder import write_files

        explanation = replace(
            explanation,
            notes=(*([_UNTRAINED] if model.weights == RANDOM else []), *explanation.notes),
            parameters={**explanation.parameters, **_name_given_files(image, trust), **describe_run(model)},
            seconds={"starting and loading the model": loading, **explanation.seconds},
        )
        write_files(explanation, explanation.to_dict(), staging, figures)
    if not quiet:
        print(f"{explanation.summary()}\n\nReport: {output / 'report.html'}")


def _explain_many(
    images: list[Path],
    output: Path,
    *,
    load: Callable[[], Classifier],
    quiet: bool,
    resize: bool,
    trust: Path | None,
    detector: Any,
    clean: list[Path],
    run_as: dict[str, str],
    **more: Any,
) -> None:
    """Explain several photographs, each by itself, and print what the reports come to."""
    from whyfooled.classifier.zoo import RANDOM
    from whyfooled.explanations.of_files import PAGE_FILE, explain_files
    from whyfooled.explanations.report.index import write_index_sentences
    from whyfooled.universal import UniversalPerturbation

    if more["about"]["weights"] == RANDOM:
        say(f"Warning: {_UNTRAINED}")
    with (
        interruptible("Stopped. What was finished is kept: the same command goes on from there."),
        show_explained(quiet) as progress,
    ):
        classifier = load()
        resized = UniversalPerturbation.load(trust).resized(classifier.size) if trust is not None and resize else trust
        table = explain_files(
            classifier,
            images,
            output,
            trust=resized,
            detector=_calibrate(classifier, detector, clean, more["seed"]),
            run_as=run_as,
            notes=[_UNTRAINED] if more["about"]["weights"] == RANDOM else [],
            report=progress,
            **more,
        )
    if not quiet:
        rows = [{str(key): value for key, value in row.dropna().items()} for _, row in table.iterrows()]
        print("\n".join([*write_index_sentences(rows), "", f"Index: {output / PAGE_FILE}"]))


def _calibrate(
    classifier: Classifier, detector: Any, clean: list[Path], seed: int, progress: Progress | None = None
) -> Calibration | None:
    """Calibrate the detector that was asked for, if one was."""
    if detector is None:
        return None
    from whyfooled.defences.files import calibrate_on_files
    from whyfooled.types import silent

    return calibrate_on_files(classifier, clean, detector, seed=seed, progress=progress or silent)


def _name_given_files(image: Path | None, trust: Path | None) -> dict[str, str]:
    """Name the files that were given, without their folders."""
    from whyfooled.running.publishing import hide_folders

    named = {"image": "the example photograph" if image is None else hide_folders(str(image))}
    return named if trust is None else {**named, "trust": hide_folders(str(trust))}
