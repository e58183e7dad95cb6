"""The page in the browser: a server of its own, and a visitor in Chromium who notes all that is asked for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chromium import CHROMIUM, REQUIRED
from tests.helpers.command_line import MODELS

_MISSING = [name for name in ("gradio", "playwright") if find_spec(name) is None]
if REQUIRED and _MISSING:
    raise RuntimeError(f"WHYFOOLED_REQUIRE_BROWSER is set, and {' and '.join(_MISSING)} is not installed.")

needs_page = pytest.mark.skipif(CHROMIUM is None or bool(_MISSING), reason="needs Chromium, Gradio and Playwright")

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class PageServer:
    """``whyfooled app`` in a process of its own.

    Parameters
    ----------
    folder
        Where it runs; its runs are in the folder ``runs`` there.
    arguments
        What stands behind ``whyfooled app``, beside the port and the folder of runs.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.runs, self.temporary = folder / "runs", folder / "temporary"
        self.temporary.mkdir()
        (folder / "models.py").write_text(MODELS)
        command = [sys.executable, "-m", "whyfooled", "app", "--port", "0", "-o", "runs", *arguments]
        # From the folder, whatever it is that finds the package has to find it there too.
        path = os.pathsep.join(str(Path(place).resolve()) for place in sys.path if place)
        environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": path}
        self._process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        found = re.search(r"http://\S+/", said)
        assert found, said + self._process.stderr.read()
        self.address = found[0]
        # What it says is read, lest it wait for that; none of it is expected.
        self.said: list[str] = []
        threading.Thread(target=lambda: self.said.extend(self._process.stderr or ()), daemon=True).start()

    @property
    def number(self) -> int:
        return self._process.pid

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self._process.send_signal(how)
        return self._process.wait(30)

    def uploaded(self) -> list[Path]:
        """List the photographs that it holds."""
        return [path for path in list_beneath(self.temporary) if path.suffix == ".png"]

    def left_behind(self) -> list[str]:
        """List the files of uploads and of unfinished reports."""
        uploads = [path for path in list_beneath(self.temporary) if path.name.startswith("whyfooled-page-")]
        unfinished = [path for path in list_beneath(self.runs) if path.name.startswith(".whyfooled-")]
        return sorted(path.name for path in uploads + unfinished)


def list_beneath(folder: Path) -> list[Path]:
    """List all that is in a folder and beneath, even while others delete there, where ``Path.rglob`` fails."""
    return [Path(place, name) for place, folders, files in os.walk(folder) for name in folders + files]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds; an `AssertionError` if it does not within some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class Visitor:
    """Someone at the page, who does what a hand and eyes do.

    Parameters
    ----------
    page
        Playwright's page.
    address
        The server's.
    """

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.asked = page, []
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)
        self.explain_button.wait_for()

    @property
    def explain_button(self) -> Any:
        return self.page.get_by_role("button", name="Explain", exact=True)

    def drop(self, field: str, path: Path) -> None:
        self.page.set_input_files(f"#wf-{field} input[type=file]", str(path))
        self.page.locator(f"#wf-{field}").get_by_text(path.suffix).first.wait_for()

    def choose(self, field: str, value: str) -> None:
        """Type something into a field."""
        box = self.page.locator(f"#wf-{field} input, #wf-{field} textarea").first
        box.fill(value)
        box.press("Enter")
        box.blur()

    def explain(self) -> None:
        self.explain_button.click()
        self.page.locator("#wf-found .wf-box").wait_for()

    def wait_for_report(self) -> None:
        self.page.locator(".wf-heading").wait_for(timeout=90_000)

    def wait_for_sentence(self) -> str:
        box = self.page.locator(".wf-error")
        box.wait_for(timeout=60_000)
        return box.inner_text()

    def runs_off_by(self) -> int:
        """How many pixels of the page lie off the screen."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def elsewhere(self, address: str) -> list[str]:
        """List what was asked of any other address."""
        return [url for url in self.asked if not url.startswith((address, "data:", "blob:"))]


@contextmanager
def browser() -> Iterator[Any]:
    """Give Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def visit(chromium: Any, server: PageServer, width: int = 1300, dark: bool = False) -> Iterator[Visitor]:
    """Give a visitor with a screen of a width."""
    scheme = "dark" if dark else "light"
    # A page that still glides would be clicked beside what was meant.
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        yield Visitor(context.new_page(), server.address)
    finally:
        context.close()
