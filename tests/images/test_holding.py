"""Locks of folders: one process at a time, known by name, and taken over when it is gone."""

import multiprocessing
import os
import re
import signal
import socket
import time

import pytest

from whyfooled.images.holding import HeldError, hold

_forks = multiprocessing.get_context("fork")


def _hold_for_ever(path, ready):
    with hold(path):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Hold a lock in another process; return the lock and the process."""
    ready = _forks.Event()
    process = _forks.Process(target=_hold_for_ever, args=(tmp_path / "lock", ready))
    process.start()
    assert ready.wait(30)
    yield tmp_path / "lock", process
    process.kill()
    process.join()


def test_a_lock_is_there_for_as_long_as_the_block_lasts(tmp_path):
    for error in (None, ValueError, KeyboardInterrupt):
        try:
            with hold(tmp_path / "lock"):
                assert [path.name for path in tmp_path.iterdir()] == ["lock"]
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert list(tmp_path.iterdir()) == []


def test_the_second_is_told_who_holds_it_and_leaves_it_alone(holder):
    lock, process = holder
    with pytest.raises(HeldError) as refused, hold(lock):
        pytest.fail("held twice")
    assert re.fullmatch(
        rf"process {process.pid} on this machine, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", str(refused.value)
    )
    assert lock.exists()


def test_the_same_process_cannot_hold_it_twice_either(tmp_path):
    with hold(tmp_path / "lock"), pytest.raises(HeldError, match=f"process {os.getpid()}"), hold(tmp_path / "lock"):
        pytest.fail("held twice")


def test_that_of_a_killed_process_is_taken_over(holder):
    lock, process = holder
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert lock.exists()
    with hold(lock):
        pass
    assert not lock.exists()


def test_that_of_another_machine_is_not_taken_over(tmp_path):
    (tmp_path / "lock").write_text("1\nelsewhere\n")
    with pytest.raises(HeldError, match=r"^process 1 on elsewhere, since ") as refused, hold(tmp_path / "lock"):
        pytest.fail("taken over")
    assert not refused.value.holder.is_here


def test_that_of_a_process_killed_before_it_wrote_its_name_is_taken_over(tmp_path):
    (tmp_path / "lock").touch()
    os.utime(tmp_path / "lock", (time.time() - 9,) * 2)
    with hold(tmp_path / "lock"):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_this_machine_is_known_by_its_name(tmp_path):
    with hold(tmp_path / "lock"):
        assert socket.gethostname() in (tmp_path / "lock").read_text()
