"""ONNX files: the logits of the model that they were made of, with gradients; what they do not say is asked for."""

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.helpers.onnx_export import export
from whyfooled import GradCAM, Gradient, Untargeted, run_attack
from whyfooled.attacks import FGSM
from whyfooled.classifier.inputs import InputFormat
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ModelError, ParameterError

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
pytest.importorskip("onnx2torch")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODEL = "torchvision:shufflenet_v2_x0_5"


class Net(nn.Module):
    """Takes 8 × 8 pixels in the order of channels and axes that it is told."""

    def __init__(self, make=lambda z: z, last=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 3)
        self.make, self.last = make, last

    def forward(self, x):
        x = x.permute(0, 3, 1, 2) if self.last else x
        return self.make(self.head(torch.relu(self.conv(x)).flatten(1)))


SAID = InputFormat(mean=(0.0,), std=(1.0,))
SMALL = (1, 3, 8, 8)
IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_model_by_name_from_its_checkpoint_and_through_onnx_has_the_same_logits(tmp_path):
    by_name = load_classifier(MODEL, weights="random", num_classes=7)
    torch.save({"epoch": 3, "state_dict": by_name.module.state_dict()}, tmp_path / "checkpoint.pth")
    from_checkpoint = load_classifier(MODEL, weights=tmp_path / "checkpoint.pth")
    export(by_name.module, tmp_path / "model.onnx", shape=(1, 3, 224, 224))
    through_onnx = load_classifier(f"onnx:{tmp_path / 'model.onnx'}", inputs=InputFormat(mean=MEAN, std=STD))
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = by_name.logits(images)
    for classifier in (from_checkpoint, through_onnx):
        assert classifier.class_count() == 7
        assert torch.allclose(classifier.logits(images), expected, atol=1e-4)
    assert through_onnx.size == (224, 224)


class TestConversion:
    @pytest.mark.parametrize("opset", [11, 13, 17, 18])
    def test_maps_and_attacks_are_those_of_the_module(self, tmp_path, opset):
        file = export(Net(), tmp_path / "net.onnx", SMALL, opset=opset)
        classifier, labels = load_classifier(f"onnx:{file}", inputs=SAID), torch.tensor([0, 1])
        (leaf,) = (IMAGES.clone().requires_grad_(),)
        logits = Net()(leaf)
        assert torch.allclose(classifier.logits(IMAGES), logits, atol=1e-5)
        expected = torch.autograd.grad(logits[[0, 1], labels].sum(), leaf)[0]
        assert torch.allclose(Gradient()(classifier, IMAGES, labels), expected, atol=1e-5)
        assert GradCAM()(classifier, IMAGES, labels).shape == (2, 1, 8, 8)
        assert run_attack(FGSM(), classifier, IMAGES, Untargeted(labels)).adversarial.shape == IMAGES.shape

    def test_a_file_for_one_image_takes_several(self, tmp_path):
        class Fixed(Net):
            def forward(self, x):
                return super().forward(x).reshape(1, 3)

        for module in (Net(), Fixed()):
            file = export(module, tmp_path / "one.onnx", SMALL, open_axes=())
            assert torch.allclose(load_classifier(f"onnx:{file}", inputs=SAID).logits(IMAGES), Net()(IMAGES), atol=1e-5)

    def test_channels_last_are_seen_and_blue_first_is_said(self, tmp_path):
        file = export(Net(last=True), tmp_path / "last.onnx", (1, 8, 8, 3))
        classifier = load_classifier(f"onnx:{file}", inputs=InputFormat((0.0,), (1.0,), "bgr", scale=255))
        assert torch.allclose(classifier.logits(IMAGES), Net()(255 * IMAGES.flip(1)), rtol=1e-4, atol=1e-2)

    @pytest.mark.parametrize("names", [["features", "logits"], ["z", "y"]])
    def test_of_several_outputs_the_logits_are_found(self, tmp_path, names):
        module = Net(lambda z: (z[:, :, None], z))
        file = export(module, tmp_path / "two.onnx", SMALL, output_names=names)
        assert torch.allclose(load_classifier(f"onnx:{file}", inputs=SAID).logits(IMAGES), Net()(IMAGES), atol=1e-5)

    @pytest.mark.parametrize("output", ["y", 1])
    def test_of_several_outputs_one_is_named(self, tmp_path, output):
        file = export(Net(lambda z: (z + 1, z)), tmp_path / "two.onnx", SMALL, output_names=["x", "y"])
        classifier = load_classifier(f"onnx:{file}", inputs=SAID, output=output)
        assert torch.allclose(classifier.logits(IMAGES), Net()(IMAGES), atol=1e-5)
        with pytest.raises(ParameterError, match=r"`output` must be an output of onnx:.*; got 'z'. There are: x, y\."):
            load_classifier(f"onnx:{file}", inputs=SAID, output="z")

    @pytest.mark.filterwarnings("error::whyfooled.errors.WhyfooledWarning")
    def test_a_softmax_at_the_end_is_taken_off(self, tmp_path):
        file = export(Net(lambda z: z.softmax(1)), tmp_path / "soft.onnx", SMALL)
        assert torch.allclose(load_classifier(f"onnx:{file}", inputs=SAID).logits(IMAGES), Net()(IMAGES), atol=1e-5)


