"""What is said of a text that names no model, of a library that does not fit, and of files that hold no weights."""

import importlib

import pytest

from whyfooled.classifier.inputs import InputFormat
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ModelError, ParameterError


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("filter.onnx", "Write onnx:filter.onnx."),
        ("mine.py", "Write mine.py:NAME, the function or class in it that gives the model (there are One, make)."),
        ("gone.py", "Write gone.py:NAME, the function or class in it that gives the model."),
        ("vit", "Write hf:vit, if it is a folder that save_pretrained wrote."),
        (
            "w.pth",
            "That is a file of weights: give it as weights (--weights), and as the model what it was trained with.",
        ),
        ("resnet18", "Did you mean torchvision:resnet18?"),
    ],
)
def test_a_file_or_a_folder_says_how_it_is_written(model, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import os\n\nclass One:\n    pass\n\ndef make():\n    raise SystemExit\n")
    (tmp_path / "vit").mkdir()
    (tmp_path / "w.pth").touch()
    with pytest.raises(ParameterError) as refused:
        load_classifier(model, inputs=InputFormat(mean=(0.5,)))
    assert str(refused.value).startswith("`model` must be one of lite0, lite1, lite2, torchvision:NAME, ")
    assert str(refused.value).endswith(f"; got {model!r}. {said}")


@pytest.mark.parametrize("model", ["lite0", "torchvision:resnet18", "timm:resnet18", "resnet18"])
def test_a_torchvision_of_another_torch_is_said_in_a_sentence(model, monkeypatch):
    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ModelError) as refused:
        load_classifier(model, weights="random")
    said = str(refused.value)
    assert said.startswith("torch ")
    assert said.endswith(
        " do not fit each other (operator torchvision::nms does not exist). Install both in one command, "
        "from one index: pip install --upgrade torch torchvision"
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.txt",
            b"apple\nbanana\ncherry\n",
            "it is no file of weights, neither safetensors nor written by torch.save",
        ),
        ("a.safetensors", b"apple\nbanana\n", "it is not safetensors, or damaged"),
        ("a.pth", b"PK\x03\x04" + bytes(100), "it is damaged, or was not written to its end"),
    ],
)
def test_a_file_without_weights_is_named_without_the_words_of_a_parser(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as refused:
        load_classifier("torchvision:squeezenet1_1", weights=tmp_path / name)
    assert str(refused.value) == f"The weights file {tmp_path / name} cannot be read: {said}."
