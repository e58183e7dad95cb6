"""Models from ONNX files, converted to PyTorch, so that they have layers and gradients."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from whyfooled.classifier.calling import call_module
from whyfooled.classifier.classifier import Classifier, find_precision
from whyfooled.classifier.extras import import_extra
from whyfooled.classifier.fit import Fit
from whyfooled.classifier.inputs import InputFormat, Layout, wrap_module
from whyfooled.errors import ModelError, bad_parameter, first_line
from whyfooled.images import is_file

_EXTRA = "onnx"
_OPSETS = range(17, 10, -1)
"""Versions of ONNX that the converter knows most operations of, to which newer files are brought."""


def make_from_onnx(path: Path, inputs: InputFormat, output: str | int | None = None) -> Classifier:
    """Make a classifier of an ONNX file, and of what is said of its input and of which of its outputs are the logits.

    Raises
    ------
    ModelError
        If the file cannot be read or converted, or what it takes is neither in it nor said.
    """
    name = f"onnx:{path}"
    if not is_file(path):
        raise ModelError(f"There is no ONNX file {path}.")
    onnx = import_extra("onnx", _EXTRA, name)
    try:
        model = onnx.load(path)
    except Exception as error:  # damaged files raise whatever the parser stumbles over
        raise ModelError(f"{path} cannot be read as an ONNX file: {first_line(error)}.") from None
    shape = _read_input_shape(onnx, model, name)
    said = _complete(inputs, shape, name)
    place = _choose_output(model, name) if output is None else _find_output(model, name, output)
    module = _convert(onnx, model, name)
    _compare(path, name, module, shape, said)
    channels = shape[1] if said.layout == "nchw" else shape[3]
    return wrap_module(_take_batches(module, shape, said), said, channels, output=place)


def _read_input_shape(onnx: Any, model: Any, name: str) -> tuple[int | None, ...]:
    """Return the four sizes of the one input, None where the file leaves them open."""
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in weights]
    if len(given) != 1:
        listed = ", ".join(value.name for value in given) or "none"
        raise ModelError(f"{name} must have one input, the images; it has {len(given)}: {listed}.")
    kind = given[0].type.tensor_type
    shape = tuple(side.dim_value or None for side in kind.shape.dim)
    if len(shape) != 4:
        raise ModelError(f"{name} must take images, with four axes; its input {given[0].name} has {len(shape)}.")
    if kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
        type_name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise ModelError(
            f"{name} must take floating-point numbers, for a gradient; its input {given[0].name} is {type_name}. "
            "Export the model without the conversion before it."
        )
    return shape


def _complete(inputs: InputFormat, shape: tuple[int | None, ...], name: str) -> InputFormat:
    """Return what the model takes, from what is said and what the file says; ask for the rest in one sentence."""
    layout: Layout | None = inputs.layout
    if (shape[1] in (1, 3)) != (shape[3] in (1, 3)):
        told: Layout = "nchw" if shape[1] in (1, 3) else "nhwc"
        if layout not in (None, told):
            where = "first" if told == "nchw" else "last"
            axes = ", ".join("n" if side is None else str(side) for side in shape)
            raise ModelError(
                f"{name} has its channels {where}, as its input ({axes}) says, and `layout` is {layout}. Leave out "
                "`layout`."
            )
        layout = told
    sides = shape[1:3] if layout == "nhwc" else shape[2:]
    known = None if layout is None or None in sides else (int(sides[0] or 0), int(sides[1] or 0))
    missing = {
        "--mean 0.485,0.456,0.406": inputs.mean is None,
        "--std 0.229,0.224,0.225": inputs.std is None,
        "--layout nchw": layout is None,
        "--size 224": known is None and inputs.size is None,
    }
    options = [option for option, is_missing in missing.items() if is_missing]
    if options:
        raise ModelError(
            f"{name} does not say all of what it takes. Say it, such as {' '.join(options)} (and --scale 255 where "
            "white is 255, --channels bgr where blue comes first; --mean 0 --std 1 where nothing is normalised), in "
            "Python with load_classifier(inputs=InputFormat(...))."
        )
    given = None if inputs.size is None else Fit(inputs.size).size
    if known is not None and given not in (None, known):
        raise ModelError(
            f"{name} takes images of {known[0]} × {known[1]} pixels, and {given[0]} × {given[1]} are asked for. Leave "
            "out the size."
        )
    return replace(inputs, layout=layout, size=given or known)


def _convert(onnx: Any, model: Any, name: str) -> nn.Module:
    """Convert a model, in the version that it is in or in an older one."""
    converter = import_extra("onnx2torch", _EXTRA, name)
    _unshare_weights(model)
    reason = ""
    version = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    for older in (None, *(each for each in _OPSETS if each < version)):
        try:
            brought = model if older is None else onnx.version_converter.convert_version(model, older)
            module: nn.Module = converter.convert(brought)
        except Exception as error:  # each of the two fails in its own way
            reason = reason or _explain(error)
        else:
            return module
    raise ModelError(
        f"{name} cannot be converted to PyTorch: {reason}. Export it again with an older version of ONNX "
        "(opset_version=13), or give the model that it was made of."
    )


def _unshare_weights(model: Any) -> None:
    """Give each weight a tensor: exporters let equal ones be copies of one, which the converter does not follow."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "Identity" and node.input[0] in weights:
            copied = model.graph.initializer.add()
            copied.CopyFrom(weights[node.input[0]])
            copied.name = node.output[0]
            weights[copied.name] = copied
            model.graph.node.remove(node)