def make_file(path, nodes, shape=("n", 3, 8, 8), kind=1, inputs=("x",), opset=17, outputs=("y",)):
    """Write a file of operations, whose outputs have two axes."""
    make = onnx.helper
    graph = make.make_graph(
        nodes,
        "graph",
        [make.make_tensor_value_info(name, kind, shape) for name in inputs],
        [make.make_tensor_value_info(name, kind, ["n", 4]) for name in outputs],
    )
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", opset)]), path)
    return path


def node(operation, made="y"):
    return onnx.helper.make_node(operation, ["x"], [made])


class Runtime:
    """In place of ONNX's runtime, which need not be installed: its own, slow one, with `off` added."""

    def __init__(self, off):
        self.off = off

    def InferenceSession(self, path, providers):
        evaluator = reference.ReferenceEvaluator(path)
        return SimpleNamespace(
            get_inputs=lambda: [SimpleNamespace(name=evaluator.input_names[0])],
            run=lambda names, given: [values + self.off for values in evaluator.run(names, given)],
        )


@pytest.mark.parametrize("last", [False, True])
def test_what_the_file_answers_is_compared(tmp_path, monkeypatch, last):
    file = export(Net(last=last), tmp_path / "net.onnx", (1, 8, 8, 3) if last else SMALL)
    monkeypatch.setitem(sys.modules, "onnxruntime", Runtime(off=0))
    load_classifier(f"onnx:{file}", inputs=SAID)
    monkeypatch.setitem(sys.modules, "onnxruntime", Runtime(off=5))
    with pytest.raises(
        ModelError, match=r"answers otherwise once it is converted to PyTorch: 5 off, where the largest number is \d"
    ):
        load_classifier(f"onnx:{file}", inputs=SAID)


