"""How a model's answer ends: in logits, or in a softmax, a log-softmax or a sigmoid of them, which is taken off.

Where the last thing that a model does is such a function, it is watched as it runs, however it is called, and what the
function took is given in place of what it made: the model's own logits, to the last digit, and nothing about the model
is changed. The linear layer that gives one logit for two classes, or the logit of a label that is asked about, is
watched too, and run for both, so that what a method makes of a last layer, such as contrastive relevance, holds for it.
Where nobody can watch (a scripted or
compiled model, a softmax that is written out), the logits are recovered from the answer, which is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whyfooled.classifier.calling import call_module
from whyfooled.classifier.dependence import operation
from whyfooled.classifier.outputs import as_rows, to_two_logits
from whyfooled.errors import ModelError, warn

Kind = Literal["softmax", "log_softmax", "sigmoid"]
Pick = Callable[[Any], Tensor]
"""Finds the tensor of logits in what a model gave."""


class _Ending(NamedTuple):
    """The function that an answer ends in, None if in logits; whether it can be watched; how many numbers it gives."""

    kind: Kind | None
    watched: bool
    outputs: int = 1


def run_to_logits(module: nn.Module, inputs: Tensor, pick: Pick, name: str, label: int | None = None) -> Tensor:
    """Run a module, and return (n,m) logits, of two classes at least.

    Parameters
    ----------
    module
        The model; nothing about it is changed.
    inputs
        (n,c,h,w).
    pick
        Finds the tensor of logits in what it gives.
    name
        What it is called.
    label
        The one of several labels that is asked about, whose absence and presence are then the two classes.

    Raises
    ------
    ModelError
        If it fails, or gives anything but a row of logits for each image.

    Warns
    -----
    WhyfooledWarning
        If its logits are recovered from probabilities.
    """
    if not knows_ending(module):
        rows = as_rows(pick(call_module(module, inputs)), len(inputs))
        if not _can_tell(rows):
            return to_two_logits(rows, label)
        # A function's range is never left, so what lies outside of it once is settled.
        ending = _find_ending(module, inputs, pick) if _may_be_squashed(rows) else None
        if ending is None and rows.shape[1] == 1 and not _is_compiled(module):
            ending = _Ending(None, watched=True)
        _ENDINGS[module] = identify_parts(module), ending
        if ending is None and label is None:
            return to_two_logits(rows)
    else:
        ending = _ENDINGS[module][1]
    if ending is None and label is not None and not _is_compiled(module):
        ending = _Ending(None, watched=True)
    return _run_without(ending, module, inputs, pick, name, label)


_ENDINGS: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], _Ending | None]] = WeakKeyDictionary()
"""How models end, found out once for each, with the parts that it had then."""


def knows_ending(module: nn.Module) -> bool:
    """Tell whether it was found out already how a module ends, which takes several passes."""
    known = _ENDINGS.get(module)
    return known is not None and known[0] == identify_parts(module)


def identify_parts(module: nn.Module) -> tuple[int, ...]:
    """Return what is another thing once a part of a module was replaced: what was found out of it holds no more."""
    return tuple(map(id, module.modules()))


def ends_in_sigmoids(module: nn.Module) -> bool:
    """Tell whether a module that has run was seen to end in a sigmoid of each of several outputs."""
    known = _ENDINGS.get(module)
    ending = None if known is None else known[1]
    return ending is not None and ending.kind == "sigmoid" and ending.outputs > 1


def _run_without(
    ending: _Ending | None, module: nn.Module, inputs: Tensor, pick: Pick, name: str, label: int | None
) -> Tensor:
    """Run a module of which is known how it ends, and return its logits, of two classes at least."""
    if ending is None:
        return to_two_logits(as_rows(pick(call_module(module, inputs)), len(inputs)), label)
    if ending.watched:
        with _Following() as following:
            answer = pick(call_module(module, inputs))
        kind, logits = (None, answer) if ending.kind is None else following.find(answer)
        if kind == ending.kind and logits is not None:
            split = following.split(logits, as_rows(logits, len(inputs)).shape[1], label)
            return to_two_logits(as_rows(logits, len(inputs)), label) if split is None else as_rows(split, len(inputs))
    else:
        answer = pick(call_module(module, inputs))
    if ending.kind is None:
        return to_two_logits(as_rows(answer, len(inputs)), label)
    # Always from the same line of code, so that it is said once.
    warn(f"The answers of {name} are {_WORDS[ending.kind]}. {_RECOVERED}")
    return to_two_logits(_recover(ending.kind, as_rows(answer, len(inputs))), label)


_WORDS: dict[Kind, str] = {
    "softmax": "probabilities (none negative, each row sums to 1)",
    "log_softmax": "logarithms of probabilities (none positive, each row's exponentials sum to 1)",
    "sigmoid": "probabilities of each class by itself (a sigmoid's)",
}
_RECOVERED = (
    "Logits are recovered from them, as far as the digits go: a probability that rounds to 0 or 1 has no gradient. "
    "Give the model without its last step to have them exactly."
)


def _recover(kind: Kind, rows: Tensor) -> Tensor:
    """Recover logits; of those that a softmax took, what all have in common is lost, and their mean is set to 0."""
    about = torch.finfo(rows.dtype)
    if kind == "sigmoid" or rows.shape[1] == 1:
        return torch.logit(rows, eps=about.eps)
    logs = rows.clamp_min(about.tiny).log() if kind == "softmax" else rows
    return logs - logs.mean(1, keepdim=True)


def _squash(kind: Kind, rows: Tensor) -> Tensor:
    return rows.sigmoid() if kind == "sigmoid" else rows.softmax(1) if kind == "softmax" else rows.log_softmax(1)


def _can_tell(rows: Tensor) -> bool:
    """Tell whether the values can be looked at: there are some, in memory, and finite."""
    plain = not torch._C._functorch.is_functorch_wrapped_tensor(rows) and not torch.compiler.is_compiling()
    return plain and bool(rows.numel()) and bool(torch.isfinite(rows).all())


_TOLERANCE = 1e-3
"""How far from 1 probabilities may sum up, by rounding. [ours]"""


def _may_be_squashed(rows: Tensor) -> bool:
    """Tell whether the values lie where a function's may, however sure the model is of them; the model settles it."""
    values = rows.detach()
    least, most = (float(extreme) for extreme in values.aminmax())
    if least >= 0:
        return most <= 1 + _TOLERANCE
    return most <= _TOLERANCE and rows.shape[1] > 1 and _all_sum_to_one(values.exp())


