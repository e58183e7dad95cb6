"""Functions of each value by itself, however they are spelled: which ones PyTorch has, and reading a call as one.

`FUNCTIONS` lists what computes each value of its output from the values in the same place of its inputs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.saliency.backward.calls import Call

Pure = Callable[..., Tensor]


class Function(NamedTuple):
    """A function of each value by itself.

    Parameters
    ----------
    name
        Its name, the same for all its spellings.
    compute
        It, in the order of arguments of its spelling.
    kind
        ``"same"``: gives the first argument's values, in another shape or type; ``"affine"``: is affine if only one
        argument depends on the images; ``"pick"``: gives the values of one of its arguments; ``"smooth"``: is smooth,
        or counts as such; ``""``: anything else.
    """

    name: str
    compute: Pure
    kind: str = ""


def _same(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
    return inputs


def _detached(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
    return inputs.detach()


def _cast(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Do what a change of type does, in double precision."""
    given = [*args, *kwargs.values()]
    types = [value.dtype if isinstance(value, Tensor) else value for value in given]
    wanted = next((kind for kind in types if isinstance(kind, torch.dtype)), None)
    if wanted is None:
        return inputs
    return inputs.to(torch.float64 if wanted.is_floating_point else wanted)


def _cast_to(dtype: torch.dtype) -> Pure:
    return lambda inputs, *_, **__: _cast(inputs, dtype)


def _assigned(inputs: Tensor, where: Tensor, value: Any) -> Tensor:
    return torch.where(where, value, inputs)


_AFFINE = ("add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide", "neg", "negative")
# fmt: off
_PICKS = (
    "where", "masked_fill", "maximum", "minimum", "fmax", "fmin", "max", "min", "clamp", "clip", "clamp_min",
    "clamp_max",
)
_SMOOTH = (
    "square", "sqrt", "rsqrt", "reciprocal", "exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "erf", "erfc",
    "expit", "sigmoid", "tanh", "sin", "cos", "tan", "sinh", "cosh", "asinh", "atan", "arctan", "pow", "float_power",
    "logaddexp", "xlogy", "logit", "softplus", "tanhshrink", "logsigmoid", "hardswish", "silu", "gelu", "mish", "elu",
    "celu", "selu", "lerp", "addcmul", "addcdiv",
)
_OTHERS = (
    "abs", "absolute", "sign", "sgn", "atan2", "hypot", "floor", "ceil", "round", "trunc", "frac", "nan_to_num",
    "heaviside", "copysign", "softsign", "hardshrink", "softshrink", "hardsigmoid", "leaky_relu", "prelu", "rrelu",
    "relu", "relu6", "hardtanh", "threshold", "lt", "le", "gt", "ge", "eq", "ne", "less", "less_equal", "greater",
    "greater_equal", "not_equal", "logical_not", "logical_and", "logical_or", "logical_xor", "bitwise_not",
    "bitwise_and", "bitwise_or", "bitwise_xor",
)
_SAME = (
    "positive", "clone", "contiguous", "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze",
    "unsqueeze",
)
# fmt: on
_WITH_DERIVATIVES: dict[str, Pure] = {"hardsigmoid": lambda inputs, *_, **__: (inputs + 3).clamp(0, 6) / 6}
"""Functions of which PyTorch has no second derivative, in other words."""
_SPECIAL: dict[str, tuple[str, Pure, str]] = {
    "detach": ("detach", _detached, "same"),
    "to": ("to", _cast, "same"),
    "type": ("type", _cast, "same"),
    "type_as": ("type_as", _cast, "same"),
    "float": ("float", _cast_to(torch.float64), "same"),
    "double": ("double", _cast_to(torch.float64), "same"),
    "half": ("half", _cast_to(torch.float64), "same"),
    "bfloat16": ("bfloat16", _cast_to(torch.float64), "same"),
    "bool": ("bool", _cast_to(torch.bool), "same"),
    "int": ("int", _cast_to(torch.int64), "same"),
    "long": ("long", _cast_to(torch.int64), "same"),
    "__rsub__": ("rsub", torch.rsub, "affine"),
    "__rdiv__": ("div", lambda inputs, other: other / inputs, ""),
    "__rtruediv__": ("div", lambda inputs, other: other / inputs, ""),
    "__rpow__": ("pow", lambda inputs, other: other**inputs, "smooth"),
    "__abs__": ("abs", torch.abs, ""),
    "__and__": ("bitwise_and", operator.and_, ""),
    "__rand__": ("bitwise_and", operator.and_, ""),
    "__or__": ("bitwise_or", operator.or_, ""),
    "__ror__": ("bitwise_or", operator.or_, ""),
    "__xor__": ("bitwise_xor", operator.xor, ""),
    "__invert__": ("bitwise_not", operator.invert, ""),
    "__setitem__": ("assignment", _assigned, "pick"),
    "where": ("where", lambda inputs, where, other: torch.where(where, inputs, other), "pick"),
}
"""Methods of a tensor that are not spelled like a function with the same arguments."""


