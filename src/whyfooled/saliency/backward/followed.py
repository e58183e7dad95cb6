"""Following a forward pass: which values each tensor is made of, where rectifiers are, and which steps are in doubt.

Of each tensor, from the images on, `Followed` knows of which other tensor each of its values is a function, by calls
that work on each value by itself, and which function that is. So a rectifier is found however a model spells it, at the
call that completes it. And so an activation in disguise is told from a gate. A product of two signals is a gate where
they are made of different values (``x * sigmoid(linear(pooled(x)))``) and an activation where each value is multiplied
by a function of itself (``x * sigmoid(1.7 * x)``, ``x * (x > 1)``); for the graph, the two are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from whyfooled.saliency.backward.calls import Call, replaced, tensors_in
from whyfooled.saliency.backward.elementwise import FUNCTIONS, Function, Values
from whyfooled.saliency.backward.graph import nodes_between, report_images
from whyfooled.saliency.backward.rectifiers import INFINITY, Rectifier, as_relu, is_middle, matched


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
    mixes
        Whether one of them has, side by side, a signal and a constant, or a signal and a function of itself.
    outcome
        What the values of its result will be, if it is one function of each value of one origin.
    rectifier
        How to make it as a rectifier, if it is one.
    versions, nodes
        The versions of its tensors and their nodes of the graph, before it.
    """

    call: Call
    signals: list[Tensor]
    values: list[Values]
    hidden: list[Tensor]
    mixes: bool
    outcome: Values | None
    rectifier: Rectifier | None
    versions: list[tuple[Tensor, int]]
    nodes: set[Any]

    @cached_property
    def doubt(self) -> Doubt | None:
        """Why the call may be an activation in disguise; None if it is in no doubt, or known for what it is."""
        is_recognised = self.rectifier is not None or self.call.function in _WHOLE
        return None if is_recognised else _doubt(self)

    @property
    def shares_source(self) -> bool:
        """Whether two of its signals are functions, place by place, of the same values."""
        return len({values.source for values in self.values}) < len(self.values)