def _look_like(kind: Kind, rows: Tensor) -> bool:
    """Tell whether rows of several numbers are probabilities, or their logarithms, of classes of which one is right."""
    values = rows.detach()
    if rows.shape[1] < 2:
        return False
    if kind == "softmax":
        return bool((values >= 0).all()) and _all_sum_to_one(values)
    # Where all is one class's, 0 beside numbers far below, they may as well be logits.
    undecided = (values.amax(1) < -1e-2).any()
    return bool((values <= 0).all() and undecided) and _all_sum_to_one(values.exp())


def _all_sum_to_one(values: Tensor) -> bool:
    return bool((values.sum(1) - 1).abs().max() < _TOLERANCE)


def _find_ending(module: nn.Module, inputs: Tensor, pick: Pick) -> _Ending | None:
    """Find out how a module ends, in passes that no hook or mode of ours sees: those of a thread of its own."""
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(_look_for_ending, module, inputs.detach(), pick).result()


def _look_for_ending(module: nn.Module, inputs: Tensor, pick: Pick) -> _Ending | None:
    count = len(inputs)
    with _recording(module):
        leaf = inputs.clone().requires_grad_(torch.is_grad_enabled())
        following = _Following()
        if _is_compiled(module):
            answer = pick(call_module(module, leaf))
        else:
            with following:
                answer = pick(call_module(module, leaf))
        kind, logits = following.find(answer)
        rows = as_rows(answer, count)
        if kind in ("softmax", "log_softmax") and rows.shape[1] == 1:
            raise ModelError(
                "The model ends in a softmax of one number, which is the same for every image. Give it two outputs, or "
                "a sigmoid in its place."
            )
        if kind is not None and logits is not None:
            # Over another axis than the classes', or with a selection after it, a softmax is no such ending.
            again = _squash(kind, as_rows(logits, count).to(rows.dtype))
            if again.shape == rows.shape and torch.allclose(again, rows, atol=_TOLERANCE):
                return _Ending(kind, watched=True, outputs=rows.shape[1])
        kind = _read_graph(answer)
        if kind is not None:
            return _Ending("sigmoid" if rows.shape[1] == 1 else kind, watched=False, outputs=rows.shape[1])
    return _look_at_values(module, inputs, pick, rows)


def _is_compiled(module: nn.Module) -> bool:
    return any(hasattr(part, "_orig_mod") for part in module.modules())


@contextmanager
def _recording(module: nn.Module) -> Iterator[None]:
    """Have a graph, whatever is around, unless the module was made where there is none."""
    made_there = any(parameter.is_inference() for parameter in module.parameters())
    with torch.inference_mode(mode=False), torch.no_grad() if made_there else torch.enable_grad():
        yield


@torch.no_grad()
def _look_at_values(module: nn.Module, inputs: Tensor, pick: Pick, rows: Tensor) -> _Ending | None:
    """Tell by what it gives for several very different images: no logits add up to the same for all by chance."""
    kinds: tuple[Kind, ...] = "softmax", "log_softmax"
    kind = next((kind for kind in kinds if _look_like(kind, rows)), None)
    if kind is None:
        return None
    noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0)).to(inputs)
    others = (as_rows(pick(call_module(module, images)), len(inputs)) for images in (-inputs, noise))
    return _Ending(kind, watched=False) if all(_look_like(kind, other) for other in others) else None


