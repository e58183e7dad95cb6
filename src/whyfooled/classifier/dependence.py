"""Whether what a model gives depends on what it was given by operations that have a gradient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from whyfooled.classifier.calling import quote
from whyfooled.errors import MethodError, ModelError, WhyfooledError


def operation(node: str) -> str:
    """Return the operation that a node of the graph stands for, by the node's name."""
    return re.sub(r"Backwards?\d*$", "", node.rpartition("::")[2])


def check_dependence(logits: Tensor, images: Tensor) -> None:
    """Raise `ModelError` unless a path of operations that have a gradient leads from the images to the logits."""
    if not is_differentiable(logits, images):
        raise ModelError(
            "The model's logits do not depend on the images by operations that have a gradient: something on the way "
            "cuts it off, such as torch.no_grad() or detach() around a frozen part, NumPy, or rounding."
        )


def check_recording(module: nn.Module) -> None:
    """Raise `MethodError` where PyTorch records nothing that a gradient could be taken of, whatever one asks for.

    And `ModelError` for a module that was made there.
    """
    if torch.is_inference_mode_enabled():
        raise MethodError(
            "Gradients cannot be taken inside torch.inference_mode(). Leave it; inside torch.no_grad() they can."
        )
    if any(parameter.is_inference() for parameter in module.parameters()):
        raise ModelError(
            "The model's parameters were made inside torch.inference_mode(), so there is no gradient through them. "
            "Make the model outside of it."
        )


def differentiate(
    outputs: Tensor,
    inputs: Tensor | GradientEdge,
    weights: Tensor | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Take a vector-Jacobian product back through a model, and of nothing but the inputs.

    Parameters
    ----------
    outputs
        What is differentiated: one number, or any tensor with `weights` of its shape.
    inputs
        With respect to what: a tensor, or the place in the graph where it was made.
    weights
        What each output counts.
    retain_graph, create_graph
        As for `torch.autograd.grad`.

    Raises
    ------
    ModelError
        If the outputs do not depend on the inputs, or the model fails on the way back: with its own words.
    """
    try:
        (gradient,) = torch.autograd.grad(
            outputs, inputs, weights, retain_graph=retain_graph, create_graph=create_graph, allow_unused=True
        )
    except WhyfooledError:
        raise
    except Exception as error:  # whatever a backward pass of someone else's stumbles over
        if "use_reentrant" in str(error):
            raise ModelError(
                "A part of this model has a re-entrant checkpoint, through which PyTorch gives no gradient of the "
                "image. Call torch.utils.checkpoint with use_reentrant=False, or switch checkpoints off."
            ) from None
        raise ModelError(f"The model failed on the way back from the logits: {quote(error)}.") from error
    if gradient is None:
        raise ModelError("The model's logits do not depend on the images by operations that have a gradient.")
    return gradient


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
