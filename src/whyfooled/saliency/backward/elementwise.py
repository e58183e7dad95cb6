"""Functions of each value by itself, however they are spelled: which ones PyTorch has, and what several of them make.

`FUNCTIONS` lists what computes each value of its output from the values in the same place of its inputs. What a chain
of such calls computes can be computed again at chosen points: at `POINTS`, ``(h + h.abs()) / 2`` and ``h.clamp(min=0)``
are the same function, and ``h * torch.sigmoid(h)`` is another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = (1e-8, 1e-6, 1e-4, 0.01, 0.1, 0.25, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 2.9, 3, 3.1, 4, 5, 5.5, 6, 6.5, 7)
_FAR = (8, 10, 15, 20, 30, 50, 100, 1e3, 1e4, 1e6)
POINTS = torch.tensor([*(-step for step in reversed(_STEPS + _FAR)), 0, *_STEPS, *_FAR], dtype=torch.float64)
"""Where functions are compared: on both sides of 0, close to it and far away, and around the usual upper bounds."""

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
    """Do what a change of type does, in the precision of `POINTS`."""
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
            compute = _same if kind == "same" else getattr(home if home is F else torch, name, known[0])
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


Key = tuple[Any, ...]
"""Stands for values: equal keys, the same values place by place."""


@dataclass(frozen=True, eq=False)
class Values:
    """What the values of a tensor are functions of.

    Parameters
    ----------
    source
        The values that they are functions of, each of the one in its own place.
    origin
        The same, counted anew where constants that differ between places came in: each is the same function of its own.
    affine, settled
        Whether that function is affine; whether it is but for rectifiers that were recognised.
    behind
        Tensors whose values are affine functions of the same origin, with their versions: what this one is made of.
    parts, make
        The values that the last call took, and what it makes of them; no parts if these are the origin's own.
    """

    source: Key
    origin: Key
    affine: bool = True
    settled: bool = True
    behind: tuple[tuple[Tensor, int], ...] = ()
    parts: tuple[Values, ...] = ()
    make: Callable[[Sequence[Tensor]], Tensor] | None = None


def evaluate(values: Values, points: Tensor) -> Tensor | None:
    """Compute the function that values are of their origin at points (k,); None if it cannot be computed there."""
    known: dict[Values, Tensor] = {}

    def at_points(current: Values) -> Tensor:
        if current not in known:
            parts = [at_points(part) for part in current.parts]
            # Copies: some functions are asked to work in place.
            known[current] = points if current.make is None else current.make([part.clone() for part in parts])
        return known[current]

    with torch._C.DisableTorchFunction(), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        try:
            return at_points(values)
        except (RuntimeError, TypeError, ValueError):
            return None