class Followed:
    """What is known of the tensors of a forward pass.

    Afterwards, `whole` has the nodes of the graph that are a part of something known as a whole, `known` those of calls
    that were seen and are in no doubt, `doubts` those that are, and `unseen` the doubts that no node stands for.
    """

    def __init__(self, images: Tensor) -> None:
        self.whole: set[Any] = set()
        self.known: set[Any] = set()
        self.doubts: dict[Any, Doubt] = {}
        self.unseen: list[Doubt] = []
        self._differentiates = torch.is_grad_enabled()
        self._keys = itertools.count()
        self._values: MutableMapping[Tensor, tuple[int, Values]] = WeakTensorKeyDictionary()
        self._constants = WeakTensorKeyDictionary()
        self._mixtures = WeakTensorKeyDictionary()
        self._image = self._as_origin(images).source

    def depends(self, tensor: Tensor) -> bool:
        """Tell whether a tensor depends on the images, differentiably or not."""
        return tensor in self._values or (tensor.grad_fn is not None and tensor not in self._constants)

    def values(self, tensor: Tensor) -> Values:
        """Return what the values of a tensor that depends on the images are."""
        if tensor in self._values:
            version, values = self._values[tensor]
            if version == tensor._version:
                return values
        return self._as_origin(tensor)

    def _as_origin(self, tensor: Tensor) -> Values:
        key = (next(self._keys),)
        return self._keep(tensor, Values(source=key, origin=key))

    def _keep(self, tensor: Tensor, values: Values) -> Values:
        self._values[tensor] = (tensor._version, values)
        return values

    def before(self, call: Call) -> Step:
        """Look at a call that is about to be made."""
        with torch._C.DisableTorchFunction():
            signals = [tensor for tensor in call.tensors if self.depends(tensor)]
            values = [self.values(signal) for signal in signals]
            outcome = self._outcome(call, signals, values)
            return Step(
                call=call,
                signals=signals,
                values=values,
                hidden=[signal for signal in signals if not signal.requires_grad],
                mixes=any(signal in self._mixtures for signal in signals),
                outcome=outcome,
                rectifier=self._rectifier(call, outcome),
                versions=[(tensor, tensor._version) for tensor in call.tensors],
                nodes={tensor.grad_fn for tensor in call.tensors},
            )

    def after(self, step: Step, outputs: Any) -> None:
        """Note what a call has made."""
        with torch._C.DisableTorchFunction():
            written = [tensor for tensor, version in step.versions if tensor._version != version]
            made = list({id(tensor): tensor for tensor in [*tensors_in(outputs), *written]}.values())
            if not step.signals:
                # What is made of parameters alone has a node of the graph, too.
                for tensor in made:
                    self._constants[tensor] = True
            elif step.call.function not in _OF_SHAPES:
                for index, tensor in enumerate(made):
                    self._note(step, index, tensor)
                for tensor in written:
                    if tensor._base is not None and tensor._base is not tensor:
                        self._as_origin(tensor._base)
                self._judge(step, made, written)

    def _note(self, step: Step, index: int, tensor: Tensor) -> None:
        """Note what the values of a tensor are that a call has made."""
        origin, sources = self._as_origin(tensor).origin, {values.source for values in step.values}
        is_joined = step.call.function in _JOINING and (
            step.shares_source or len(step.signals) < len(step.call.tensors)
        )
        if is_joined or (step.mixes and _kind(step.call) == "same"):
            self._mixtures[tensor] = True
        if step.outcome is not None:
            self._keep(tensor, step.outcome if step.rectifier is None else replace(step.outcome, settled=True))
        elif len(sources) == 1 and _works_on_each_value(step.call):
            self._keep(tensor, Values(source=sources.pop(), origin=origin))
        elif len(step.call.tensors) == 1:
            # The same call of the same values makes the same values.
            call = step.call.function, repr(replaced((step.call.args, step.call.kwargs), lambda _: None)), index
            self._keep(tensor, Values(source=(*sources.pop(), call), origin=origin))

    def _outcome(self, call: Call, signals: Sequence[Tensor], values: Sequence[Values]) -> Values | None:
        """Return what a call makes of each value, if it is the same function of all values of one origin."""
        function = _function_of(call)
        if function is None or not signals:
            return None
        if function.kind == "same":
            if signals[0] is not call.args[0]:
                return None
            signals, values = signals[:1], values[:1]
        if any(other.origin != values[0].origin for other in values):
            return None
        numbers = _numbers(call, function, signals)
        if numbers is None:
            return None
        straight = _stays_affine(call, function, signals)
        behind = {id(tensor): (tensor, version) for part in values for tensor, version in part.behind}
        for signal, part in zip(signals, values, strict=True):
            if part.affine:
                behind[id(signal)] = (signal, signal._version)
        return Values(
            source=values[0].source,
            origin=values[0].origin,
            affine=straight and all(part.affine for part in values),
            settled=straight and all(part.settled for part in values),
            behind=tuple(behind.values()),
            parts=tuple(values),
            make=_again(call, function, signals, numbers, self._differentiates and not torch.is_grad_enabled()),
        )

    def _rectifier(self, call: Call, outcome: Values | None) -> Rectifier | None:
        """Read a call as a rectifier; None if it is none."""
        named = as_relu(call)
        if named is not None:
            return replace(named, is_gate=self._is_gate(named.inputs, named.upper))
        if outcome is None or outcome.settled or outcome.source == self._image or "out" in call.kwargs:
            return None
        if _title(call) in _ACTIVATIONS:
            return None
        written = _written(call)
        if written is not None and not written.is_floating_point():
            return None
        try:
            shape: torch.Size = torch.broadcast_shapes(*(t.shape for t in call.tensors))  # type: ignore[no-untyped-call]
        except RuntimeError:  # of tensors that do not meet value by value, as in x.to(other)
            return None
        for inputs, version in reversed(outcome.behind):
            passes = inputs.requires_grad or not self._differentiates
            if not passes or not inputs.is_floating_point() or inputs.shape != shape or inputs._version != version:
                continue
            match = matched(outcome, self.values(inputs))
            if match is None:
                continue
            scale, upper = match
            inplace = written is inputs
            if written is not None and not inplace and (written._is_view() or written.dtype != inputs.dtype):
                return None
            return Rectifier(
                inputs, upper, inplace, scale, None if inplace else written, is_gate=self._is_gate(inputs, upper)
            )
        return None

    def _is_gate(self, inputs: Tensor, upper: float) -> bool:
        if upper == INFINITY or not self.depends(inputs):
            return False
        values = self.values(inputs)
        if not values.affine or not values.parts:
            return False
        origin = Values(values.source, values.origin)
        others = [self.values(tensor) for tensor, version in values.behind if tensor._version == version]
        return any(is_middle(values, upper, other) for other in [origin, *others])

    def _judge(self, step: Step, made: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        """Note the nodes of the graph that a call has made, and whether they are in doubt."""
        if not self._differentiates:
            return
        doubt, is_recognised = step.doubt, step.rectifier is not None or step.call.function in _WHOLE
        if any(tensor._is_view() and tensor.requires_grad for tensor in written):
            # Behind what is written into a part of a tensor, the graph does not show what it was.
            if doubt is None and not is_recognised and not _may_write(step.call):
                doubt = Doubt(_title(step.call), bends=_kind(step.call) != "smooth")
            self.unseen += [] if doubt is None else [doubt]
            return
        nodes = set().union(*(nodes_between(tensor.grad_fn, step.nodes) for tensor in made))
        if doubt is not None:
            self.doubts |= dict.fromkeys(nodes, doubt)
        elif step.call.function in _WHOLE or self._leaves_image(step, made):
            self.whole |= nodes
        else:
            self.known |= nodes

    def _leaves_image(self, step: Step, made: Sequence[Tensor]) -> bool:
        """Tell whether a call has cut off the values of what is still image, where none had to be."""
        function = _function_of(step.call)
        if function is None or function.kind != "pick" or {values.source for values in step.values} != {self._image}:
            return False
        return len(made) == 1 and made[0] is not step.signals[0] and torch.equal(made[0], step.signals[0])


def _doubt(step: Step) -> Doubt | None:
    """Tell why a call may be an activation in disguise; None if there is no reason."""
    function, title = _function_of(step.call), _title(step.call)
    if function is not None and function.kind == "same":
        return None
    if step.mixes and title in _EXTREMES:
        return Doubt(f"{title} of a signal and a constant or a function of itself", bends=title != "logsumexp")
    if step.hidden:
        return Doubt(f"{title} with a mask made of the signal", bends=True) if _masks(step) else None
    if title in (*_SUMS, "where", "masked_fill") or not _multiplies(step.call):
        return None
    bends = _kind(step.call) == "pick"
    if step.shares_source:
        return Doubt(f"{title} of a signal and a function of itself", bends)
    return Doubt(f"{title} with a constant", bends) if bends and len(step.signals) == 1 else None


def _multiplies(call: Call) -> bool:
    """Tell whether a call works on each value by itself, or on products of two."""
    is_raw = isinstance(call.function, torch._ops.OpOverload | torch._ops.OpOverloadPacket)
    return _function_of(call) is not None or call.function is torch.einsum or is_raw


def _masks(step: Step) -> bool:
    """Tell whether a call may shut values out by what depends on them without a derivative."""
    title = _title(step.call)
    if any(mask.dtype == torch.bool for mask in step.hidden):
        return True
    if not _multiplies(step.call):
        # A place that is read may be that of a maximum; one that is written to may be that of any value.
        writes = title in ("assignment", "setitem") or title.startswith(("scatter", "index_"))
        return writes and title != "index_select" and not all(mask.is_floating_point() for mask in step.hidden)
    masks = {id(mask) for mask in step.hidden}
    size = max((signal.numel() for signal in step.signals if id(signal) not in masks), default=0)
    return step.shares_source or (title not in _SUMS and any(mask.numel() >= size > 0 for mask in step.hidden))


def _function_of(call: Call) -> Function | None:
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


def _kind(call: Call) -> str:
    function = _function_of(call)
    return "" if function is None else function.kind


def _stays_affine(call: Call, function: Function, signals: Sequence[Tensor]) -> bool:
    if function.kind == "same" or function.name in _SUMS:
        return True
    is_first = len(signals) == 1 and signals[0] is call.args[0]
    is_product = function.name in ("mul", "multiply") and len(signals) == 1
    return is_product or (function.kind == "affine" and is_first and call.kwargs.get("rounding_mode") is None)


def _works_on_each_value(call: Call) -> bool:
    if call.name == "batch_norm":
        return not call.given.get("training")
    return _function_of(call) is not None


def _numbers(call: Call, function: Function, signals: Sequence[Tensor]) -> dict[int, Tensor] | None:
    """Return each constant of a call as a number, by the tensor's id; None if one differs between places."""
    numbers = {}
    for tensor in call.tensors:
        if function.kind == "same" or any(tensor is signal for signal in signals):
            continue
        values = tensor.detach().reshape(-1)
        if len(values) != 1 and (function.kind == "affine" or not len(values) or bool((values != values[0]).any())):
            return None
        number = values[0].cpu()
        numbers[id(tensor)] = number.double() if number.is_floating_point() else number
    return numbers


def _again(
    call: Call, function: Function, signals: Sequence[Tensor], numbers: Mapping[int, Tensor], detached: bool
) -> Callable[[Sequence[Tensor]], Tensor]:
    """Return a call as a function of its signals at chosen points."""
    names = [id(signal) for signal in signals]
    kwargs = {key: value for key, value in call.kwargs.items() if key not in ("inplace", "out")}

    def make(parts: Sequence[Tensor]) -> Tensor:
        at_points = {**numbers, **dict(zip(names, parts, strict=True))}
        given = replaced((call.args, kwargs), lambda tensor: at_points.get(id(tensor), tensor))
        outputs = function.compute(*given[0], **given[1])
        return outputs.detach() if detached else outputs

    return make


def _written(call: Call) -> Tensor | None:
    """Return the tensor that a call writes into; None if it makes a new one."""
    name: str = call.function.__name__
    by_name = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or name == "__setitem__"
    is_asked = call.kwargs.get("inplace") or any(argument is True for argument in call.args)
    return call.args[0] if call.args and (by_name or is_asked) and isinstance(call.args[0], Tensor) else None


def _may_write(call: Call) -> bool:
    """Tell whether a call that writes into a part of a tensor is no activation, whatever the graph shows."""
    function = _function_of(call)
    if function is not None and function.kind in ("same", "affine"):
        return True
    return _title(call) in _WRITING


def _title(call: Call) -> str:
    function = FUNCTIONS.get(call.function)
    name: str = call.function.__name__.strip("_") if function is None else function.name
    return name


_ACTIVATIONS = ("elu", "celu", "selu", "leaky_relu", "prelu", "rrelu", "hardtanh", "hardswish")
"""What is refused by name even where it happens to be a rectifier, as behind another one."""
_SUMS = ("add", "sub", "subtract", "rsub", "neg", "negative")
# fmt: off
_WRITING = (
    "assignment", "where", "masked_fill", "sigmoid", "tanh", "hardsigmoid", "copy", "fill", "zero", "index_put",
    "index_add", "index_copy", "index_fill", "scatter", "scatter_add", "addmm", "baddbmm",
)
# fmt: on

_JOINING = (torch.stack, torch.cat, torch.concat, torch.concatenate, torch.hstack, torch.vstack, torch.dstack)
# fmt: off
_EXTREMES = (
    "amax", "amin", "aminmax", "max", "min", "median", "kthvalue", "sort", "msort", "topk", "cummax", "cummin",
    "logsumexp",
)
# fmt: on

_OF_SHAPES = frozenset(
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like"),
        *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
    )
    if hasattr(home, name)
)
"""What reads nothing of a tensor but its shape and type."""

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


class RectifierCalls(TorchFunctionMode):
    """While active, rectifiers are made by `rectify`, and everything else as it is.

    Those that are read off their name, wherever they run; those that are not, in a forward pass of which
    `report_images` tells the beginning. `followed` is what is known of that pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.followed: Followed | None = None

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier."""
        raise NotImplementedError

    def other(self, call: Call) -> Any:
        """Make a call that is no rectifier."""
        return call()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        if func is report_images:
            self.followed = Followed(*args)
            return call()
        if self.followed is None:
            named = as_relu(call)
            return self.other(call) if named is None else self.rectify(named)
        step = self.followed.before(call)
        outputs = self.other(call) if step.rectifier is None else self.rectify(step.rectifier)
        self.followed.after(step, outputs)
        return None if func is Tensor.__setitem__ else outputs
