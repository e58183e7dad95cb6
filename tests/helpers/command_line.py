"""The command line as a user runs it, in this process or in one of its own, and models in a file for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

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


class Slow(Net):
    def forward(self, x):
        import time
        time.sleep(0.05)
        return super().forward(x)
"""


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["whyfooled", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def start(folder, *arguments):
    command = [sys.executable, "-m", "whyfooled", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )


def run(folder, *arguments):
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def killed_when(folder, condition, how, *arguments):
    """Run until a condition holds, then send a signal; return what the process said on stderr, and its exit code."""
    process = start(folder, *arguments)
    deadline = time.monotonic() + 100
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def hear_ctrl_c():
    """Undo what a shell does to jobs in the background: they, and what they start, would not hear Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
