"""Calls that may be activations in disguise, and why.

A product of two signals is a gate where they are made of different values (``x * sigmoid(linear(pooled(x)))``), and an
activation where each value is multiplied by a function of itself (``x * sigmoid(1.7 * x)``, ``x * (x > 1)``); for the
graph, the two are the same. So it is with choices among values, and with what is written by a mask.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.saliency.backward.calls import Call
from whyfooled.saliency.backward.elementwise import SUMS, function_of, kind_of, title_of
from whyfooled.saliency.backward.gates import GatedCall
from whyfooled.saliency.backward.rectifiers import Rectifier
from whyfooled.saliency.backward.values import Values


@dataclass(frozen=True, eq=False)
class Doubt:
    """Why a step may be an activation in disguise.

    Parameters
    ----------
    step
        The step, in words.
    bends
        Whether it may be an activation that is not smooth.
    """

    step: str
    bends: bool


@dataclass(frozen=True, eq=False)
class Step:
    """A call that is about to be made.

    Parameters
    ----------
    call
        The call.
    signals, values
        Its tensors that depend on the images, one for each time that they are given, and what their values are.
    hidden
        Those that depend on them by no derivative, such as masks.
    leaves_image
        Whether it cuts off the values of what is still image, and none had to be.
    mixes
        Whether it chooses among values that lie side by side, of a signal and a constant or a function of itself.
    outcome
        What the values of its result will be, if it is one function of each value of one origin.
    rectifier
        How to make it as a rectifier, if it is one.
    gated
        How to make it as another activation with a gate, if it is one and these are looked for.
    versions, nodes
        The versions of its tensors, and the nodes of the graph that it begins at, before it.
    """

    call: Call
    signals: list[Tensor]
    values: list[Values]
    hidden: list[Tensor]
    leaves_image: bool
    mixes: bool
    outcome: Values | None
    rectifier: Rectifier | None
    gated: GatedCall | None
    versions: list[tuple[Tensor, int]]
    nodes: set[Any]

    @functools.cached_property
    def doubt(self) -> Doubt | None:
        """Why the call may be an activation in disguise; None if it is in no doubt, or known for what it is."""
        return None if self.is_recognised else _doubt(self)

    @property
    def is_recognised(self) -> bool:
        """Whether the call is known for what it is."""
        is_activation = self.rectifier is not None or self.gated is not None
        return self.leaves_image or is_activation or self.call.function in _WHOLE

    @property
    def shares_source(self) -> bool:
        """Whether two of its signals are functions, place by place, of the same values."""
        return len({values.source for values in self.values}) < len(self.values)


def _doubt(step: Step) -> Doubt | None:
    """Tell why a call may be an activation in disguise; None if there is no reason."""
    function, title = function_of(step.call), title_of(step.call)
    if function is not None and function.kind == "same":
        return None
    if step.mixes:
        return Doubt(f"{title} of a signal and a constant or a function of itself", bends=title != "logsumexp")
    if step.hidden:
        return Doubt(f"{title} with a mask made of the signal", bends=True) if _masks(step) else None
    if title in (*SUMS, "where", "masked_fill") or not _multiplies(step.call):
        return None
    bends = kind_of(step.call) == "pick"
    if step.shares_source:
        return Doubt(f"{title} of a signal and a function of itself", bends)
    return Doubt(f"{title} with a constant", bends) if bends and len(step.signals) == 1 else None


def _multiplies(call: Call) -> bool:
    """Tell whether a call works on each value by itself, or on products of two."""
    is_raw = isinstance(call.function, torch._ops.OpOverload | torch._ops.OpOverloadPacket)
    return function_of(call) is not None or call.function is torch.einsum or is_raw


def chooses_along(call: Call, inputs: Tensor, axis: int | None) -> bool:
    """Tell whether a call chooses among values along an axis; any, if it is not known."""
    title = title_of(call)
    pooling = re.search(r"max_pool(\d)d", title)
    if pooling is not None:
        return axis is None or axis >= inputs.ndim - int(pooling[1])
    if function_of(call) is not None or title not in _EXTREMES:
        return False
    place, standard = (2, -1) if title in ("topk", "kthvalue") else (1, -1 if title == "sort" else None)
    given = call.kwargs.get("dim", call.kwargs.get("axis", call.args[place] if len(call.args) > place else standard))
    axes = [given] if isinstance(given, int) else given
    return axis is None or not axes or axis in {each % inputs.ndim for each in axes}


def _masks(step: Step) -> bool:
    """Tell whether a call may shut values out by what depends on them without a derivative."""
    title = title_of(step.call)
    if any(mask.dtype == torch.bool for mask in step.hidden):
        return True
    if title in _PRODUCTS:
        return True
    if not _multiplies(step.call):
        # A place that is read may be that of a maximum; one that is written to may be that of any value.
        writes = title in ("assignment", "setitem") or title.startswith(("scatter", "index_"))
        return writes and title != "index_select" and not all(mask.is_floating_point() for mask in step.hidden)
    masks = {id(mask) for mask in step.hidden}
    size = max((signal.numel() for signal in step.signals if id(signal) not in masks), default=0)
    return step.shares_source or (title not in SUMS and any(mask.numel() >= size > 0 for mask in step.hidden))


def may_write(call: Call) -> bool:
    """Tell whether a call that writes into a part of a tensor is no activation, whatever the graph shows."""
    function = function_of(call)
    if function is not None and function.kind in ("same", "affine"):
        return True
    return title_of(call) in _WRITING


# fmt: off
_WRITING = (
    "assignment", "where", "masked_fill", "sigmoid", "tanh", "hardsigmoid", "copy", "fill", "zero", "index_put",
    "index_add", "index_copy", "index_fill", "scatter", "scatter_add", "addmm", "baddbmm",
)
# fmt: on

_PRODUCTS = ("matmul", "mm", "bmm", "mv", "addmm", "baddbmm", "linear", "conv1d", "conv2d", "conv3d")
# fmt: off
_EXTREMES = (
    "amax", "amin", "aminmax", "max", "min", "median", "kthvalue", "sort", "msort", "topk", "cummax", "cummin",
    "logsumexp",
)
# fmt: on

_WHOLE = frozenset(
    getattr(home, name)
    for home in (torch, F, Tensor)
    for name in (
        *("normalize", "cosine_similarity", "pairwise_distance", "cdist", "local_response_norm", "instance_norm"),
        *("layer_norm", "group_norm", "rms_norm", "batch_norm", "norm", "std", "var", "softmax", "log_softmax"),
        *("scaled_dot_product_attention", "multi_head_attention_forward", "lstm", "gru", "lstm_cell", "gru_cell"),
    )
    if hasattr(home, name)
)
"""Normalisations, attention and recurrent units that are one call: what they are made of is in no doubt."""
