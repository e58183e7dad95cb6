"""The page's jobs: each is a ``whyfooled explain`` in a process of its own, one at a time, the others wait in a line.

A process of its own gives its memory back, can be stopped at any moment, and is what the command line would have done.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from whyfooled.app.keeper import PATIENCE, Keeper, ask_to_end, kill
from whyfooled.app.runs import name_run
from whyfooled.errors import WhyfooledError
from whyfooled.running.publishing import hide_folders
from whyfooled.running.steps import LINES, VARIABLE, read_step

State = Literal["waiting", "running", "done", "failed", "stopped"]
MOST_WAITING = 100
"""Jobs that may wait in the line. [ours]"""
_KEPT = 200
"""Ended jobs that are remembered, so that a visit can ask what became of its own. [ours]"""
_TELLING = 0.1
"""Share of a stage from which it tells how long the rest will take. [ours]"""
_ERROR, _WARNING = "Error: ", "Warning: "


@dataclass
class Stage:
    """A stage of a job: what is done, how far, since when and until when on a clock of seconds."""

    name: str
    began: float
    share: float = 0.0
    ended: float | None = None

    @property
    def percent(self) -> int:
        """How much of it is done; a stage that ended early is done too."""
        return 100 if self.ended is not None else round(100 * min(1.0, self.share))

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def seconds_left(self) -> float | None:
        """How long it will take if it goes on so; None as long as that would be a guess, and when it has ended."""
        return self.seconds * (1 / self.share - 1) if self.ended is None and self.share >= _TELLING else None


@final
@dataclass
class Job:
    """One explanation: what is asked for, and what has become of it.

    Parameters
    ----------
    arguments
        What stands behind ``whyfooled``.
    run
        The name of the folder that it writes.
    inputs
        The folder with its own copies of what was dropped, deleted when it ends.
    """

    arguments: tuple[str, ...]
    run: str
    inputs: Path
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "waiting"
    stages: list[Stage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    command: str = ""
    stopping: bool = False
    _said: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    _process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        # While the folders of what was dropped are there: what leaves them out looks for them.
        self.command = shlex.join(["whyfooled", *map(hide_folders, self.arguments)])

    @property
    def is_over(self) -> bool:
        """Whether nothing will become of it any more."""
        return self.state in ("done", "failed", "stopped")

    def hear(self, line: str) -> None:
        """Take note of a line that the command printed."""
        step = read_step(line)
        if step is None:
            self._said.append(hide_folders(line))
            if line.startswith(_WARNING):
                self.warnings.append(hide_folders(line.removeprefix(_WARNING)))
            return
        if not self.stages or self.stages[-1].name != step.stage:
            self._close_stage()
            self.stages.append(Stage(step.stage, time.monotonic()))
        self.stages[-1].share = step.done / step.total if step.total else 0.0

    def _close_stage(self) -> None:
        if self.stages:
            self.stages[-1].ended = time.monotonic()

    def conclude(self, code: int) -> None:
        """Say what has become of it, by the exit code of its process."""
        self._close_stage()
        if code == 0:
            self.state = "done"
        elif self.stopping:
            self.state = "stopped"
        else:
            self.state, self.error = "failed", _say_what_failed(code, list(self._said))


def _say_what_failed(code: int, said: Sequence[str]) -> str:
    errors = [line.removeprefix(_ERROR) for line in said if line.startswith(_ERROR)]
    if errors:
        return errors[-1]
    if code < 0:
        return f"The machine ended it (signal {-code}), as it does when memory runs out. Nothing was written."
    return f"It ended with the code {code} and said: {said[-1] if said else 'nothing'}"


@final
class Jobs:
    """The line of jobs, and the one that runs.

    Parameters
    ----------
    output
        The folder that holds the folders of all runs.
    keeper
        Who stops the job if the page ends.
    """

    def __init__(self, output: Path, keeper: Keeper) -> None:
        self._output, self._keeper = output, keeper
        self._changed = threading.Condition()
        self._line: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, arguments: Sequence[str], photograph: str | None, inputs: Path) -> Job:
        """Put an explanation at the end of the line.

        Parameters
        ----------
        arguments
            What stands behind ``whyfooled explain``, but for the folder to write.
        photograph
            The file that the run is named after; None for the example.
        inputs
            The folder with the job's own copies of what was dropped, which is deleted when it ends.

        Raises
        ------
        WhyfooledError
            If as many wait as may.
        """
        with self._changed:
            if len(self._line) >= MOST_WAITING:
                shutil.rmtree(inputs, ignore_errors=True)
                raise WhyfooledError(f"{MOST_WAITING} explanations wait already. Try again when some are done.")
            run = name_run(self._output, photograph, {job.run for job in self._jobs.values()})
            job = Job(("explain", *arguments, "-o", str(self._output / run)), run, inputs)
            self._jobs[job.identity] = job
            self._line.append(job)
            self._forget()
            self._changed.notify()
            return job

    def _forget(self) -> None:
        over = [identity for identity, job in self._jobs.items() if job.is_over]
        for identity in over[: max(0, len(over) - _KEPT)]:
            del self._jobs[identity]

    def find(self, identity: str | None) -> Job | None:
        """Return a job; None if there is none, or it was long ago."""
        return self._jobs.get(identity or "")

    def count_before(self, job: Job) -> int:
        """Count the jobs that are done before one that waits: those before it in the line, and the one that runs."""
        with self._changed:
            running = any(other.state == "running" for other in self._jobs.values())
            return (self._line.index(job) if job in self._line else 0) + running

    def stop(self, identity: str | None) -> None:
        """Take a job out of the line, or stop it; one that is over stays as it is."""
        with self._changed:
            job = self.find(identity)
            if job is None or job.is_over:
                return
            job.stopping = True
            if job in self._line:
                self._line.remove(job)
                job.state = "stopped"
                shutil.rmtree(job.inputs, ignore_errors=True)
            elif job._process is not None:
                ask_to_end(job._process.pid)
                threading.Thread(target=_insist, args=(job._process,), daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line)
                job = self._line.popleft()
                job.state = "running"
                # Until the command says what it does, that it has begun, and how long ago.
                job.stages.append(Stage("starting", time.monotonic()))
            try:
                self._run(job)
            except Exception as error:  # whatever it is, the next one's turn comes
                job.state, job.error = "failed", f"It could not be started: {error}."
            finally:
                shutil.rmtree(job.inputs, ignore_errors=True)

    def _run(self, job: Job) -> None:
        command = [sys.executable, "-m", "whyfooled", *job.arguments]
        # Errors of the command line as plain sentences, not in a box for a terminal.
        environment = {**os.environ, VARIABLE: LINES, "TYPER_USE_RICH": "0", "PYTHONUNBUFFERED": "1"}
        with self._changed:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=environment,
                start_new_session=True,
            )
            job._process = process
            self._keeper.started(process.pid)
            if job.stopping:
                ask_to_end(process.pid)
        try:
            # Closes what it writes to in the end: a job is remembered for long, and would keep a file open as long.
            with process:
                for line in process.stdout or ():
                    job.hear(line.rstrip("\n"))
        finally:
            with self._changed:
                job._process = None
            self._keeper.ended(process.pid)
        job.conclude(process.returncode)


def _insist(process: subprocess.Popen[str]) -> None:
    """End a process that does not end when asked to."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        kill(process.pid)
