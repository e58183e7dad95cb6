"""The command line: parses, calls the library, prints. Heavy imports happen inside the commands."""

import atexit
import gc
import os
import sys

from whyfooled.cli import (
    _attack,
    _classes,
    _detect,
    _dissect,
    _explain,
    _methods,
    _page,
    _perturbation,
    _study,
    _units,
    _universal,
)
from whyfooled.cli._app import app, say, terminable
from whyfooled.cli._spelling import spell_options
from whyfooled.errors import WhyfooledError
from whyfooled.running.memory import share_freed_memory

__all__ = ["main"]

# Importing a command adds it to the application; in the order of the help.
_COMMANDS = (_explain, _page, _perturbation, _classes, _dissect, _units, _attack, _detect, _universal, _study, _methods)

# At its end Python looks through all that is left for what could be deleted, which takes a second or two of a command.
atexit.register(gc.freeze)


# So that a GPU's matrix products give the same each time. It is read when they are first computed.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def main() -> None:
    """Run the command line; an error of ours becomes one sentence and exit code 2."""
    share_freed_memory()
    try:
        with terminable():
            app()
    except WhyfooledError as error:
        say(f"Error: {spell_options(str(error), sys.argv[1:])}")
        sys.exit(2)
