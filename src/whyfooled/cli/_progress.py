"""What is said of long work: bars on a terminal, and a line for each stage where there is none, as in a log.

All of it goes to stderr, so that what a command prints can be piped. A program that wants to show the stages of one
photograph itself asks for each step with ``WHYFOOLED_PROGRESS=json``.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from whyfooled.cli._app import say
from whyfooled.running.steps import LINES, VARIABLE, Step, write_step


def _line_sayer(quiet: bool) -> Callable[[str], None]:
    """Make what says a line, but none twice in a row, and none at all on a terminal, which has bars."""
    last = ""

    def say_once(line: str) -> None:
        nonlocal last
        if line != last and not quiet and not sys.stderr.isatty():
            say(line)
        # An estimate stands between two lines that may be the same.
        last = last if line.endswith(" left") else line

    return say_once


_WORTH = 5.0
"""Seconds that work must have taken before it is said, once, how long the rest takes: short work is over by then."""


def _estimator() -> Callable[[str, float, float], str]:
    """Make what estimates, once for each kind of work, how long the rest takes, from what was done since it began."""
    began: dict[str, tuple[float, float]] = {}
    estimated: set[str] = set()

    def estimate(doing: str, done: float, total: float) -> str:
        moment, first = began.setdefault(doing, (time.perf_counter(), done))
        elapsed = time.perf_counter() - moment
        if doing in estimated or elapsed < _WORTH or not first < done < total:
            return ""
        estimated.add(doing)
        return f"{doing}: about {_write_duration(elapsed * (total - done) / (done - first))} left"

    return estimate


_OFTEN = 0.2
"""Seconds between two steps of a stage that are written for another program."""


def _step_writer() -> Callable[[Step], None]:
    """Make what writes each step for the program that asked for them, though none sooner than it can be seen."""
    stage, written = "", 0.0

    def write(step: Step) -> None:
        nonlocal stage, written
        now = time.perf_counter()
        if step.stage != stage or now - written >= _OFTEN:
            stage, written = step.stage, now
            say(write_step(step))

    return write if os.environ.get(VARIABLE) == LINES else lambda step: None


@contextmanager
def show_stages(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar for each stage, or a line when it is over: a mistake that it meets is to be the only thing said."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
    tasks: dict[str, Any] = {}
    say_once, estimate, write = _line_sayer(quiet), _estimator(), _step_writer()
    began: dict[str, float] = {}

    def say_how_long() -> None:
        for stage, moment in began.items():
            say_once(f"{stage}: {time.perf_counter() - moment:.1f} s")
        began.clear()

    def show(done: int, total: int, doing: str) -> None:
        if doing not in began:
            say_how_long()
            began[doing] = time.perf_counter()
        write(Step(doing, done, total))
        left = estimate(doing, done, total)
        if left:
            say_once(left)
        bars.start()
        if doing not in tasks:
            tasks[doing] = bars.add_task(doing, total=total)
        bars.update(tasks[doing], completed=done, total=total)

    try:
        yield show
        say_how_long()
        for task in tasks.values():
            # Work that ended early is done too.
            bars.update(task, completed=bars.tasks[task].total)
    finally:
        if tasks:
            bars.stop()


@contextmanager
def show_fit(quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show one bar, or line, for all steps of a kind: of ``"step 3 of 20"`` and the like."""
    with show_stages(quiet) as bars:

        def show(done: int, total: int, doing: str) -> None:
            numbered = _NUMBERED.fullmatch(doing)
            if numbered is None:
                bars(done, total, doing)
                return
            before, steps = int(numbered[2]) - 1, int(numbered[3])
            bars(before * _FINE + _FINE * done // total, steps * _FINE, numbered[1])

        yield show


_NUMBERED = re.compile(r"(\w+) (\d+) of (\d+)")
_FINE = 100
"""Into how many parts a step is divided."""


@contextmanager
def show_attack(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Show a bar with the success rate and the median norm so far, or a line for each batch, and stage of it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)
        say_once, estimate = _line_sayer(quiet), _estimator()
        finished = 0

        def show(standing: Any) -> None:
            nonlocal finished
            text = f"{int(standing.done)} of {standing.total} done"
            if standing.attacked:
                text += f", {standing.fooled} of {standing.attacked} attacked reached the goal"
            if standing.median_norm is not None:
                text += f", median {standing.norm} {standing.median_norm:.3g}"
            if standing.doing:
                text += f"; in work: {standing.doing}"
            if standing.doing or standing.finished > finished:
                finished = standing.finished
                say_once(text)
            left = estimate("attack", standing.done, standing.total)
            if left:
                say_once(left)
            bar.update(task, completed=standing.done, total=standing.total, description=text)

        yield show


@contextmanager
def show_explained(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Show a bar with the photograph and the stage in work, or a line for each photograph; first what was there."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)
        say_once = _line_sayer(quiet)

        def show(standing: Any) -> None:
            text = f"{standing.done} of {standing.total}"
            if standing.said:
                say_once(f"{text}: {standing.photograph}: {standing.said}")
            elif not standing.photograph and standing.done and not quiet:
                bar.console.print(_say_what_was_there(standing), markup=False, highlight=False, soft_wrap=True)
            if standing.doing:
                text = f"{text}; in work: {standing.photograph}, {standing.doing}"
            bar.update(task, completed=standing.done, total=standing.total, description=escape(text))

        yield show


def _say_what_was_there(standing: Any) -> str:
    if standing.done < standing.total:
        return f"{standing.done} of {standing.total} photographs were finished already."
    return f"{standing.done} of {standing.total} photographs were finished already: nothing left to do."


@contextmanager
def show_study(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Show a bar with the images done, the rate, the time left and the headline number so far, or a line a shard."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)
        say_once, estimate = _line_sayer(quiet), _estimator()
        shards = 0

        def show(progress: Any) -> None:
            nonlocal shards
            text = f"{progress.done} of {progress.total} images"
            if progress.doing:
                numbered = _NUMBERED.fullmatch(progress.doing)
                doing = numbered[1] if numbered else progress.doing
                say_once(doing)
                before, steps = (int(numbered[2]) - 1, int(numbered[3])) if numbered else (0, 1)
                # Of numbered steps, each as long as the others.
                left = estimate(doing, before + progress.done / max(1, progress.total), steps)
                if left:
                    say_once(left)
                text = f"{progress.doing}: {text}"
            if progress.rate:
                left = (progress.total - progress.done) / progress.rate
                text += f", {progress.rate:.2g}/s, {_write_duration(left)} left"
            if progress.value is not None:
                text += f", {progress.headline} {progress.value:.3f}"
            if progress.shards > shards:
                shards = progress.shards
                say_once(text)
            bar.update(task, completed=progress.done, total=progress.total, description=text)

        yield show


def _write_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
