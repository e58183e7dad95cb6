"""Following a forward pass: which values each tensor is made of, where rectifiers are, and which steps are in doubt.

Of each tensor, from the images on, `Followed` knows of which other tensor each of its values is a function, by calls
that work on each value by itself, and which function that is. So a rectifier is found however a model spells it, at the
call that completes it, and an activation in disguise is told from a gate (`whyfooled.saliency.backward.doubts`).

What leaves PyTorch and comes back, as by way of NumPy, is a constant to it.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from whyfooled.saliency.backward.calls import Call, replaced, tensors_in
from whyfooled.saliency.backward.doubts import Doubt, Step, chooses_along, may_write
from whyfooled.saliency.backward.elementwise import (
    function_of,
    kind_of,
    stays_affine,
    title_of,
    works_on_each_value,
    written_by,
)
from whyfooled.saliency.backward.gates import CLOSED_FORMS, GatedCall, as_gated, gate_of, name_if_piecewise_linear
from whyfooled.saliency.backward.graph import nodes_between, report_images
from whyfooled.saliency.backward.rectifiers import INFINITY, Rectifier, as_relu, is_middle, matched
from whyfooled.saliency.backward.values import Key, Values, again, numbers_of


class Followed:
    """What is known of the tensors of a forward pass.

    Afterwards, `whole` has the nodes of the graph that are a part of something known as a whole, `known` those of calls
    that were seen and are in no doubt, `doubts` those that are, and `unseen` the doubts that no node stands for.

    Parameters
    ----------
    images
        Where the pass begins.
    gates
        Whether activations that are no rectifiers but have a gate are looked for, too.
    """

    def __init__(self, images: Tensor, gates: bool = False) -> None:
        self.gates = gates
        self.whole: set[Any] = set()
        self.known: set[Any] = set()
        self.doubts: dict[Any, Doubt] = {}
        self.unseen: list[Doubt] = []
        self._differentiates = torch.is_grad_enabled()
        self._keys = itertools.count()
        self._values: MutableMapping[Tensor, tuple[int, Values]] = WeakTensorKeyDictionary()
        self._constants = WeakTensorKeyDictionary()
        # Along which axis a tensor has a signal beside a constant or a function of itself; None if it is not known.
        self._joined: MutableMapping[Tensor, int | None] = WeakTensorKeyDictionary()
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
            leaves_image = self._leaves_image(call, values)
            rectifier = None if leaves_image else self._rectifier(call, outcome)
            gated = (
                self._gated(call, outcome) if self.gates and signals and not leaves_image and not rectifier else None
            )
            # What an activation is of may lie further back than what the call that completes it takes.
            begins = [found.inputs for found in (rectifier, gated) if found is not None and self.depends(found.inputs)]
            if outcome is not None and any(self.values(inputs).known for inputs in begins):
                outcome = replace(outcome, known=True)
            return Step(
                call=call,
                signals=signals,
                values=values,
                hidden=[signal for signal in signals if not signal.requires_grad],
                leaves_image=leaves_image,
                mixes=any(
                    chooses_along(call, signal, self._joined[signal]) for signal in signals if signal in self._joined
                ),
                outcome=outcome,
                rectifier=rectifier,
                gated=gated,
                versions=[(tensor, tensor._version) for tensor in call.tensors],
                nodes={tensor.grad_fn for tensor in [*call.tensors, *begins]},
            )

    def after(self, step: Step, outputs: Any) -> None:
        """Note what a call has made."""
        with torch._C.DisableTorchFunction():
            written = [tensor for tensor, version in step.versions if tensor._version != version]
            made = list({id(tensor): tensor for tensor in [*tensors_in(outputs), *written]}.values())
            if not made:
                return
            if not step.signals:
                # What is made of parameters alone has a node of the graph, too.
                for tensor in made:
                    if tensor.grad_fn is not None:
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
        self._note_joint(step, tensor)
        if step.outcome is not None:
            # What was overwritten is known no more, and a note that held its own tensor would never go.
            behind = tuple(each for each in step.outcome.behind if each[0] is not tensor)
            settled = step.outcome.settled or step.rectifier is not None
            self._keep(tensor, replace(step.outcome, behind=behind, settled=settled))
        elif len(sources) == 1 and works_on_each_value(step.call):
            self._keep(tensor, Values(source=sources.pop(), origin=origin))
        elif len(step.call.tensors) == 1:
            self._keep(tensor, _same_call(step, index, origin))

    def _note_joint(self, step: Step, tensor: Tensor) -> None:
        call, before = step.call, step.call.tensors[0]
        if call.function in _JOINING and (step.shares_source or len(step.signals) < len(call.tensors)):
            axis = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0)
            self._joined[tensor] = axis % tensor.ndim if isinstance(axis, int) else None
        elif before in self._joined and kind_of(call) == "same":
            axis = self._joined[before]
            is_kept = axis is not None and tensor.shape[: axis + 1] == before.shape[: axis + 1]
            self._joined[tensor] = axis if is_kept else None

    def _outcome(self, call: Call, signals: Sequence[Tensor], values: Sequence[Values]) -> Values | None:
        """Return what a call makes of each value, if it is the same function of all values of one origin."""
        function = function_of(call)
        if function is None or not signals:
            return None
        if function.kind == "same":
            if signals[0] is not call.args[0]:
                return None
            signals, values = signals[:1], values[:1]
        if any(other.origin != values[0].origin for other in values):
            return None
        numbers = numbers_of(call, function, signals)
        if numbers is None:
            return None
        straight = stays_affine(call, function, signals)
        behind = {id(tensor): (tensor, version) for part in values for tensor, version in part.behind}
        behind |= {id(signal): (signal, signal._version) for signal in signals}
        return Values(
            source=values[0].source,
            origin=values[0].origin,
            affine=straight and all(part.affine for part in values),
            settled=straight and all(part.settled for part in values),
            known=(straight or function.name in _GATES) and all(part.known for part in values),
            behind=tuple(behind.values()),
            parts=tuple(values),
            make=again(call, function, signals, numbers, self._differentiates and not torch.is_grad_enabled()),
        )

    def _rectifier(self, call: Call, outcome: Values | None) -> Rectifier | None:
        """Read a call as a rectifier; None if it is none."""
        named = as_relu(call)
        if named is not None:
            return replace(named, is_gate=self._is_gate(named.inputs, named.upper))
        if outcome is None or outcome.settled or "out" in call.kwargs:
            return None
        if kind_of(call) == "same" or title_of(call) in _ACTIVATIONS:
            return None
        written = written_by(call)
        if written is not None and not written.is_floating_point():
            return None
        match = self._match(call, outcome, written)
        if match is None or not _can_be_written(written, match[0]):
            return None
        inputs, scale, upper = match
        return Rectifier(inputs, upper, False, scale, written, self._is_gate(inputs, upper))

    def _match(self, call: Call, outcome: Values, written: Tensor | None) -> tuple[Tensor, float, float] | None:
        """Find the tensor that a call makes a rectifier of, its scale and its upper bound."""
        matches = []
        for inputs in self._possible_inputs(call, outcome):
            match = matched(outcome, self.values(inputs))
            matches += [] if match is None else [(inputs, *match)]
        # A smooth activation of half the signal is not half of it of the signal.
        return min(matches, key=lambda match: (match[1] != 1, match[0] is not written), default=None)

    def _possible_inputs(self, call: Call, outcome: Values) -> Iterator[Tensor]:
        """Go through the tensors that the result of a call may be an activation of."""
        shape: torch.Size = torch.broadcast_shapes(*(t.shape for t in call.tensors))  # type: ignore[no-untyped-call]
        dtypes = [tensor.dtype for tensor in call.tensors if tensor.ndim and tensor.is_floating_point()]
        dtype = functools.reduce(torch.promote_types, dtypes, torch.float16)
        for inputs, version in outcome.behind:
            has_gradient = inputs.requires_grad or not self._differentiates
            is_alike = inputs.shape == shape and inputs.dtype == dtype
            if has_gradient and is_alike and inputs._version == version:
                yield inputs

    def _gated(self, call: Call, outcome: Values | None) -> GatedCall | None:
        """Read a call as an activation with a gate that is no rectifier; None if it is none."""
        named = as_gated(call)
        if named is not None:
            return named
        if outcome is None or outcome.known or "out" in call.kwargs or kind_of(call) == "same":
            return None
        if title_of(call) in CLOSED_FORMS:
            return None
        written = written_by(call)
        if written is not None and not written.is_floating_point():
            return None
        # The last first: between it and the result there is nothing but the activation.
        for inputs in reversed([*self._possible_inputs(call, outcome)]):
            activation = gate_of(outcome, self.values(inputs))
            if activation is not None and _can_be_written(written, inputs):
                bends = name_if_piecewise_linear(activation, title_of(call))
                activation = replace(activation, values=_values_made(call, written))
                return GatedCall(inputs, activation, bends, written=written)
        return None

    def _is_gate(self, inputs: Tensor, upper: float) -> bool:
        if upper == INFINITY or not self.depends(inputs):
            return False
        values = self.values(inputs)
        if not values.parts:
            return False
        behind = [self.values(tensor) for tensor, version in values.behind if tensor._version == version]
        return any(is_middle(values, upper, of) for of in (None, *behind))

    def _judge(self, step: Step, made: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        """Note the nodes of the graph that a call has made, and whether they are in doubt."""
        if not self._differentiates:
            return
        doubt = step.doubt
        if any(tensor._is_view() and tensor.requires_grad for tensor in written):
            # Behind what is written into a part of a tensor, the graph does not show what it was.
            if doubt is None and not step.is_recognised and not may_write(step.call):
                doubt = Doubt(title_of(step.call), bends=kind_of(step.call) != "smooth")
            self.unseen += [] if doubt is None else [doubt]
            return
        nodes = set().union(*(nodes_between(tensor.grad_fn, step.nodes) for tensor in made))
        if step.is_recognised:
            self.whole |= nodes
        elif doubt is not None:
            self.doubts |= dict.fromkeys(nodes, doubt)
        else:
            self.known |= nodes

    def _leaves_image(self, call: Call, values: Sequence[Values]) -> bool:
        """Tell whether a call cuts off the values of what is still image, where none has to be."""
        if kind_of(call) != "pick" or {part.source[:1] for part in values} != {self._image}:
            return False
        image = call.args[0]
        inputs = image.detach().clone() if isinstance(image, Tensor) else None
        outputs = call.of(lambda tensor: tensor.detach().clone())
        return isinstance(outputs, Tensor) and inputs is not None and torch.equal(outputs, inputs)


def _same_call(step: Step, index: int, origin: Key) -> Values:
    """Return what a call of one tensor makes: the same values as the same call of the same values."""
    call = step.call.function, repr(replaced((step.call.args, step.call.kwargs), lambda _: None)), index
    values = step.values[0]
    if step.call.function in _MOVING:
        return replace(values, source=(*values.source, call), origin=(*values.origin, call), behind=())
    return Values(origin, origin) if values.parts else Values((*values.origin, call), (*values.origin, call))


_ACTIVATIONS = ("elu", "celu", "selu", "leaky_relu", "prelu", "rrelu", "hardtanh", "hardswish")
"""What is refused by name even where it happens to be a rectifier, as behind another one."""
_GATES = ("sigmoid", "expit", "tanh", "hardsigmoid")
"""The functions of each value that are known to be no activation."""
_JOINING = (torch.stack, torch.cat, torch.concat, torch.concatenate)
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

_MOVING = frozenset(
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "expand", "repeat", "flip"),
        *("roll", "rot90", "select", "narrow", "chunk", "split", "tensor_split", "unbind", "__getitem__"),
    )
    if hasattr(home, name)
) | {Tensor.T.__get__, Tensor.mT.__get__}  # type: ignore[attr-defined]
"""What moves or picks values by their places: it may as well come before a function of each of them."""


def _values_made(call: Call, written: Tensor | None) -> Tensor:
    """Make a call without its graph, on copies if it writes into a tensor, and return what it makes or leaves there."""
    copies: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if written is None:
            return tensor.detach()
        return copies.setdefault(id(tensor), tensor.detach().clone())

    outputs: Tensor = call.of(copy)
    return outputs if written is None else copies[id(written)]


def _can_be_written(written: Tensor | None, inputs: Tensor) -> bool:
    """Tell whether what another call writes into can hold an activation of these inputs, with its own backward pass."""
    return written is None or written is inputs or not (written._is_view() or written.dtype != inputs.dtype)


class RectifierCalls(TorchFunctionMode, ABC):
    """While active, rectifiers are made by `rectify`, and everything else as it is.

    Other activations that have a gate are looked for, and made by `activate`, if there is such a function.

    Those that are read off their name, wherever they run; those that are not, in a forward pass of which
    `report_images` tells the beginning. `followed` is what is known of that pass.
    """

    def __init__(self, activate: Callable[[GatedCall], Tensor] | None = None) -> None:
        super().__init__()
        self.activate = activate
        self.followed: Followed | None = None

    @abstractmethod
    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier."""

    def other(self, call: Call) -> Any:
        """Make a call that is no rectifier."""
        return call()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        if func is report_images:
            (images,) = args
            self.followed = Followed(images, gates=self.activate is not None)
            return call()
        if self.followed is None:
            return self._make(call, as_relu(call), as_gated(call) if self.activate else None)
        step = self.followed.before(call)
        outputs = self._make(call, step.rectifier, step.gated)
        self.followed.after(step, outputs)
        return None if func is Tensor.__setitem__ else outputs

    def _make(self, call: Call, rectifier: Rectifier | None, gated: GatedCall | None) -> Any:
        if rectifier is not None:
            return self.rectify(rectifier)
        return self.activate(gated) if self.activate and gated is not None else self.other(call)
