"""What methods with a rule of their own in the backward pass share: plain Python to run in, and the graph to check."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import handle_torch_function, has_torch_function

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import SharedSetting


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what is compiled as plain Python for a while, so that modes and hooks see every call."""
    # Nothing can be compiled before this module is imported, and importing it takes seconds.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _EAGER():
        yield


_EAGER = SharedSetting(lambda: torch.compiler.set_stance("force_eager"))

plain_attention = SharedSetting(lambda: sdpa_kernel(SDPBackend.MATH))
"""Attention in its plain form for a while: the quick ones have no second derivative."""


def is_scripted(module: nn.Module) -> bool:
    """Tell whether a part of a model is scripted or traced, so that modes do not see its calls."""
    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


def is_checkpointed() -> bool:
    """Tell whether this runs in a checkpointed part of a model, which runs again, outside all modes, for its values."""
    frame = inspect.currentframe()
    # A checkpoint around the classifier is the caller's.
    while frame is not None and (where := frame.f_globals.get("__name__")) != Classifier.__module__:
        if where == "torch.utils.checkpoint":
            return True
        frame = frame.f_back
    return False


def report_images(images: Tensor) -> None:
    """Tell the modes around that a forward pass from images is about to begin, if any has to follow it."""
    if has_torch_function((images,)):
        handle_torch_function(report_images, (images,), images)


def report_logits(module: nn.Module, logits: Tensor, images: Tensor) -> None:
    """Tell the modes around that a forward pass from images to logits is done, if any has to check what ran."""
    if has_torch_function((logits,)):
        handle_torch_function(report_logits, (logits,), module, logits, images)


@contextmanager
def true_activations(images: Tensor) -> Iterator[None]:
    """Tell the modes around that activations are to stay what they are for a while, if any would make them smooth."""
    report_smoothing(images, False)
    try:
        yield
    finally:
        report_smoothing(images, True)


def report_smoothing(images: Tensor, wanted: bool) -> None:
    """Tell the modes around whether a pass of images wants its activations smooth, as they are about to make them."""
    if has_torch_function((images,)):
        handle_torch_function(report_smoothing, (images,), images, wanted)


def nodes_between(last: Any, first: Collection[Any]) -> set[Any]:
    """Return the nodes of the graph from one back to where others begin, without these."""
    nodes: set[Any] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes and node not in first:
            nodes.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    return nodes


def edges_of(node: Any) -> list[Any]:
    """Return the nodes that a node of the graph takes its inputs from, but for what it says to be beside its way."""
    return [following for following, _ in node.next_functions[getattr(node, "beside", 0) :]]


def graph_nodes(output: Tensor, inputs: Tensor | None = None) -> set[str]:
    """Return the names of all nodes of the autograd graph behind a tensor, as far back as the inputs."""
    names: set[str] = set()
    # What the inputs were computed from is not the model's.
    seen: set[Any] = set() if inputs is None else {inputs.grad_fn}
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        # PyTorch has one name for both.
        transposed = "Transposed" if getattr(node, "_saved_transposed", False) else ""
        names.add(transposed + node.name())
        waiting.extend(edges_of(node))
    return names