def _explain(error: Exception) -> str:
    operation = re.search(r"operation_type='(\w+)', version=(\d+)", str(error))
    if operation:
        return (
            f"it has the operation {operation[1]} (version {operation[2]}), which the package onnx2torch does not know"
        )
    return first_line(error)


def _choose_output(model: Any, name: str) -> int | None:
    """Return which of several outputs are the logits: the one called so, or the only one with a row for each image."""
    outputs = model.graph.output
    if len(outputs) == 1:
        return None
    called = [place for place, value in enumerate(outputs) if value.name == "logits"]
    rows = [place for place, value in enumerate(outputs) if len(value.type.tensor_type.shape.dim) == 2]
    for places in (called, rows):
        if len(places) == 1:
            return places[0]
    raise ModelError(
        f"{name} must have one output, or one that is called logits; it has {len(outputs)}: {_list_outputs(model)}. "
        "Say which: --model-output, in Python load_classifier(output=...)."
    )


def _list_outputs(model: Any) -> str:
    return ", ".join(value.name for value in model.graph.output)


def _find_output(model: Any, name: str, wanted: str | int) -> int | None:
    """Return the place of an output, by its name or its place; None if it is the only one."""
    names = [value.name for value in model.graph.output]
    place = names.index(wanted) if wanted in names else wanted
    if not isinstance(place, int) or not 0 <= place < len(names):
        rule = f"must be an output of {name}, by its name or its place"
        raise bad_parameter("output", rule, repr(wanted), f"There are: {_list_outputs(model)}.")
    return place if len(names) > 1 else None


_ROUNDING = 1e-3
"""How far the file's own answer may be off, as a share of its spread. [ours]"""


def _compare(path: Path, name: str, module: nn.Module, shape: tuple[int | None, ...], said: InputFormat) -> None:
    """Raise `ModelError` if a converted model answers otherwise than its file, where ONNX's runtime is installed."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return
    height, width = Fit(said.size or 1).size
    channels = shape[1] if said.layout == "nchw" else shape[3]
    sides = (channels or 3, height, width) if said.layout == "nchw" else (height, width, channels or 3)
    images = torch.rand(shape[0] or 1, *sides, generator=torch.Generator().manual_seed(0))
    inputs = images.to(find_precision(module) or images.dtype)
    if inputs.dtype == torch.float16:  # rounded otherwise in every layer
        return
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        expected = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    except Exception:  # what it does not know, the converter may
        return
    with torch.no_grad():
        answer = call_module(module, inputs)
    for ours, theirs in zip(answer if isinstance(answer, tuple | list) else [answer], expected, strict=True):
        wanted = torch.as_tensor(theirs).double()
        off = float((ours.double() - wanted).abs().max()) if ours.shape == wanted.shape else float("inf")
        if not off <= _ROUNDING * float(wanted.abs().max()):
            raise ModelError(
                f"{name} answers otherwise once it is converted to PyTorch: {off:.2g} off, where the largest number is "
                f"{float(wanted.abs().max()):.2g}. Give the model that it was made of."
            )


def _take_batches(module: nn.Module, shape: tuple[int | None, ...], said: InputFormat) -> nn.Module:
    """Let a model that was exported for one image take several; as it is, if it does so by itself."""
    if shape[0] is None:
        return module
    height, width = Fit(said.size or 1).size
    channels = (shape[1] if said.layout == "nchw" else shape[3]) or 3
    batch = torch.zeros(2, channels, height, width)
    try:
        with torch.no_grad():
            answer = call_module(module, batch.permute(0, 2, 3, 1) if said.layout == "nhwc" else batch)
    except ModelError:
        return OneByOne(module)
    parts = answer if isinstance(answer, tuple | list) else [answer]
    return module if all(isinstance(part, Tensor) and len(part) == 2 for part in parts) else OneByOne(module)


@final
class OneByOne(nn.Module):
    """A module that is given the images of a batch one by one.

    Parameters
    ----------
    module
        The module, which takes one.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Any:
        """Compute what the module gives for each image, one below the other."""
        answers = [self.module(images[place : place + 1]) for place in range(len(images))]
        if isinstance(answers[0], Tensor):
            return torch.cat(answers)
        return tuple(torch.cat(parts) for parts in zip(*answers, strict=True))
