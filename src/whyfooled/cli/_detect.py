"""``whyfooled detect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from whyfooled.cli._app import (
    Device,
    Quiet,
    Seed,
    Workers,
    app,
    interruptible,
    output_option,
    plain_warnings,
    real_number,
    say,
    whole_number,
    write_command,
)
from whyfooled.cli._methods import describe_all
from whyfooled.cli._model import LITE0, ModelOptions, takes_model
from whyfooled.cli._progress import show_stages
from whyfooled.errors import OutputError, bad_parameter

_SHOWN = 60
"""Rows of a table that is printed; a longer one is in the file alone."""


@app.command()
@takes_model
@interruptible("Stopped. Nothing was written.")
def detect(
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Photographs, folders of them, folders that `whyfooled attack` wrote, or tensors."),
    ] = None,
    clean: Annotated[
        list[Path] | None,
        typer.Option(help="Images that nobody has attacked, like the others in every other way; may be repeated."),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector, such as median or 'noise(sigma=4/255)', or all; may be repeated.", show_default="median"
        ),
    ] = None,
    false_positives: Annotated[float, real_number(help="The share of clean images that may be flagged.")] = 0.05,
    count: Annotated[int, whole_number(help="Clean images to take, drawn at random.")] = 200,
    output: Annotated[Path, output_option("The file to write: .csv or .json.")] = Path("detections.csv"),
    model: ModelOptions = LITE0,
    batch_size: Annotated[int, whole_number(help="Images judged together.")] = 8,
    device: Device = "cpu",
    seed: Seed = 0,
    workers: Workers = None,
    quiet: Quiet = False,
    show: Annotated[
        bool, typer.Option("--list", help="Describe all detectors and their parameters, and stop.")
    ] = False,
) -> None:
    """Say of each image whether it looks attacked, by how unusual it is among clean images."""
    if show:
        describe_all("detectors", texts=True)
        return
    if not images:
        raise bad_parameter("IMAGES", "must be photographs or folders of them", "none", "To see the detectors: --list.")
    if not clean:
        fix = "What a score means is told by clean images: photographs that nobody has attacked."
        raise bad_parameter("--clean", "must be a folder of clean images", "none", fix)
    if output.suffix.lower() not in (".csv", ".json"):
        raise OutputError(f"`--output` must end in .csv or .json; got {output.name!r}.")

    from whyfooled.classifier.borrowing import one_thread
    from whyfooled.defences.files import detect_files
    from whyfooled.images import check_output_file, write_whole

    check_output_file(output)
    with plain_warnings(), one_thread(workers), show_stages(quiet) as progress:
        detections = detect_files(
            model.load(device, seed),
            images,
            clean,
            _make_detectors(detector or ["median"], seed),
            false_positives=false_positives,
            count=count,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
    if output.suffix.lower() == ".csv":
        write_whole(output, detections.frame.to_csv(index=False).encode())
    else:
        write_whole(output, _as_json(detections, model.model).encode())
    for name, reason in detections.errors.items():
        say(f"Left out: {name}: {reason}")
    if not quiet:
        if len(detections.frame) <= _SHOWN:
            _print_table(detections.frame)
        print(detections.summary())
        print(f"\nWritten: {output}")


def _make_detectors(texts: list[str], seed: int) -> list[Any]:
    """Make detectors from their names, each option a list of them; each once, where `all` names one again."""
    from whyfooled.registry import EVERY, make_every, parse, split_list, with_seed

    made: dict[Any, None] = {}
    for text in [name for option in texts for name in split_list(option)]:
        detectors = make_every("detectors") if text == EVERY else [parse("detectors", text, argument="--detector")]
        made |= dict.fromkeys(with_seed(one, seed) for one in detectors)
    if not made:
        raise bad_parameter("--detector", "must name at least one detector", repr(" ".join(texts)))
    return list(made)


def _as_json(detections: Any, model: str) -> str:
    """Write detections as JSON, with what they are to be read by."""
    rows = json.loads(detections.frame.to_json(orient="records"))
    about = {
        "command": write_command(),
        "model": model,
        "false_positives": detections.false_positives,
        "clean_images": detections.clean,
        "summary": detections.summary().splitlines(),
        "left_out": detections.errors,
    }
    return json.dumps({**about, "rows": rows}, indent=2, ensure_ascii=False) + "\n"


def _print_table(frame: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "prediction", "detector", "score", "threshold", "p", "", box=None, pad_edge=False)
    for row in frame.itertuples():
        threshold = "" if row.threshold != row.threshold else f"{row.threshold:.3g}"
        cells = [row.file, row.prediction, row.detector, f"{row.score:.3g}", threshold, f"{row.p_value:.3f}"]
        table.add_row(*map(escape, cells), "flagged" if row.flagged else "")
    console = Console(highlight=False)
    console.print(table)
    console.print()
