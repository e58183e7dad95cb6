"""A module cut into segments, each of which needs nothing but what the one before gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, cast, final

from torch import Tensor, fx, nn
from torch.fx import Node


def cut_into_segments(module: nn.Module) -> list[nn.Module]:
    """Cut a module wherever all that is computed later comes from one tensor alone.

    Parameters
    ----------
    module
        Takes one tensor and gives one. Its code is followed with symbols in place of numbers, so it should be a copy
        that nobody else uses.

    Returns
    -------
    list
        Modules that, one after the other, compute what this one does; the parts that do the work are shared with it.

    Raises
    ------
    Exception
        Whatever `torch.fx` or the module's code raises where it cannot be followed, such as a step that is chosen by a
        value.
    """
    tracer = _Tracer()
    with _TRACING:
        graph = tracer.trace(module)
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    (given,) = (node for node in graph.nodes if node.op == "placeholder")
    segments: list[nn.Module] = []
    for part in _split(given, nodes):
        segments.append(Segment(tracer.root, given, part))
        given = part[-1]
    return segments


_TRACING = threading.Lock()
"""Held while code is followed: meanwhile PyTorch has its own way of calling modules, which it sets back afterwards."""


class _Tracer(fx.Tracer):
    """Follows code down to the parts that have no parts of their own, in its own thread.

    PyTorch hands it what every thread runs in the meantime; what others do is done as ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        made_of_others = next(m.children(), None) is not None
        return not made_of_others or super().is_leaf_module(m, module_qualified_name)


def _split(given: Node, nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """Split nodes, in the order that they are computed in, after each that alone is used later on."""
    places = {node: place for place, node in enumerate(nodes)}

    def find_last_use(node: Node) -> int:
        # Beyond all others, if the module gives it.
        return max(places.get(user, len(nodes)) for user in node.users) if node.users else -1

    part: list[Node] = []
    latest = find_last_use(given)
    for place, node in enumerate(nodes):
        part.append(node)
        if latest <= place:
            yield part
            part = []
        latest = max(latest, find_last_use(node))
    if part:
        yield part


@final
class Segment(nn.Module):
    """Some steps of a module: they take what one step before gives, and give what the last of them does.

    Parameters
    ----------
    parts
        The module's parts by their names.
    given
        The step before.
    steps
        The steps, in order.
    """

    def __init__(self, parts: nn.Module, given: Node, steps: Sequence[Node]) -> None:
        super().__init__()
        self._given, self._steps = given, steps
        names = dict.fromkeys(str(step.target) for step in steps if step.op == "call_module")
        self._parts = {name: parts.get_submodule(name) for name in names}
        needed = dict.fromkeys(node for step in steps for node in step.all_input_nodes if node.op == "get_attr")
        self._tensors = {node: attrgetter(str(node.target))(parts) for node in needed}

    def forward(self, images: Tensor) -> Tensor:
        """Take the steps."""
        values: dict[Node, Any] = {**self._tensors, self._given: images}
        for step in self._steps:
            positional, named = fx.map_arg((step.args, step.kwargs), values.__getitem__)
            values[step] = self._find(step, positional)(*positional[step.op == "call_method" :], **named)
        made: Tensor = values[self._steps[-1]]
        return made

    def _find(self, step: Node, positional: Sequence[Any]) -> Callable[..., Any]:
        """Return what a step calls."""
        if step.op == "call_module":
            return self._parts[str(step.target)]
        if step.op == "call_method":
            method: Callable[..., Any] = getattr(positional[0], str(step.target))
            return method
        return cast(Callable[..., Any], step.target)
