"""The server behind the page: its address, who may ask it, and the files of runs."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from whyfooled.app.classes import Classes
from whyfooled.app.desk import Desk
from whyfooled.app.jobs import Jobs
from whyfooled.app.keeper import Keeper
from whyfooled.app.parts import PARTS, show_part
from whyfooled.app.request import Started
from whyfooled.app.runs import PAGE, find_file, find_run
from whyfooled.app.uploads import Uploads
from whyfooled.classifier.extras import import_extra
from whyfooled.errors import ImageError, OutputError, ParameterError, bad_parameter
from whyfooled.images import MOST_PIXELS
from whyfooled.images.writing import sweep

LOOPBACK = "127.0.0.1"
PORT = 7860
"""The port if none is asked for; the next that is free, of as many as `_TRIED`."""
_TRIED = 20
_HERE = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 3 * 2 * MOST_PIXELS
"""Bytes that one file may have: the largest photograph that is read, in three channels of 16 bits, uncompressed."""

NO_RECORD = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    # What each event took: 10 000 are held, and a table of all is made at each.
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(2**62),
}
"""Gradio sends nothing to anyone, and keeps no record of what was done on the page."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""What the browser may load and ask on the page: this server, and nothing else, whatever a library's script wants."""
_SANDBOX = "sandbox allow-scripts; frame-ancestors 'self'"
"""What a file of a run may do: it may have come from anywhere, so the page and this server are closed to it."""


def serve(
    output: Path,
    started: Started,
    words: Mapping[str, str],
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve the page until the process is interrupted; nothing that was dropped is left then, and no half report.

    Parameters
    ----------
    output
        The folder that holds the folders of all runs; made if need be.
    started
        What was said when the page was started.
    words
        What the command line says of each option of ``whyfooled explain``, by their parameters' names.
    host, port
        The address; the first free port from `PORT` on if None, and any if 0.
    ready
        Called with the page's address when it can be opened.

    Raises
    ------
    ModelError
        If Gradio is not installed.
    OutputError
        If the output folder cannot be written to.
    ParameterError
        If the address cannot be used.
    """
    _prepare(output)
    listening = _listen(host, port)
    uploads = Path(tempfile.mkdtemp(prefix="whyfooled-page-"))
    keeper = Keeper(uploads, output)
    try:
        # Before Gradio is imported, which reads them then.
        os.environ |= {**NO_RECORD, "GRADIO_TEMP_DIR": str(uploads / "dropped")}
        tempfile.tempdir = str(uploads)
        import_extra("gradio", "app", "The page")
        desk = Desk(output, started, Jobs(output, keeper), Uploads(uploads), Classes(started, keeper))
        uvicorn = import_extra("uvicorn", "app", "The page")
        # Of an open page something is always asked, so that waiting for the last answer would never end.
        config = uvicorn.Config(
            make_application(desk, words, host), log_level="error", timeout_graceful_shutdown=1, access_log=False
        )
        ready(_write_address(listening, host))
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        tempfile.tempdir = None
        listening.close()
        keeper.close()


def _prepare(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        sweep(output)
        with tempfile.TemporaryDirectory(prefix=".whyfooled-", dir=output):
            pass
    except OSError as error:
        raise OutputError(f"The output folder {output} cannot be written: {error.strerror or error}.") from None


def _listen(host: str, port: int | None) -> socket.socket:
    """Take the address before anything else is done, so that a mistake in it is found at once."""
    ports = range(PORT, PORT + _TRIED) if port is None else [port]
    for tried in ports:
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(host, tried, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError, OverflowError):
            raise _host_error(host) from None
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise _host_error(host) from None
            reason = error.strerror or str(error)
    fix = f"{reason}. Give --port another number, or 0 for any that is free."
    raise bad_parameter("--port", f"must be free on {host}", port if port is not None else f"{PORT} and the next", fix)


def _host_error(host: str) -> ParameterError:
    return bad_parameter("--host", "must be an address of this machine", repr(host))


def _write_address(listening: socket.socket, host: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}/"


def make_application(desk: Desk, words: Mapping[str, str], host: str) -> Any:
    """Make the web application: the page, and the files of runs."""
    import gradio as gr
    from fastapi import FastAPI

    from whyfooled.app.page import draw_page, make_theme, read_asset

    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    application.add_middleware(Guard, host=host)
    _add_files(application, desk.output)
    return gr.mount_gradio_app(
        application,
        draw_page(desk, words),
        path="/",
        theme=make_theme(),
        css=read_asset("page.css"),
        head=f"<script>{read_asset('page.js')}</script>",
        max_file_size=MOST_BYTES,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=True,
    )


def _add_files(application: Any, output: Path) -> None:
    """Add the addresses of the files of runs."""
    from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
    from starlette.background import BackgroundTask

    def get_archive(run: str) -> Any:
        if find_run(output, run) is None:
            return PlainTextResponse(f"There is no run {run!r}.", status_code=404)
        archive = _write_archive(output, run)
        return FileResponse(archive, filename=f"{run}.zip", background=BackgroundTask(archive.unlink, missing_ok=True))

    def get_file(run: str, name: str, part: str | None = None) -> Any:
        try:
            path = find_file(output, run, name)
        except ImageError as error:
            return PlainTextResponse(str(error), status_code=404)
        if name == PAGE and part in {known.name for known in PARTS}:
            return HTMLResponse(show_part(path.read_text(encoding="utf-8", errors="replace"), str(part)))
        return FileResponse(path)

    application.get("/runs/{run}.zip")(get_archive)
    application.get("/runs/{run}/{name:path}")(get_file)


def _write_archive(output: Path, run: str) -> Path:
    """Pack all files of a run that may be seen into one, which is to be deleted when it is sent."""
    number, name = tempfile.mkstemp(suffix=".zip")
    os.close(number)
    with zipfile.ZipFile(name, "w") as archive:
        for path in sorted((output / run).rglob("*")):
            inside = path.relative_to(output / run).as_posix()
            try:
                archive.write(find_file(output, run, inside), f"{run}/{inside}")
            except ImageError:  # a folder, or a link that leads out
                continue
    return Path(name)


class Guard:
    """Lets pages of this server ask it, and no other site that is open in the same browser.

    Parameters
    ----------
    application
        What answers.
    host
        The address that the server listens on: if it is this machine's own, it must be asked for by such a name.
    """

    def __init__(self, application: Any, host: str) -> None:
        self._application, self._is_here = application, host in _HERE

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or refuse to."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._may_ask(headers):
            await _refuse(send)
            return
        policy = _SANDBOX if scope["path"].startswith("/runs/") else _POLICY

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_write_headers(policy)]}
            await send(message)

        await self._application(scope, receive, send_guarded)

    def _may_ask(self, headers: Mapping[str, str]) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        # A name of another site may be made to lead here.
        named_right = not self._is_here or urlsplit(f"//{host}").hostname in _HERE
        return named_right and (origin is None or urlsplit(origin).netloc == host)


def _write_headers(policy: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]


async def _refuse(send: Any) -> None:
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"This page answers to its own address only."})
