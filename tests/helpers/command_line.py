"""The command line as a user runs it, in this process or in one of its own, and models in a file for it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.forked import CommandProcess
from whyfooled.cli import main

MODELS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return 50 * self.head(torch.relu(self.conv(x)).mean((2, 3)))


class Broken(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class Probabilities(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Half(Net):
    def __init__(self):
        super().__init__()
        self.half()


class Quitting(Net):
    def forward(self, x):
        raise SystemExit(3)


class Slow(Net):
    def forward(self, x):
        import time
        time.sleep(0.05)
        return super().forward(x)


def Tiny():
    from whyfooled import Classifier
    return Classifier(Net(), size=(32, 32), name="tiny")
"""


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command in this process, and return its exit code."""
    monkeypatch.setattr("sys.argv", ["whyfooled", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a process of its own; return its exit code and what it said on stdout and on stderr."""
    return CommandProcess(folder, *arguments).end()


def killed_when(folder: Path, condition: Callable[[], object], how: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Run until a condition holds, then send a signal; return the exit code and what was said on stderr."""
    process = CommandProcess(folder, *arguments)
    deadline = time.monotonic() + 100
    while not condition() and process.is_running() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send(how)
    code, _, err = process.end()
    return code, err


_PROGRESS = re.compile(r".+: \d+\.\d s|.+: about .+ left|\d+ of \d+.*")


def without_progress(err: str) -> str:
    """Return what a command said on stderr beside a line for each of its stages, and how long a slow one takes."""
    return "".join(line for line in err.splitlines(keepends=True) if not _PROGRESS.fullmatch(line.rstrip("\n")))
