"""Killing commands at random moments, and doing them again: what is lost, what is left, what is blocked."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file

from tests.helpers.forked import CommandProcess

OUTPUT = "out"


@dataclass(frozen=True)
class Job:
    """A command that is killed.

    Parameters
    ----------
    name
        What it is called.
    arguments
        What stands behind ``whyfooled``; it writes to ``out``.
    collect
        Returns what it wrote, without what differs from run to run, by name; from the folder that it runs in.
    page
        The page of a report, which never must be missing where there was one before; "" for none.
    """

    name: str
    arguments: Sequence[str]
    collect: Callable[[Path], dict[str, object]]
    page: str = ""


@dataclass
class Tally:
    """What the kills of one command came to."""

    kills: int = 0
    before_the_end: int = 0
    blocked: int = 0
    lost: int = 0
    leftovers: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """How many must not be."""
        return self.blocked + self.lost + self.leftovers


def kill(job: Job, world: Path, times: int, seed: int, deadline: float) -> Tally:
    """Kill a command at random moments, in copies of a folder, and look at what the same command then ends in."""
    tally, draw = Tally(), random.Random(seed)
    whole = world.with_name(f"{world.name}-{job.name}")
    shutil.copytree(world, whole)
    _run(job, whole)
    shutil.rmtree(whole / OUTPUT)
    # The first time it is slower: nothing is in the machine's memory yet.
    seconds = _run(job, whole)
    expected = job.collect(whole)
    for number in range(times):
        if time.monotonic() > deadline:
            break
        work = world.with_name(f"{world.name}-killed")
        # In every second one an earlier result is there, which reports replace.
        shutil.copytree(whole if job.page and number % 2 else world, work)
        _kill_once(job, work, draw.uniform(0, seconds), tally)
        _redo(job, work, expected, tally)
        shutil.rmtree(work)
    return tally


def _run(job: Job, folder: Path) -> float:
    started = time.monotonic()
    code, _, said = CommandProcess(folder, *job.arguments).end()
    if code:
        raise RuntimeError(f"{job.name} ended with {code} before anything was killed: {said}")
    return time.monotonic() - started


def _kill_once(job: Job, work: Path, after: float, tally: Tally) -> None:
    was_there = bool(job.page) and (work / OUTPUT / job.page).exists()
    process = CommandProcess(work, *job.arguments)
    time.sleep(after)
    process.send(signal.SIGKILL)
    tally.kills += 1
    tally.before_the_end += process.end()[0] == -signal.SIGKILL
    pages = [work / OUTPUT / job.page, *(work / OUTPUT).glob(f".whyfooled-*/undo/earlier/{job.page}")]
    if was_there and not any(page.exists() for page in pages):
        tally.lost += 1
        tally.examples.append(f"{job.name}, killed after {after:.3f} s: neither the earlier page nor the new one")


def _redo(job: Job, work: Path, expected: dict[str, object], tally: Tally) -> None:
    code, _, said = CommandProcess(work, *job.arguments).end()
    if code:
        tally.blocked += 1
        tally.examples.append(f"{job.name} again: {said.strip()}")
        return
    written = job.collect(work)
    differing = sorted(name for name in {*expected, *written} if expected.get(name) != written.get(name))
    if differing:
        tally.lost += 1
        tally.examples.append(f"{job.name} again: {', '.join(differing[:3])} differ")
    left = [path.name for path in work.rglob("*") if ".whyfooled" in path.name or path.name.endswith(".partial")]
    if left:
        tally.leftovers += 1
        tally.examples.append(f"{job.name} again: left behind {', '.join(left[:3])}")


def collect_bytes(*patterns: str) -> Callable[[Path], dict[str, object]]:
    """Make what collects files by their bytes."""

    def collect(folder: Path) -> dict[str, object]:
        paths = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    return collect


def collect_report(folder: Path) -> dict[str, object]:
    """Collect a report: the names of its files, its pictures and tables by their bytes, its tensors by their values."""
    out = folder / OUTPUT
    named: dict[str, object] = {"files": sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))}
    for pattern in ("pictures/*", "*.csv", "*.parquet"):
        named |= {path.name: path.read_bytes() for path in out.glob(pattern)}
    tensors = load_file(out / "tensors.safetensors")
    named["tensors"] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    for path in out.glob("*.json"):
        written = json.loads(path.read_bytes())
        named[path.name] = sorted(written)
    return named
