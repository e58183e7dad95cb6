"""Whether what a model gives depends on what it was given by operations that have a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from whyfooled.errors import MethodError, ModelError


def check_dependence(logits: Tensor, images: Tensor) -> None:
    """Raise `ModelError` unless a path of operations that have a gradient leads from the images to the logits."""
    check_recording()
    if not is_differentiable(logits, images):
        raise ModelError(
            "The model's logits do not depend on the images by operations that have a gradient: something on the way "
            "cuts it off, such as torch.no_grad() or detach() around a frozen part, NumPy, or rounding."
        )


def check_recording() -> None:
    """Raise `MethodError` where PyTorch records nothing that a gradient could be taken of, whatever one asks for."""
    if torch.is_inference_mode_enabled():
        raise MethodError(
            "Gradients cannot be taken inside torch.inference_mode(). Leave it; inside torch.no_grad() they can."
        )


def is_differentiable(output: Tensor, inputs: Tensor) -> bool:
    """Tell whether the graph behind a tensor leads back to another, which requires a gradient."""
    if output is inputs:
        return inputs.requires_grad
    # A leaf is known by the node where its gradient would be kept.
    goal = inputs.grad_fn
    return any(node is goal if goal is not None else getattr(node, "variable", None) is inputs for node in walk(output))


def walk(output: Tensor) -> Iterator[Any]:
    """Go through the nodes of the graph behind a tensor, each once."""
    seen, waiting = set[Any](), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(following for following, _ in node.next_functions)