class TestRefusals:
    @pytest.mark.parametrize(
        ("last", "shape", "given", "where"), [(True, (1, 8, 8, 3), "nchw", "last"), (False, SMALL, "nhwc", "first")]
    )
    def test_a_layout_that_contradicts_the_file_is_refused(self, tmp_path, last, shape, given, where):
        file = export(Net(last=last), tmp_path / "a.onnx", shape, open_axes=())
        said = replace(SAID, layout=given)
        with pytest.raises(ModelError) as refused:
            load_classifier(f"onnx:{file}", inputs=said)
        assert str(refused.value) == (
            f"onnx:{file} has its channels {where}, as its input {shape} says, and `layout` is {given}. "
            "Leave out `layout`."
        )

    def refuse(self, path, inputs=SAID):
        with pytest.raises(ModelError) as refused:
            load_classifier(f"onnx:{path}", inputs=inputs)
        return str(refused.value).replace(f"onnx:{path}", "IT").replace(str(path), "IT")

    def test_what_the_file_does_not_say_is_asked_for_in_one_sentence(self, tmp_path):
        file = make_file(tmp_path / "a.onnx", [node("Flatten")], ("n", "c", "h", "w"))
        said = self.refuse(file, InputFormat())
        assert said.startswith(
            "IT does not say all of what it takes. Say it, such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 "
            "--layout nchw --size 224 (and --scale 255"
        )
        assert "such as --size 224 (and" in self.refuse(file, InputFormat((0.0,), (1.0,), layout="nchw"))
        one = make_file(tmp_path / "b.onnx", [node("Flatten")])
        assert "such as --std 0.229,0.224,0.225 (and" in self.refuse(one, InputFormat((0.0,)))

    def test_what_cannot_be_converted_is_named(self, tmp_path):
        assert self.refuse(make_file(tmp_path / "a.onnx", [node("Hardmax")])) == (
            "IT cannot be converted to PyTorch: it has the operation Hardmax (version 13), which the package "
            "onnx2torch does not know. Export it again with an older version of ONNX (opset_version=13), or give the "
            "model that it was made of."
        )

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"inputs": ("x", "z")}, "IT must have one input, the images; it has 2: x, z."),
            ({"shape": ("n", 3)}, "IT must take images, with four axes; its input x has 2."),
            (
                {"kind": 2},
                "IT must take floating-point numbers, for a gradient; its input x is uint8. Export",
            ),
        ],
    )
    def test_another_input_is_refused(self, tmp_path, options, said):
        assert self.refuse(make_file(tmp_path / "a.onnx", [node("Flatten")], **options)).startswith(said)

    def test_several_outputs_of_which_none_is_called_logits_are_listed(self, tmp_path):
        file = make_file(tmp_path / "a.onnx", [node("Flatten", "a"), node("Flatten", "b")], outputs=("a", "b"))
        assert self.refuse(file) == (
            "IT must have one output, or one that is called logits; it has 2: a, b. Say which: --model-output, in "
            "Python load_classifier(output=...)."
        )

    def test_another_size_than_the_files_is_refused(self, tmp_path):
        file = make_file(tmp_path / "a.onnx", [node("Flatten")])
        said = self.refuse(file, InputFormat((0.0,), (1.0,), size=9))
        assert said == "IT takes images of 8 × 8 pixels, and 9 × 9 are asked for. Leave out the size."

    def test_what_is_no_such_file_is_refused(self, tmp_path):
        assert self.refuse(tmp_path / "none.onnx") == "There is no ONNX file IT."
        (tmp_path / "a.onnx").write_bytes(b"PK\x03\x04 something else")
        assert re.fullmatch(r"IT cannot be read as an ONNX file: .*\.", self.refuse(tmp_path / "a.onnx"))

    def test_weights_and_other_classes_have_no_place(self, tmp_path):
        file = make_file(tmp_path / "a.onnx", [node("Flatten")])
        with pytest.raises(ParameterError, match="`weights` must be left out for an ONNX file, which has its own; got"):
            load_classifier(f"onnx:{file}", weights="random", inputs=SAID)
        with pytest.raises(ModelError, match="has 192 classes, and 3 are asked for"):
            load_classifier(f"onnx:{file}", num_classes=3, inputs=SAID)

    def test_without_the_package_the_command_that_installs_it_is_said(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "onnx2torch", None)
        assert self.refuse(make_file(tmp_path / "a.onnx", [node("Flatten")])) == (
            "IT needs the package onnx2torch, which is not installed. Install whyfooled with its extra onnx: pip "
            "install '.[onnx]' in the clone that it was installed from."
        )
