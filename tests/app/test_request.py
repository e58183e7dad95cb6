"""What a visitor set becomes a command line, and nothing that cannot stand on one does."""

import pytest
import typer

from whyfooled.app.request import FIELDS, Started, check_text, write_arguments
from whyfooled.cli import main
from whyfooled.cli._app import app
from whyfooled.errors import ParameterError

STARTED = Started("mine.py:Net", ("--mean", "0.5"), ("--device", "cuda"), ("lite0", "lite1"))


OF_MANY = {"labels", "count", "detector", "clean"}
"""Options that take many photographs: the page is given one."""
OF_PRINTING = {"quiet"}
COMMANDS = typer.main.get_command(app).commands
EXPLAIN = {parameter.name: parameter for parameter in COMMANDS["explain"].params}
AT_THE_START = {parameter.name: parameter for parameter in COMMANDS["app"].params if parameter.name in EXPLAIN}


def test_every_option_of_the_command_line_is_on_the_page_or_said_when_it_is_started():
    on_the_page = {field.name for field in FIELDS}
    assert len(on_the_page) == len(FIELDS)
    assert on_the_page | set(AT_THE_START) == set(EXPLAIN) - OF_MANY - OF_PRINTING
    spelled = {name: parameter.opts + parameter.secondary_opts for name, parameter in EXPLAIN.items()}
    assert all(field.option in spelled[field.name] for field in FIELDS if field.name != "images")
    assert {"--checks", "--no-checks"} <= set(spelled["checks"])


@pytest.mark.parametrize("name", sorted(set(AT_THE_START) - {"output"}))
def test_what_is_said_at_the_start_is_said_to_every_job(name, monkeypatch):
    option = AT_THE_START[name]
    words = [option.opts[0]] if option.is_flag else [option.opts[0], "7"]
    heard = []
    monkeypatch.setattr("whyfooled.app.server.serve", lambda output, started, *_, **__: heard.append(started))
    monkeypatch.setattr("sys.argv", ["whyfooled", "app", *words])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert write_arguments({}, *heard) == words


def test_what_is_left_empty_is_left_to_the_command_line():
    empty = {field.name: [] if field.kind == "names" else None for field in FIELDS} | {"forge": False, "target": ""}
    assert write_arguments(empty, Started()) == []
    assert write_arguments({}, STARTED) == ["--model", "mine.py:Net", "--mean", "0.5", "--device", "cuda"]


def test_each_kind_of_setting_is_written():
    values = {
        "images": "/t/cat.jpg",
        "attack": " bim(steps=3) ",
        "methods": ["guided", "enhanced(base=gradient)"],
        "model": "torchvision:vgg16",
        "adversarial": "/t/x.pt",
        "forge": True,
        "checks": False,
        "steps": "12",
    }
    assert write_arguments(values, STARTED) == [
        "/t/cat.jpg",
        *("--attack", "bim(steps=3)"),
        *("--methods", "guided,enhanced(base=gradient)"),
        *("--model", "torchvision:vgg16"),
        *("--adversarial", "/t/x.pt"),
        *("--steps", "12"),
        "--no-checks",
        "--forge",
        *("--device", "cuda"),
    ]
    assert "--checks" in write_arguments({"checks": True}, Started())


@pytest.mark.parametrize(
    "model", ["/etc/passwd.py:f", "other.py:Net", "onnx:net.onnx", "hf:folder", "hf:owner/name", "../lite0", "nonsense"]
)
def test_no_file_of_the_machine_is_named_by_a_visitor(model):
    with pytest.raises(ParameterError, match=r"`--model` must be one of lite0, lite1, torchvision:NAME or timm:NAME"):
        write_arguments({"model": model}, STARTED)


@pytest.mark.parametrize("text", ["a\0b", "two\nlines", "\x1b[2J", "\ud800"])
def test_what_cannot_be_typed_is_refused(text):
    with pytest.raises(ParameterError, match="`--target` must be one line"):
        write_arguments({"target": text}, STARTED)


def test_a_text_has_an_end():
    assert check_text("--target", "x" * 2000) == "x" * 2000
    with pytest.raises(ParameterError, match="`--target` must have at most 2000 characters; got 2001"):
        check_text("--target", "x" * 2001)
