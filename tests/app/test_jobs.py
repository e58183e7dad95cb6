"""The line of jobs: one at a time, stopped at any moment, each with its own end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.page_server import wait_for
from whyfooled.app import jobs as line
from whyfooled.app.jobs import Job, Jobs
from whyfooled.app.keeper import Keeper, is_running
from whyfooled.errors import WhyfooledError
from whyfooled.running.steps import Step, write_step

HELD = "import sys, time\nprint('on', flush=True)\ntime.sleep(60)"


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Let a job run a Python script, which is its last argument but two."""

    keeper = Keeper(tmp_path / "uploads", tmp_path)

    class Scripted(subprocess.Popen):
        def __init__(self, command, **more):
            super().__init__([sys.executable, "-c", command[-3]], **more)

    monkeypatch.setattr(line.subprocess, "Popen", Scripted)
    jobs = Jobs(tmp_path / "runs", keeper)

    def run(script):
        inputs = tmp_path / f"inputs-{time.monotonic_ns()}"
        inputs.mkdir()
        return jobs.submit([script], "cat.jpg", inputs)

    yield jobs, run
    keeper.close()


def count_open_files():
    return len(list(Path("/dev/fd").iterdir()))


def test_jobs_run_one_after_another_and_none_is_lost(runs, tmp_path):
    jobs, run = runs
    log, go, opened = tmp_path / "log", tmp_path / "go", count_open_files()
    # However slow a machine is, none is done before all are asked for.
    script = (
        f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(.02)\n"
        f"for sign in '[]':\n open({str(log)!r}, 'a').write(sign)\n time.sleep(.02)"
    )
    started = [run(script) for _ in range(20)]
    assert jobs.count_before(started[-1]) in (19, 20)
    go.touch()
    wait_for(lambda: all(job.is_over for job in started))
    assert {job.state for job in started} == {"done"}
    assert log.read_text() == "[]" * 20
    assert len({job.run for job in started}) == 20
    wait_for(lambda: not any(job.inputs.exists() for job in started))
    # They are remembered, and what they wrote to is closed.
    assert [jobs.find(job.identity) for job in started] == started
    assert count_open_files() == opened


def test_what_a_command_says_is_heard(tmp_path):
    job = Job(("explain",), "run", tmp_path)
    for text in (write_step(Step("loading", 1, 1)), write_step(Step("attack", 3, 4)), "Warning: dark.", "Error: bad."):
        job.hear(text)
    assert [(stage.name, stage.percent) for stage in job.stages] == [("loading", 100), ("attack", 75)]
    job.conclude(2)
    assert (job.state, job.error, job.warnings) == ("failed", "bad.", ["dark."])
    assert job.stages[-1].percent == 100


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("import sys; print('Error: That is wrong.'); sys.exit(2)", "That is wrong."),
        ("import os; os.kill(os.getpid(), 9)", "The machine ended it (signal 9)"),
        ("raise ValueError('odd')", "It ended with the code 1 and said: ValueError: odd"),
    ],
)
def test_an_error_is_a_sentence_and_the_next_one_runs(runs, script, error):
    _jobs, run = runs
    wrong, right = run(script), run("pass")
    wait_for(lambda: right.is_over)
    assert wrong.state == "failed"
    assert wrong.error.startswith(error)
    assert right.state == "done"


def test_a_job_is_stopped_in_the_line_and_at_work(runs):
    jobs, run = runs
    working, waiting, last = run(HELD), run(HELD), run("pass")
    wait_for(lambda: working._said)
    jobs.stop(waiting.identity)
    assert waiting.state == "stopped"
    assert not waiting.inputs.exists()
    jobs.stop(working.identity)
    wait_for(lambda: last.is_over, 20)
    assert (working.state, last.state) == ("stopped", "done")
    jobs.stop(last.identity)
    jobs.stop("unknown")
    assert last.state == "done"


def test_a_job_that_does_not_end_is_killed(runs, monkeypatch):
    monkeypatch.setattr(line, "PATIENCE", 0.2)
    jobs, run = runs
    deaf = run("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HELD)
    wait_for(lambda: deaf._said)
    jobs.stop(deaf.identity)
    wait_for(lambda: deaf.is_over, 10)
    assert deaf.state == "stopped"


def test_the_line_has_an_end(runs, monkeypatch):
    monkeypatch.setattr(line, "MOST_WAITING", 2)
    jobs, run = runs
    working = run(HELD)
    wait_for(lambda: working._said)
    waiting = [run("pass"), run("pass")]
    with pytest.raises(WhyfooledError, match="2 explanations wait already"):
        run("pass")
    jobs.stop(working.identity)
    wait_for(lambda: all(job.is_over for job in waiting))
    assert {job.state for job in waiting} == {"done"}


def test_ended_jobs_are_forgotten(runs, monkeypatch):
    monkeypatch.setattr(line, "_KEPT", 1)
    jobs, run = runs
    first, second = run("pass"), run("pass")
    wait_for(lambda: second.is_over)
    third = run("pass")
    wait_for(lambda: third.is_over)
    assert jobs.find(first.identity) is None
    assert jobs.find(third.identity) is third


KEPT = """
import subprocess, sys
from pathlib import Path
from whyfooled.app.keeper import Keeper, is_running
keeper = Keeper(Path(sys.argv[1]), Path(sys.argv[2]))
job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
over = subprocess.Popen(["true"], start_new_session=True)
keeper.started(job.pid), keeper.started(over.pid), over.wait(), keeper.ended(over.pid)
print(job.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_page_leaves_is_cleared_up(tmp_path, how):
    uploads = tmp_path / "uploads"
    (uploads / "dropped").mkdir(parents=True)
    (uploads / "dropped" / "cat.jpg").touch()
    command = [sys.executable, "-c", KEPT, str(uploads), str(tmp_path)]
    page = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    job = int(page.stdout.readline())
    os.killpg(page.pid, how)
    page.wait()
    wait_for(lambda: not uploads.exists(), 20)
    assert not is_running(job)


def test_a_keeper_that_is_gone_stops_nothing(tmp_path):
    keeper = Keeper(tmp_path / "uploads", tmp_path)
    keeper._process.kill()
    keeper._process.wait()
    keeper.started(1)
    keeper.ended(1)
