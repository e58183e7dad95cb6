"""Who may use memory that a thread has freed."""

import os
import platform
import subprocess
import sys

import pytest

# Each thread keeps what it took until all have taken theirs, so that none of them ends before another begins.
COUNT_PARTS = """
import ctypes, sys, tempfile, threading
{before}
def take(barrier):
    kept = [bytes(5000) for _ in range(10)]
    barrier.wait()
barrier = threading.Barrier(4)
threads = [threading.Thread(target=take, args=(barrier,)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(c.fopen(file.name.encode(), b"w"))
    c.malloc_info(0, stream)
    c.fclose(stream)
    print(file.read().count(b"<heap nr="))
"""

RUN_A_COMMAND = """
from whyfooled.cli import main
sys.argv = ["whyfooled", "--version"]
try: main()
except SystemExit: pass
"""


def count_parts(before: str, **environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", COUNT_PARTS.format(before=before)]
    run = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    return int(run.stdout.splitlines()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives each thread a part of its own")
class TestThreadsOfTheCommandLine:
    def test_share_what_they_freed(self) -> None:
        assert count_parts("") > 1
        assert count_parts(RUN_A_COMMAND) == 1

    def test_have_parts_of_their_own_where_the_user_says_so(self) -> None:
        assert count_parts(RUN_A_COMMAND, MALLOC_ARENA_MAX="4") > 1

    def test_are_left_alone_in_a_program_of_the_user(self) -> None:
        assert count_parts("import whyfooled.cli") > 1