_FUNCTIONS: dict[str, Kind] = {
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
    "expit": "sigmoid",
}
_MOVES = frozenset(
    (
        *("view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim", "view_as", "t"),
        *("contiguous", "clone", "float", "double", "to", "type", "type_as", "__getitem__", "select", "narrow"),
        *("dropout", "alpha_dropout"),
    )
)
"""Functions that give the same numbers in another shape or type; dropout does so where a model is evaluated."""
_REORDER = frozenset(("permute", "transpose", "movedim", "t"))
"""Those after which numbers may stand in another order."""


class _Following(TorchFunctionMode):
    """While active, keeps what softmaxes and sigmoids took, beside what they made, also where that is reshaped."""

    def __init__(self) -> None:
        super().__init__()
        # With the tensors themselves, so that no other one gets their ids.
        self._kept: dict[int, tuple[Tensor, Kind, Tensor]] = {}
        self._linear: dict[int, tuple[Tensor, int, _Layer]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        taken = args[0] if args else named.get("input")
        if not isinstance(taken, Tensor):
            return func(*args, **named)
        name = getattr(func, "__name__", "").removeprefix("special_")
        in_place = name in ("sigmoid_", "expit_")
        # What a function in place takes is gone afterwards.
        before = taken.clone() if in_place else taken
        made = func(*args, **named)
        if isinstance(made, Tensor) and (in_place or made is not taken):
            if name.rstrip("_") in _FUNCTIONS:
                self._kept[id(made)] = made, _FUNCTIONS[name.rstrip("_")], before
            elif name in _LAYERS:
                self._linear = (
                    {} if made.is_inference() else {id(made): (made, made._version, _Layer(func, args, named))}
                )
            elif name in _MOVES and args:
                self._follow(name, taken, made, lambda tensor: func(tensor, *args[1:], **named))
        return made

    def _follow(self, name: str, taken: Tensor, made: Tensor, move: Callable[[Tensor], Tensor]) -> None:
        """Keep of a moved tensor what is kept of it where it was."""
        if id(taken) in self._linear and made.numel() == taken.numel():
            _, version, layer = self._linear[id(taken)]
            if taken._version == version and (layer.outputs == 1 or name not in _REORDER):
                self._linear[id(made)] = made, made._version, layer
        if id(taken) not in self._kept:
            return
        _, kind, logits = self._kept[id(taken)]
        if kind == "softmax" and 2 * made.numel() == taken.numel() and taken.ndim > 1 and taken.shape[1] == 2:
            # One of two probabilities is a sigmoid's, of the difference.
            self._kept[id(made)] = made, "sigmoid", move(logits) - move(logits.flip(1))
        else:
            self._kept[id(made)] = made, kind, move(logits)

    def find(self, answer: Tensor) -> tuple[Kind | None, Tensor | None]:
        """Return the function that made a tensor, and what it took; None for both if it is none of these."""
        _, kind, logits = self._kept.get(id(answer), (None, None, None))
        return kind, logits

    def split(self, logits: Tensor, count: int, label: int | None) -> Tensor | None:
        """Return the two logits that a layer gives if the weights of one of its own are halved.

        None if it gave others than the `count` logits of each image, of which a label is asked about if there are more.
        """
        if id(logits) not in self._linear or (label is None) != (count == 1):
            return None
        _, version, layer = self._linear[id(logits)]
        # What was written into since is another logit.
        fits = layer.outputs == count and layer.groups == 1 and logits._version == version
        return layer.run_twice(label or 0) if fits else None


class _Layer(NamedTuple):
    """A call of a linear layer or a convolution."""

    compute: Callable[..., Tensor]
    args: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def outputs(self) -> int:
        return len(self._all["weight"])

    @property
    def groups(self) -> int:
        return int(self._all.get("groups", 1))

    @property
    def _all(self) -> dict[str, Any]:
        return dict(zip(_NAMES, self.args, strict=False)) | self.named

    def run_twice(self, output: int) -> Tensor:
        """Run it with one output's weights and bias halved, with a minus and without."""
        chosen = slice(output, output + 1)
        weight, bias = (
            value if value is None else torch.cat([-value[chosen], value[chosen]]) / 2 for value in self._parameters
        )
        rest = {name: value for name, value in self.named.items() if name not in _NAMES[:3]}
        return self.compute(self._all["input"], weight, bias, *self.args[3:], **rest)

    @property
    def _parameters(self) -> tuple[Tensor, Tensor | None]:
        return self._all["weight"], self._all.get("bias")


_LAYERS = ("linear", "conv2d")
_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")

_GRAPH_MOVES = (
    "ToCopy",
    "View",
    "Unsafeview",
    "Clone",
    "Alias",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Select",
    "Permute",
    "T",
)
_NODES: dict[str, Kind] = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}


def _read_graph(answer: Tensor) -> Kind | None:
    """Tell by the graph behind it which function made a tensor."""
    node = answer.grad_fn
    while node is not None:
        name = operation(node.name())
        if name in _NODES:
            return _NODES[name]
        if name not in _GRAPH_MOVES or len(node.next_functions) != 1:
            return None
        node = node.next_functions[0][0]
    return None
