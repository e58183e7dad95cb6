"""What a visitor set becomes a command line, and nothing that cannot stand on one does."""

import pytest
import typer

from whyfooled.app.request import ABSENT, FIELDS, GIVEN, Started, check_text, write_arguments
from whyfooled.cli._app import app
from whyfooled.errors import ParameterError

STARTED = Started("mine.py:Net", ("--mean", "0.5"), ("--device", "cuda"), ("lite0", "lite1"))


def test_every_option_of_the_command_line_has_its_place():
    command = typer.main.get_command(app).commands["explain"]
    places = [field.name for field in FIELDS] + sorted(GIVEN) + sorted(ABSENT - {"help"})
    assert sorted(places) == sorted(parameter.name for parameter in command.params)
    spelled = {parameter.name: parameter.opts + parameter.secondary_opts for parameter in command.params}
    assert all(field.option in spelled[field.name] for field in FIELDS if field.name != "images")
    assert {"--checks", "--no-checks"} <= set(spelled["checks"])


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
