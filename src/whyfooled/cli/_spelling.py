"""What the library's messages call a parameter, spelt as the options that were given."""

from __future__ import annotations

import re
from collections.abc import Sequence

_INPUTS = ("--mean", "--std", "--channels", "--layout", "--scale", "--input-scale", "--size")
"""What the parameter ``inputs`` is made of."""

_OTHERWISE = {"output": "--model-output", "scale": "--input-scale", "layers": "--layer"}
"""Options that are not called as the parameters that they set."""


def spell_options(message: str, arguments: Sequence[str]) -> str:
    """Put options in the place of the parameters in a message, where they were given; a file of names by its name.

    Parameters
    ----------
    message
        The message, its parameters between backticks.
    arguments
        What was given on the command line.
    """
    given = _read_options(arguments)

    def spell(parameter: re.Match[str]) -> str:
        name = parameter[1]
        if name == "class_names" and given.get("--class-names"):
            return given["--class-names"]
        spellings = [f"--{name.replace('_', '-')}", _OTHERWISE.get(name, "")]
        options = [each for each in (_INPUTS if name == "inputs" else spellings) if each in given]
        if name != "inputs":
            options = options[-1:] if name in _OTHERWISE else options
        return ", ".join(f"`{option}`" for option in options) or parameter[0]

    return re.sub(r"`(\w+)`", spell, message)


def _read_options(arguments: Sequence[str]) -> dict[str, str]:
    """Return the long options that were given, each with what stands behind it."""
    given = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            given[option] = value if equals else "" if following.startswith("--") else following
    return given
