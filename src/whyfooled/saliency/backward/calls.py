"""Reading a call that PyTorch sees: which operation it is, however it was spelled, and what its arguments mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.saliency.backward.shares import Layer

Given = Mapping[str, Any]
"""The arguments of a call by name."""

_IN = ("input",)
_TWO = ("input", "other")
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _CONVOLUTION),
    "linear": ("input", "weight", "bias"),
    "matmul": _TWO,
    "mm": ("input", "mat2"),
    "addmm": ("input", "mat1", "mat2"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div"), _TWO),
    "neg": _IN,
    **dict.fromkeys(("mean", "sum"), _IN),
    **dict.fromkeys([f"{kind}_pool{d}d" for kind in ("avg", "adaptive_avg") for d in (1, 2, 3)], _IN),
    "interpolate": ("input", "size", "scale_factor", "mode"),
    **dict.fromkeys(("relu", "relu6", "selu", "elu", "celu", "tanh", "prelu"), _IN),
    **dict.fromkeys(("leaky_relu", "rrelu"), ("input", "slope", "slope_to", "training")),
    "hardtanh": ("input", "min", "max"),
    "clamp": ("input", "min", "max"),
    "clamp_min": ("input", "min"),
    "clamp_max": ("input", "max"),
    "threshold": ("input", "threshold", "value"),
}
"""The operations that have a relevance rule, with the names of the arguments that matter."""

_OTHER_NAMES = {
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add",
    "__sub__": "sub",
    "__isub__": "sub",
    "subtract": "sub",
    "__rsub__": "rsub",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__imul__": "mul",
    "multiply": "mul",
    "__div__": "div",
    "__truediv__": "div",
    "__itruediv__": "div",
    "__idiv__": "div",
    "divide": "div",
    "true_divide": "div",
    "__neg__": "neg",
    "negative": "neg",
    "__matmul__": "matmul",
    "clip": "clamp",
}
_SAME_ARGUMENT = {"self": "input", "min_val": "min", "max_val": "max"}


def _spellings() -> dict[Any, str]:
    names = {name: name for name in _ARGUMENTS} | _OTHER_NAMES
    names |= {f"{name}_": operation for name, operation in names.items() if not name.startswith("_")}
    spellings = {}
    for home in (torch, F, Tensor):
        for name, operation in names.items():
            if hasattr(home, name):
                spellings[getattr(home, name)] = operation
    # The function behind the one of torch.nn has another order of arguments, and nobody calls it.
    del spellings[torch.batch_norm]
    return spellings


_OPERATIONS = _spellings()

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
LAYERS = (*CONVOLUTIONS, "linear", "matmul", "mm", "addmm")
MIXTURES = tuple(name for name in _ARGUMENTS if name in ("mean", "sum", "interpolate") or "avg_pool" in name)


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a function of PyTorch."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        """Make the call."""
        return self.function(*self.args, **self.kwargs)

    def of(self, replace: Callable[[Tensor], Tensor]) -> Any:
        """Make the call with each tensor replaced."""
        return self.function(*replaced(self.args, replace), **replaced(self.kwargs, replace))

    def of_input(self) -> Callable[[Tensor], Tensor]:
        """Return the call as a function of its input."""
        original = self.given["input"]
        return lambda inputs: self.of(lambda tensor: inputs if tensor is original else tensor)

    @cached_property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, those in lists too."""
        return list(tensors_in((self.args, self.kwargs)))

    @cached_property
    def name(self) -> str:
        """The name of the operation, the same for all its spellings; empty for one without a relevance rule."""
        return _OPERATIONS.get(self.function, "")

    @cached_property
    def given(self) -> dict[str, Any]:
        """The arguments that matter, by name."""
        given = dict(zip(_ARGUMENTS.get(self.name, ()), self.args, strict=False))
        return given | {_SAME_ARGUMENT.get(key, key): value for key, value in self.kwargs.items()}

    @property
    def in_place(self) -> bool:
        """Whether it is an arithmetic method that writes into its input."""
        name: str = self.function.__name__
        return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Go through the tensors in arguments or results, those in lists too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def replaced(value: Any, replace: Callable[[Tensor], Any]) -> Any:
    """Replace each tensor in arguments, those in lists too."""
    if isinstance(value, Tensor):
        return replace(value)
    if isinstance(value, list | tuple):
        parts = [replaced(part, replace) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {key: replaced(part, replace) for key, part in value.items()}
    return value


def as_layer(call: Call) -> tuple[Tensor, Layer] | None:
    """Read a convolution or a product with a matrix as a layer: its inputs, and what it does with them."""
    name, given = call.name, call.given
    if name in CONVOLUTIONS:
        function, options = call.function, {key: given[key] for key in _CONVOLUTION[3:] if key in given}

        def convolve(inputs: Tensor, weight: Tensor) -> Tensor:
            outputs: Tensor = function(inputs, weight, None, **options)
            return outputs

        return given["input"], _layer(convolve, given["weight"], given.get("bias"), -1 - int(name[4]))
    if name == "linear":
        return given["input"], _layer(F.linear, given["weight"], given.get("bias"), -1)
    if name == "addmm":
        weight = given["mat2"].T * given.get("alpha", 1)
        bias = given["input"] * given.get("beta", 1)
        is_vector = bias.numel() in (1, len(weight)) and bias.shape[-1:].numel() == bias.numel()
        return (given["mat1"], _layer(F.linear, weight, bias.flatten().expand(len(weight)), -1)) if is_vector else None
    matrix = given["other" if name == "matmul" else "mat2"]
    return (given["input"], _layer(F.linear, matrix.T, None, -1)) if matrix.ndim == 2 else None


def _layer(apply: Callable[[Tensor, Tensor], Tensor], weight: Tensor, bias: Tensor | None, channel: int) -> Layer:
    return Layer(apply, weight.detach(), None if bias is None else bias.detach(), channel)


Number = Tensor | float
"""A constant of the model, a number or a tensor that is the same for all images."""


def as_affine(name: str, given: Given, signal: Tensor) -> tuple[Number, Number | None] | None:
    """Read ``scale · signal + shift`` with constants: scale and shift (None for no shift); None for anything else."""
    if name == "neg":
        return -1.0, None
    if name == "batch_norm":
        return None if given.get("training") else _normalisation(given)
    if name not in ("add", "sub", "rsub", "mul", "div") or given.get("rounding_mode") is not None:
        return None
    is_first = given["input"] is signal
    other = given["other" if is_first else "input"]
    other = other.detach() if isinstance(other, Tensor) else float(other)
    alpha = given.get("alpha", 1)
    if name == "mul":
        return other, None
    if name == "div":
        return (1 / other, None) if is_first else None
    if name == "add":
        return (1.0, alpha * other) if is_first else (alpha, other)
    if name == "sub":
        return (1.0, -alpha * other) if is_first else (-alpha, other)
    return (-alpha, other) if is_first else (1.0, -alpha * other)


def _normalisation(given: Given) -> tuple[Tensor, Tensor]:
    mean, variance = given["running_mean"], given["running_var"]
    scale = (variance + given.get("eps", 1e-5)).rsqrt()
    if given.get("weight") is not None:
        scale = scale * given["weight"]
    shift = -mean * scale
    if given.get("bias") is not None:
        shift = shift + given["bias"]
    shape = (-1, *[1] * (given["input"].ndim - 2))
    return scale.detach().view(shape), shift.detach().view(shape)


def keeps_sign(name: str, given: Given) -> bool:
    """Tell whether a call is an activation of each value by itself that maps 0 to 0 and turns no sign around."""
    if name in ("relu", "relu6", "selu", "elu", "celu", "tanh", "leaky_relu", "prelu", "rrelu"):
        return not given.get("training")
    if name == "threshold":
        return bool(given["threshold"] == given["value"] == 0)
    if name in ("hardtanh", "clamp", "clamp_min", "clamp_max"):
        standard = {"min": -1.0, "max": 1.0} if name == "hardtanh" else {"min": None, "max": None}
        low, high = ({**standard, **given}[key] for key in ("min", "max"))
        bounds = [bound for bound in (low, high) if bound is not None]
        return all(isinstance(b, int | float) for b in bounds) and (low or 0) <= 0 <= (high or 0)
    return False


def per_channel(value: Number, outputs: Tensor, channel: int) -> Tensor | None:
    """Return a constant as one number for each channel of a layer's outputs; None if it differs within a channel."""
    count = outputs.shape[channel]
    if not isinstance(value, Tensor):
        return outputs.new_full((count,), value)
    if value.numel() == 1 and value.ndim <= outputs.ndim:
        return value.to(outputs).reshape(1).expand(count)
    is_vector = value.numel() == count and -channel <= value.ndim <= outputs.ndim and value.shape[channel] == count
    return value.to(outputs).flatten() if is_vector else None
