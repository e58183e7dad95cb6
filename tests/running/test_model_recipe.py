"""How a model is loaded on the command line: what is said of photographs, and of what the model gives."""

import pytest
import torch

from tests.helpers.command_line import MODELS
from whyfooled import Fit
from whyfooled.cli._model import ModelOptions
from whyfooled.errors import ModelError, ParameterError


@pytest.fixture
def model(tmp_path):
    (tmp_path / "models.py").write_text(MODELS)
    return f"{tmp_path / 'models.py'}:"


@pytest.mark.parametrize(
    ("said", "fit"),
    [
        ({}, Fit(32)),
        ({"shorter_side": 40}, Fit(32, 40)),
        ({"squash": True}, Fit(32, squash=True)),
        ({"squash": True, "shorter_side": 40}, Fit(32, squashed=40)),
        ({"interpolation": "bilinear"}, Fit(32, interpolation="bilinear")),
    ],
)
def test_photographs_are_brought_to_the_input_size_as_it_is_said(model, said, fit):
    assert ModelOptions(f"{model}Net", size="32", **said).load("cpu", 0).fit == fit


def test_the_bundled_models_own_fit_can_be_changed():
    assert ModelOptions(squash=True).load("cpu", 0).fit == Fit(224, 256, squash=True)


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        ({"shorter_side": 0}, r"`--shorter-side` must be at least 1; got 0"),
        ({"interpolation": "bicubics"}, r"`interpolation` must be a known one; got 'bicubics'. Did you mean bicubic\?"),
    ],
)
def test_what_cannot_be_is_refused(model, said, refusal):
    with pytest.raises(ParameterError, match=refusal):
        ModelOptions(f"{model}Net", **said).load("cpu", 0)


def test_of_several_things_the_logits_are_chosen(model):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alone, first = (
        ModelOptions(f"{model}{name}", size="32", model_output=output)
        for name, output in (("Net", None), ("Pair", "0"))
    )
    assert torch.equal(first.load("cpu", 0).logits(images), alone.load("cpu", 0).logits(images))
    with pytest.raises(ModelError, match="`output` must be in what the model returns; got 'scores'"):
        ModelOptions(f"{model}Pair", size="32", model_output="scores").load("cpu", 0).logits(images)


def test_what_is_said_makes_a_run_another_one(model):
    assert ModelOptions(f"{model}Net").recipe(0).identity() == {}
    said = ModelOptions(f"{model}Net", channels="bgr", squash=True, shorter_side=40, ask="2").recipe(0).identity()
    assert list(said) == ["inputs", "shorter_side", "squash", "ask"]
    assert "channels='bgr'" in said["inputs"]


def test_a_label_is_asked_about(model):
    asked = ModelOptions(f"{model}Net", size="32", ask="2").load("cpu", 0)
    assert (asked.label, asked.class_count(), asked.name[-7:]) == (2, 2, "class 2")


def test_options_are_written_as_they_were_given():
    assert ModelOptions().write() == ""
    given = ModelOptions("onnx:filter.onnx", mean="104,117,123", channels="bgr", num_classes=2, squash=True)
    assert given.write() == "--model onnx:filter.onnx --num-classes 2 --mean 104,117,123 --channels bgr --squash"
    assert ModelOptions(model_output="logits", several_labels=True, ask="a cat").write() == (
        "--model-output logits --several-labels --ask 'a cat'"
    )