def _kinds() -> Iterator[tuple[str, str]]:
    for kind, names in (("affine", _AFFINE), ("pick", _PICKS), ("smooth", _SMOOTH), ("", _OTHERS), ("same", _SAME)):
        yield from ((name, kind) for name in names)


def _functions() -> dict[Any, Function]:
    functions = {}
    homes = (torch, F, torch.special, Tensor)
    for name, kind in _kinds():
        known = [getattr(home, name) for home in homes if hasattr(home, name)]
        for home in homes:
            # A method's arguments are those of the function, which is asked because it never works in place.
            native = getattr(home if home is F else torch, name, known[0])
            compute = _same if kind == "same" else _WITH_DERIVATIVES.get(name, native)
            for spelling in (name, f"{name}_", f"__{name}__", f"__i{name}__"):
                if hasattr(home, spelling):
                    functions[getattr(home, spelling)] = Function(name, compute, kind)
    for spelling, (name, compute, kind) in _SPECIAL.items():
        for method in (spelling, f"{spelling}_"):
            if hasattr(Tensor, method):
                functions[getattr(Tensor, method)] = Function(name, compute, kind)
    functions[torch.detach] = functions[Tensor.detach]
    data: Any = Tensor.data
    functions[data.__get__] = functions[Tensor.detach]
    return functions


FUNCTIONS = _functions()
"""Every function of each value by itself, by what a mode sees of it."""


SUMS = ("add", "sub", "subtract", "rsub", "neg", "negative")
"""The functions that are affine in all of their arguments together."""


def function_of(call: Call) -> Function | None:
    """Return the function of each value that a call is of; None if it is none."""
    function = FUNCTIONS.get(call.function)
    if function is None or not call.args:
        return None
    arguments = len(call.args) + len(call.kwargs)
    if function.name in ("max", "min") and len(call.tensors) < 2:
        return None
    if function.name == "where" and arguments < 3:
        return None
    if call.function is Tensor.__setitem__:
        inputs, where = call.args[:2]
        is_mask = isinstance(where, Tensor) and where.dtype == torch.bool and where.shape == inputs.shape
        return function if is_mask else None
    return function


def kind_of(call: Call) -> str:
    """Return the kind of the function of each value that a call is of; empty for none."""
    function = function_of(call)
    return "" if function is None else function.kind


def title_of(call: Call) -> str:
    """Return what a call is called, without its spelling."""
    function = FUNCTIONS.get(call.function)
    return getattr(call.function, "__name__", "a call").strip("_") if function is None else function.name


def written_by(call: Call) -> Tensor | None:
    """Return the tensor that a call writes into; None if it makes a new one."""
    name = getattr(call.function, "__name__", "")
    is_method = (name.startswith("__i") and name != "__invert__") or name == "__setitem__"
    by_name = is_method or (name.endswith("_") and not name.endswith("__"))
    is_asked = call.kwargs.get("inplace") or any(argument is True for argument in call.args)
    return call.args[0] if call.args and (by_name or is_asked) and isinstance(call.args[0], Tensor) else None


def works_on_each_value(call: Call) -> bool:
    """Tell whether each value that a call makes is a function of one in the same place, not the same in all places."""
    if call.name == "batch_norm":
        return not call.given.get("training")
    return function_of(call) is not None


def stays_affine(call: Call, function: Function, signals: Sequence[Tensor]) -> bool:
    """Tell whether a call of a function of each value is affine in its signals together."""
    if function.kind == "same" or function.name in SUMS:
        return True
    is_first = len(signals) == 1 and signals[0] is call.args[0]
    is_product = function.name in ("mul", "multiply") and len(signals) == 1
    return is_product or (function.kind == "affine" and is_first and call.kwargs.get("rounding_mode") is None)
