"""The server behind the page: who may ask it, and which files it gives."""

import asyncio
import socket

import pytest

from whyfooled.app.request import Started
from whyfooled.app.server import Guard, serve
from whyfooled.errors import OutputError, ParameterError


async def _answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"yes"})


def ask(listening, path="/", **headers):
    """Ask a guarded server that listens on a host; return the status and the content policy."""
    sent = []

    async def send(message):
        sent.append(message)

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "headers": named}
    asyncio.run(Guard(_answer, listening)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"content-security-policy", b"").decode()


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860"])
def test_the_page_answers_by_its_own_names(host):
    status, policy = ask("127.0.0.1", host=host, origin=f"http://{host}")
    assert status == 200
    assert "default-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:7860"},
        {"host": ""},
        {"host": "127.0.0.1.evil.example"},
        {"host": "127.0.0.1:7860", "origin": "http://evil.example"},
        {"host": "127.0.0.1:7860", "origin": "null"},
        {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:8000"},
    ],
)
def test_no_other_site_may_ask_it(headers):
    assert ask("127.0.0.1", **headers)[0] == 403


def test_an_address_of_the_network_is_asked_by_any_name_but_from_no_other_site():
    assert ask("0.0.0.0", host="box.lan:7860")[0] == 200
    assert ask("0.0.0.0", host="box.lan:7860", origin="http://evil.example")[0] == 403


def test_a_run_may_do_nothing_to_the_page():
    assert ask("127.0.0.1", path="/runs/a/report.html", host="localhost")[1].startswith("sandbox allow-scripts;")


def never(address):
    raise AssertionError


def test_an_output_folder_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"The output folder .* cannot be written"):
        serve(tmp_path / "file", Started(), {}, ready=never)
    with pytest.raises(OutputError):
        serve(tmp_path / "file" / "below", Started(), {}, ready=never)


def test_an_address_that_cannot_be_used_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ParameterError, match=r"`--port` must be free on .*; got \d+\. Address already in"):
            serve(tmp_path, Started(), {}, port=taken.getsockname()[1], ready=never)
    with pytest.raises(
        ParameterError, match=r"`--host` must be an address of this machine; got 'no.such.host.invalid'"
    ):
        serve(tmp_path, Started(), {}, host="no.such.host.invalid", port=0, ready=never)
    with pytest.raises(ParameterError, match=r"`--host` must be an address of this machine; got '192.0.2.1'"):
        serve(tmp_path, Started(), {}, host="192.0.2.1", port=0, ready=never)
