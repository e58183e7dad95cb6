"""Damaging files of every format that is read, and looking at what reading them comes to."""

from __future__ import annotations

import copy
import json
import multiprocessing
import random
import resource
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from whyfooled.errors import WhyfooledError

LIMIT = 20.0
"""Seconds after which a file that is not read is a hang."""
_MEMORY = 4 * 2**30
"""Bytes that reading a file may take, at most."""

_forks = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Subject:
    """One kind of file, and what reads it.

    Parameters
    ----------
    name
        What it is.
    path
        The file that is damaged.
    read
        Reads it as the package does, and returns what was read, as text.
    sealed
        Whether other values than those that were written must never come out.
    """

    name: str
    path: Path
    read: Callable[[], str]
    sealed: bool = False


@dataclass
class Outcome:
    """What the damaged files of one kind came to."""

    files: int = 0
    refused: int = 0
    tracebacks: int = 0
    hangs: int = 0
    silent: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Count what others came to, too."""
        for name in ("files", "refused", "tracebacks", "hangs", "silent", "examples"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def bad(self) -> int:
        """How many must not be."""
        return self.tracebacks + self.hangs + self.silent


def damage(subject: Subject, seeds: Sequence[int]) -> Outcome:
    """Damage a file once for each seed, and read it in a process of its own, which may die or hang."""
    outcome, left = Outcome(), list(seeds)
    whole = subject.path.read_bytes()
    while left:
        ours, theirs = _forks.Pipe(duplex=False)
        process = _forks.Process(target=_read_all, args=(subject, left, theirs))
        process.start()
        theirs.close()
        ended = ""
        while left and not ended:
            ended = _take(ours, outcome, left[0])
            left = left[1:]
        process.kill()
        process.join()
        ours.close()
        subject.path.write_bytes(whole)
    return outcome


def _take(ours: Connection, outcome: Outcome, seed: int) -> str:
    """Count what one damaged file came to; return how its process ended, if it did."""
    outcome.files += 1
    ended = ""
    try:
        said = ours.recv() if ours.poll(LIMIT) else "hang"
    except EOFError:
        said = ended = "its process died"
    if said == "hang":
        ended = said
        outcome.hangs += 1
    elif said == "refused":
        outcome.refused += 1
    elif said == "other values":
        outcome.silent += 1
    elif said != "read":
        outcome.tracebacks += 1
    if said not in ("refused", "read"):
        outcome.examples.append(f"seed {seed}: {said}")
    return ended


def _read_all(subject: Subject, seeds: Sequence[int], theirs: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_find_used_memory() + _MEMORY,) * 2)
    warnings.simplefilter("ignore")
    whole = subject.path.read_bytes()
    values = subject.read()
    for seed in seeds:
        subject.path.write_bytes(mutate(whole, random.Random(seed)))
        theirs.send(_judge(subject, values))


def _judge(subject: Subject, values: str) -> str:
    try:
        same = subject.read() == values
    except WhyfooledError as error:
        # One sentence or two, but no text of a library over many lines.
        return "refused" if "\n" not in str(error) else f"an error of several lines: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:200]
    return "read" if same or not subject.sealed else "other values"


def _find_used_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Damage a file's content: bits, length, numbers of its header, or the kind of a value in its JSON."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [_flip, _flip, _cut, _append, _splice, _splice, _blank]
    if find_json(content):
        ways += [_retype] * 4
    changed = draw.choice(ways)(content, draw)
    # A change that changes nothing is none.
    return changed if changed != content else content[:-1]


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = _draw_place(len(content), draw)
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _draw_place(length: int, draw: random.Random) -> int:
    """Draw a place anywhere, or where headers are: near the beginning or the end."""
    near = min(length, 400)
    return draw.choice((draw.randrange(length), draw.randrange(near), length - 1 - draw.randrange(near)))


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.choice((draw.randrange(len(content)), len(content) - draw.randint(1, min(9, len(content)))))]


def _append(content: bytes, draw: random.Random) -> bytes:
    return content + draw.randbytes(draw.randint(1, 64))


def _splice(content: bytes, draw: random.Random) -> bytes:
    """Write an extreme number over one of a header's."""
    size = draw.choice((1, 2, 4, 8))
    number = draw.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), draw.randrange(2 ** (8 * size))))
    place = min(_draw_place(len(content), draw), max(0, len(content) - size))
    return content[:place] + number.to_bytes(size, draw.choice(("little", "big"))) + content[place + size :]


def _blank(content: bytes, draw: random.Random) -> bytes:
    place, size = _draw_place(len(content), draw), draw.randint(1, 200)
    return content[:place] + bytes(len(content[place : place + size])) + content[place + size :]


_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3.5, float("inf"), float("nan"), 2**70, "", "x", "../x", "a" * 300, "a\0b"),
    *([], {}, [[]], [3], {"a": 1}, [None]),
)


def find_json(content: bytes) -> tuple[int, int] | None:
    """Return where a file's JSON stands: all of it, or the header of a safetensors file; None if it has none."""
    if content[:1] == b"{":
        return 0, len(content)
    end = 8 + int.from_bytes(content[:8], "little")
    return (8, end) if content[8:9] == b"{" and end <= len(content) else None


def _retype(content: bytes, draw: random.Random) -> bytes:
    """Put a value of another kind into a file's JSON, or take one out of it, or its seal and its version."""
    start, end = find_json(content) or (0, 0)
    values = json.loads(content[start:end])
    inside = values.get("__metadata__", {}).get("whyfooled") if start else None
    if inside is not None and draw.random() < 0.7:
        values["__metadata__"]["whyfooled"] = json.dumps(_retype_one(json.loads(inside), draw))
    else:
        values = _retype_one(values, draw)
    text = json.dumps(values).encode()
    return text if not start else len(text).to_bytes(8, "little") + text + content[end:]


def _retype_one(values: Any, draw: random.Random) -> Any:
    changed = copy.deepcopy(values)
    holder, key = draw.choice(list(_list_places(changed)) or [({}, "")])
    if draw.random() < 0.3:
        holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
    else:
        holder[key] = draw.choice(_VALUES)
    return changed


def _list_places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Give the places of all values inside a value."""
    for key, inner in values.items() if isinstance(values, dict) else enumerate(values):
        yield values, key
        if isinstance(inner, dict | list):
            yield from _list_places(inner)
