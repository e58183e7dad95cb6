"""A module cut into segments, each of which needs nothing but what the one before gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import fx, nn
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
    graph = tracer.trace(module)
    traced = fx.GraphModule(tracer.root, graph)
    nodes = [node for node in traced.graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    (given,) = (node for node in traced.graph.nodes if node.op == "placeholder")
    segments: list[nn.Module] = []
    for part in _split(given, nodes):
        segments.append(_extract(traced, given, part))
        given = part[-1]
    return segments


class _Tracer(fx.Tracer):
    """Follows code down to the parts that have no parts of their own."""

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


def _extract(traced: fx.GraphModule, given: Node, nodes: Sequence[Node]) -> fx.GraphModule:
    """Make a module of some nodes, which takes what one node gives and gives what the last of them does."""
    graph = fx.Graph()
    copies = {given: graph.placeholder("given")}

    def find(node: Node) -> Node:
        if node not in copies and node.op == "get_attr":
            copies[node] = graph.node_copy(node)
        return copies[node]

    for node in nodes:
        copies[node] = graph.node_copy(node, find)
    graph.output(copies[nodes[-1]])
    return fx.GraphModule(traced, graph)
