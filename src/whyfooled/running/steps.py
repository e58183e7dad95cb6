"""How a command tells another program how far it is: a line of JSON on stderr for each step, if it is asked to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import final

VARIABLE, LINES = "WHYFOOLED_PROGRESS", "json"
"""The variable of the environment by which a program asks for them, and its value."""


@final
@dataclass(frozen=True)
class Step:
    """How far a stage of the work is.

    Parameters
    ----------
    stage
        What is being done.
    done, total
        How much of it is done, of how much.
    """

    stage: str
    done: float
    total: float


def write_step(step: Step) -> str:
    """Write a step as one line."""
    return json.dumps({"stage": step.stage, "done": step.done, "total": step.total})


def read_step(line: str) -> Step | None:
    """Read a line that `write_step` wrote; None for any other."""
    try:
        read = json.loads(line)
        return Step(str(read["stage"]), float(read["done"]), float(read["total"]))
    except (ValueError, TypeError, KeyError):
        return None
