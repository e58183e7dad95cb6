"""``whyfooled app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whyfooled.cli._app import Device, Workers, app, interruptible, output_option, say, whole_number
from whyfooled.cli._model import LITE0, ModelOptions, takes_model
from whyfooled.errors import bad_parameter

_COMMAND = "explain"
_MOST = 65535


def _check_port(port: int | None) -> int | None:
    if port is not None and not 0 <= port <= _MOST:
        raise bad_parameter("--port", f"must be from 0 to {_MOST}", port)
    return port


@app.command("app")
@takes_model
@interruptible("The page is closed.")
def open_page(
    output: Annotated[Path, output_option("The folder for the folders of all runs.")] = Path("whyfooled-runs"),
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; at 0.0.0.0 everyone who reaches this machine can use the page."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        whole_number(
            help="The port; 0 for any that is free.", show_default="7860, or the next free", callback=_check_port
        ),
    ] = None,
    model: ModelOptions = LITE0,
    units: Annotated[
        Path | None, typer.Option(help="The folder of a dissection of this model, for every report on it.")
    ] = None,
    device: Device = "cpu",
    workers: Workers = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Open a page on this machine for the browser: drop a photograph, see why the model is fooled.

    It runs `whyfooled explain`, one after another. What is said here of a model holds for it; visitors may choose
    others by name, and no file of this machine.
    """
    from whyfooled.app.request import Started
    from whyfooled.app.server import serve
    from whyfooled.classifier.zoo import list_installed

    started = Started(
        model=model.model,
        model_arguments=tuple(_write_options(model)),
        dissection=("--units", str(units)) if units is not None else (),
        arguments=(
            *(("--device", device) if device != "cpu" else ()),
            *(("--workers", str(workers)) if workers is not None else ()),
        ),
        models=list_installed(),
    )

    def ready(address: str) -> None:
        say(f"The page is at {address} and its runs in {output}. Ctrl-C closes it.")
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(output, started, _describe_options(), host=host, port=port, ready=ready)


def _write_options(model: ModelOptions) -> list[str]:
    """Write what was said of the model, but for its name, as it was said."""
    written: list[str] = []
    for name, value in vars(model).items():
        option = f"--{name.replace('_', '-')}"
        if name != "model" and value != getattr(LITE0, name):
            written += [option] if value is True else [option, str(value)]
    return written


def _describe_options() -> dict[str, str]:
    """Return what the help of the command says of each of its parameters."""
    command = typer.main.get_command(app)
    parameters = command.commands[_COMMAND].params  # type: ignore[attr-defined]
    return {parameter.name: parameter.help or "" for parameter in parameters}
