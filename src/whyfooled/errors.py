"""The errors whyfooled raises: one base, few subclasses, one form of sentence.

Every message names the argument, the rule, the value that was found and, where it can be known, what to do. The command
line prints the sentence and exits with code 2; a traceback there is a defect.
"""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType


class WhyfooledError(Exception):
    """Base of every error that whyfooled raises on purpose."""


class ParameterError(WhyfooledError, ValueError):
    """An argument has a value that it must not have."""


class ImageError(WhyfooledError):
    """An image cannot be read or used."""


class ModelError(WhyfooledError):
    """A model cannot be loaded, or does not behave as a classifier."""


class MethodError(WhyfooledError):
    """A saliency method does not work on this model."""


class OutputError(WhyfooledError):
    """A result cannot be written where it was asked for."""


class WhyfooledWarning(UserWarning):
    """Something that does not stop the work but that its reader should know."""


_HEARD: ContextVar[list[str] | None] = ContextVar("_HEARD", default=None)
_UNSAID: ContextVar[tuple[str, ...]] = ContextVar("_UNSAID", default=())


def warn(message: str, stacklevel: int = 1) -> None:
    """Issue a `WhyfooledWarning`, or tell who is `hearing` in this context.

    Python's own way of catching warnings is the whole process's: with several threads, each would catch the others'.

    Parameters
    ----------
    message
        What to say, in sentences.
    stacklevel
        Whom the warning is shown to: 1 is the caller of this function, 2 the caller's caller.
    """
    if message.startswith(_UNSAID.get()):
        return
    heard = _HEARD.get()
    if heard is None:
        warnings.warn(message, WhyfooledWarning, stacklevel=1 + _count_frames(stacklevel))
    elif message not in heard:
        heard.append(message)


def _count_frames(stacklevel: int) -> int:
    """Return how far up the caller of a level is, for who calls this: what decorators add is nobody's level."""
    frame: FrameType | None = sys._getframe(2)
    up = 0
    while frame is not None and stacklevel > 0:
        up += 1
        stacklevel -= frame.f_globals.get("__name__") not in _DECORATORS
        frame = frame.f_back
    return up


_DECORATORS = {"contextlib", "torch.utils._contextlib"}


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Collect what would be warned of inside the block, in this context and no other; each sentence once."""
    heard: list[str] = []
    entered = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(entered)


@contextmanager
def leaving_unsaid(beginning: str) -> Iterator[None]:
    """Leave unsaid, in this context, what begins like this: for who says it in the end, of everything."""
    entered = _UNSAID.set((*_UNSAID.get(), beginning))
    try:
        yield
    finally:
        _UNSAID.reset(entered)


def bad_parameter(argument: str, rule: str, value: object, fix: str = "") -> ParameterError:
    """Make the error for a bad argument, in the one form that all of them have.

    Examples
    --------
    >>> str(bad_parameter("epsilon", "must be between 0 and 1", 4, "Did you mean 4/255?"))
    '`epsilon` must be between 0 and 1; got 4. Did you mean 4/255?'
    """
    return ParameterError(f"`{argument}` {rule}; got {value}. {fix}".rstrip())


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, without a full stop; its type's name if it says nothing."""
    line = next(iter(str(error).strip().splitlines()), "").rstrip(".:")
    # PyTorch says how to unpickle what it refuses, which is no advice to pass on.
    return line if line and "weights_only" not in line else type(error).__name__


def did_you_mean(name: str, choices: Iterable[str], most: int = 3) -> str:
    """Say which of the choices are nearest to a mistyped name; all of them when there are few, '' when none is near."""
    known = list(choices)
    by_key = {choice.lower(): choice for choice in known}
    containing = (
        [choice for key, choice in by_key.items() if re.search(rf"\b{re.escape(name.lower())}\b", key)] if name else []
    )
    near = [by_key[key] for key in difflib.get_close_matches(name.lower(), by_key, n=most, cutoff=0.5)]
    near = list(dict.fromkeys([*containing[:most], *near]))[:most]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Choose from {', '.join(known)}." if 0 < len(known) <= 12 else ""


def at_least(argument: str, value: float, bound: float) -> None:
    """Raise `ParameterError` unless ``value >= bound`` and it is finite (NaN is refused too)."""
    if not value >= bound:
        raise bad_parameter(argument, f"must be at least {bound}", value)
    if value == float("inf"):
        raise bad_parameter(argument, "must be finite", value)


def positive(argument: str, value: float) -> None:
    """Raise `ParameterError` unless the value is finite and above 0."""
    if not 0 < value < float("inf"):
        raise bad_parameter(argument, "must be a finite number above 0", value)


def check_seed(seed: int, argument: str = "seed") -> None:
    """Raise `ParameterError` for a seed that PyTorch's generators do not take."""
    if not 0 <= seed < 2**63:
        raise bad_parameter(argument, "must be a whole number from 0 to 2^63 − 1", seed)


def one_of(argument: str, value: str, choices: Iterable[str]) -> None:
    """Raise `ParameterError` unless the value is one of the choices."""
    known = list(choices)
    if value not in known:
        raise bad_parameter(argument, f"must be one of {', '.join(known)}", value)
