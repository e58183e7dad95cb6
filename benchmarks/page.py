"""Visit the page twenty times at once: whether each photograph is explained, and the memory given back.

The first visit is not measured: what the server imports and compiles then, it keeps for all that follow.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skimage.data import coffee

_SHAPE = (96, 96)
_PATIENCE = 3_600.0
_UNTIL_IT_IS_SEEN = 5.0
"""Seconds in which the server notices that tabs are closed."""


def run(visits: int, model: str, attack: str) -> None:
    """Open the page in as many tabs, drop a photograph of its own on each, press all buttons, and wait."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, *photographs = _write_photographs(folder, 1 + visits)
        server = subprocess.Popen(
            [sys.executable, "-m", "whyfooled", "app", "--port", "0", "-o", str(folder / "runs"), "--model", model],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            address = _read_address(server)
            _visit(server, address, [first], attack)
            print(f"After one visit the server has {_read_memory(server.pid):.0f} MB.", flush=True)
            _visit(server, address, photographs, attack)
            print(f"With all closed it has {_read_memory(server.pid):.0f} MB;", end=" ")
            print(f"of its jobs {_count_children(server.pid)} run.")
            runs = {path.name.rpartition("-20")[0] for path in (folder / "runs").iterdir()}
            print(f"{len(runs) - 1} photographs of {visits} have a run of their own.")
        finally:
            server.terminate()
            server.wait()


def _read_address(server: Any) -> str:
    address = re.search(r"http://\S+/", server.stderr.readline())
    if address is None:
        sys.exit("The page did not open.")
    return address[0]


def _write_photographs(folder: Path, count: int) -> list[Path]:
    from PIL import Image

    paths = [folder / f"photograph-{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        top = 4 * number
        Image.fromarray(coffee()[top : top + _SHAPE[0], 200 : 200 + _SHAPE[1]]).save(path)
    return paths


def _visit(server: Any, address: str, photographs: Sequence[Path], attack: str) -> None:
    """Visit the page in a tab for each photograph, until each tab has its report and is closed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        tabs = [chromium.new_context().new_page() for _ in photographs]
        for tab in tabs:
            tab.goto(address)
            tab.get_by_role("button", name="Explain", exact=True).wait_for()
        for tab, photograph in zip(tabs, photographs, strict=True):
            tab.set_input_files("#wf-images input[type=file]", str(photograph))
            tab.locator(".wf-photograph img").wait_for()
            tab.locator("#wf-attack input").fill(attack)
            tab.locator("#wf-attack input").press("Enter")
        started, most = time.monotonic(), 0.0
        for tab in tabs:
            tab.get_by_role("button", name="Explain", exact=True).click()
        while time.monotonic() - started < _PATIENCE:
            most = max(most, _read_memory(server.pid))
            if all(tab.locator(".wf-heading, .wf-error").count() for tab in tabs):
                break
            time.sleep(0.5)
        reports = sum(tab.locator(".wf-heading").count() for tab in tabs)
        print(f"{reports} of {len(tabs)} visits have their report after {time.monotonic() - started:.0f} s,", end=" ")
        print(f"with {most:.0f} MB in the server at most.", flush=True)
        chromium.close()
    time.sleep(_UNTIL_IT_IS_SEEN)


def _read_memory(process: int) -> float:
    """Return the memory that a process holds, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000


def _count_children(process: int) -> int:
    """Count the jobs of the page: its children, but for its keeper."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return sum("explain" in Path(f"/proc/{child}/cmdline").read_text() for child in children)
