"""The explanation of the example: alone, and beside a busy process on each core; its numbers must be the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from safetensors.torch import load_file

ALONE, BESIDE = "alone", "beside busy processes"
_MAY_DIFFER = ("seconds", "seconds_in_all", "parameters.command")


@dataclass(frozen=True)
class _Run:
    """One run of the command: its report, the bytes of each tensor, seconds on the clock and of the processors."""

    numbers: dict[str, Any]
    tensors: dict[str, bytes]
    wall: float
    processor: float


def run(repeats: int, workers: int | None) -> None:
    """Run the example so many times alone and beside busy processes, and print what it took and what differs."""
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} before; {repeats} runs of each, in turn; medians\n")
    runs: dict[str, list[_Run]] = {ALONE: [], BESIDE: []}
    for _ in range(repeats):
        for busy in runs:
            with _busy(cores if busy == BESIDE else 0):
                runs[busy].append(_explain_example(workers))
    _print_times(runs)
    _print_stages(runs)
    every = [each for of_kind in runs.values() for each in of_kind]
    differences = sorted({name for other in every[1:] for name in _list_differences(every[0], other)})
    same = "Every number and tensor of all the reports is the same."
    print(f"\n{same if not differences else 'DIFFERENT: ' + ', '.join(differences)}")


@contextmanager
def _busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _explain_example(workers: int | None) -> _Run:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "whyfooled", "explain", "-q", "-o", f"{folder}/report"]
        command += [] if workers is None else ["--workers", str(workers)]
        started = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if status:
            raise SystemExit(f"{' '.join(command)} failed.")
        report = Path(folder) / "report"
        numbers = json.loads((report / "explanation.json").read_text())
        # Not the file's: what stands in its header comes in any order.
        tensors = {name: tensor.numpy().tobytes() for name, tensor in load_file(report / "tensors.safetensors").items()}
        return _Run(numbers, tensors, wall, usage.ru_utime + usage.ru_stime)


def _print_times(runs: Mapping[str, Sequence[_Run]]) -> None:
    walls = {name: median(each.wall for each in of_kind) for name, of_kind in runs.items()}
    processors = {name: median(each.processor for each in of_kind) for name, of_kind in runs.items()}
    for name in runs:
        print(f"{name}: {walls[name]:.1f} s on the clock, {processors[name]:.1f} s of the processors")
    print(f"ratio on the clock {walls[BESIDE] / walls[ALONE]:.2f}, of the processors", end=" ")
    print(f"{processors[BESIDE] / processors[ALONE]:.2f}\n")


def _print_stages(runs: Mapping[str, Sequence[_Run]]) -> None:
    first = runs[ALONE][0].numbers
    seconds = {
        name: {stage: median(each.numbers["seconds"][stage] for each in of_kind) for stage in first["seconds"]}
        for name, of_kind in runs.items()
    }
    print(f"{'stage':34}{'alone, s':>10}{'beside, s':>11}{'ratio':>7}{'forwards':>10}{'backwards':>11}")
    for stage in first["seconds"]:
        alone, beside = seconds[ALONE][stage], seconds[BESIDE][stage]
        passes = first["passes"].get(stage, {"forwards": "", "backwards": ""})
        ratio = beside / alone if alone else float("nan")
        print(f"{stage:34}{alone:10.2f}{beside:11.2f}{ratio:7.2f}{passes['forwards']!s:>10}{passes['backwards']!s:>11}")


def _list_differences(one: _Run, other: _Run) -> Iterator[str]:
    yield from _compare(one.numbers, other.numbers, "")
    for name in one.tensors.keys() | other.tensors.keys():
        if one.tensors.get(name) != other.tensors.get(name):
            yield f"tensor {name}"


def _compare(one: Any, other: Any, name: str) -> Iterator[str]:
    if name in _MAY_DIFFER:
        return
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _compare(one[key], other[key], f"{name}.{key}" if name else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _compare(*pair, f"{name}[{number}]")
    elif one != other and not (one != one and other != other):
        yield name
