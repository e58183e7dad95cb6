"""The command line's application, and what its commands share: options, warnings, interruption."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from whyfooled._version import __version__
from whyfooled.errors import OutputError, WhyfooledWarning, check_seed, one_of

INTERRUPTED, TERMINATED = 130, 143
FORMATS = ("pdf", "svg", "png")
"""The formats that figures are written in."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Why an image classifier was fooled, and whether an explanation can be trusted.",
)


def _check_seed(seed: int) -> int:
    check_seed(seed, "--seed")
    return seed


def _read_number(kind: type, called: str) -> Callable[[str | float], Any]:
    def read(text: str | float) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"{called} is needed; got {text!r}.") from None

    return read


def whole_number(help: str, **more: Any) -> Any:
    """Make an option that takes a whole number."""
    return typer.Option(help=help, parser=_read_number(int, "a whole number"), metavar="<int>", **more)


def real_number(help: str, **more: Any) -> Any:
    """Make an option that takes a number."""
    return typer.Option(help=help, parser=_read_number(float, "a number"), metavar="<float>", **more)


# The options that several commands share.
Epsilon = Annotated[str | None, typer.Option(help="The attack's radius, for values from 0 to 1: 4/255, 0.5/255.")]
Steps = Annotated[int | None, whole_number(help="The attack's steps.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")]
Seed = Annotated[int, whole_number(help="Seed of everything random.", callback=_check_seed)]
RegionNames = Annotated[
    Path | None,
    typer.Option("--names", help="What the labels of --regions are called: a line for each, the first for 0; or CSV."),
]
Figures = Annotated[
    str | None,
    typer.Option(help="Write every picture and panel once more, one a file, for a paper: pdf, svg or png."),
]
EngineName = Annotated[str, typer.Option(help="local, or ray: the machines of a Ray cluster.")]
Address = Annotated[str | None, typer.Option(help="The Ray cluster's address; one of this machine alone if left out.")]
Workers = Annotated[
    int | None,
    whole_number(help="Over how many cores the work is shared out, all if left out; the results do not depend on it."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no account, only errors.")]


def check_figures(suffix: str | None) -> None:
    """Raise `ParameterError` if figures are asked for in a format that there is not."""
    if suffix is not None:
        one_of("--figures", suffix, FORMATS)


def _read_output(text: str | Path) -> Path:
    # An empty path would be the folder that one happens to be in.
    if not str(text):
        raise OutputError("`--output` must be a path; got ''.")
    return Path(text)


def output_option(description: str, **more: Any) -> Any:
    """Make the option that says where to write."""
    return typer.Option("--output", "-o", help=description, parser=_read_output, metavar="<path>", **more)


def write_command() -> str:
    """Write the command that runs, as it was given, but for the folders of files."""
    import shlex

    from whyfooled.running.publishing import hide_folders

    return shlex.join(["whyfooled", *map(hide_folders, sys.argv[1:])])


def say(text: str) -> None:
    """Print a line to stderr, so that what a command prints can be piped."""
    # In one call: Ctrl-C between the line and its end would leave what is said next on the same line.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class _Terminated(KeyboardInterrupt):
    """The process was asked to end, as by a scheduler; everything that cleans up after Ctrl-C does after this."""


@contextmanager
def terminable() -> Iterator[None]:
    """Make of SIGTERM an interruption like Ctrl-C, unless something else was to happen with it, and forget neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = sys.unraisablehook
    sys.unraisablehook = lambda forgotten: _ask_again(forgotten.exc_value) or usual(forgotten)
    ours = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        sys.unraisablehook = usual
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _ask_again(forgotten: BaseException | None) -> bool:
    """Ask anew to end, if that was asked where Python forgets what is raised; tell whether it was.

    It does so while an object is deleted, or something is told that it was, and goes on as if nothing had been asked.
    """
    if not isinstance(forgotten, KeyboardInterrupt):
        return False
    number = signal.SIGTERM if isinstance(forgotten, _Terminated) else signal.SIGINT
    # Not at once: what is raised in here is forgotten too.
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    return True


@contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """Make of Ctrl-C, and of SIGTERM, one sentence and the exit code that shells expect."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        say(sentence)
        raise typer.Exit(TERMINATED if isinstance(interruption, _Terminated) else INTERRUPTED) from None


def _is_of_converter(filename: str) -> bool:
    """Tell whether code of the ONNX converter's own warns: of its insides, which nobody here can change."""
    return "onnx2torch" in Path(filename).parts


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print our warnings as one sentence, and leave other libraries' to Python."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, WhyfooledWarning):
            say(f"Warning: {message}")
        elif not _is_of_converter(str(rest[0]) if rest else str(more.get("filename", ""))):
            usual(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


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
