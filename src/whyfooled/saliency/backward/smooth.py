"""Smooth activations in place of ReLUs, for as long as a map is differentiated."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, positive
from whyfooled.saliency.backward.graph import graph_nodes, is_scripted, report_logits, uncompiled
from whyfooled.saliency.backward.rules import UNSEEN, as_relu, ruled, ruled_relu


@contextmanager
def smooth_activations(beta: float) -> Iterator[None]:
    """Make every ReLU that runs inside the ``with`` block compute ``softplus(a) = log(1 + exp(beta·a)) / beta``.

    A network of ReLUs is piecewise linear, so the second derivatives by which a saliency map changes with the image are
    zero almost everywhere, and an attack on the map that follows them goes nowhere. With smooth activations they are
    not (Ghorbani, Abid, Zou 2019, arXiv 1710.10547; Dombrowski et al. 2019, arXiv 1906.07983). As beta grows, the
    network tends to the one with ReLUs: one activation is off by at most ``log(2) / beta``. What was found with smooth
    activations is to be judged without them.

    ReLU6 and Hardtanh(0, h) become ``softplus(a) − softplus(a − h)`` [ours]. A rule at the ReLUs holds at what takes
    their place, with its derivative ``f'(a)``: guided backpropagation is ``max(G, 0) · f'(a)``, a deconvnet
    ``max(G, 0)``. Activations that are smooth already stay, such as GELU, and so does max pooling.

    As in `whyfooled.saliency.backward.rules`, calls are replaced wherever PyTorch sees them, in place or not; nothing
    is done to the model, and compiled modules run uncompiled inside the block. It need only cover the call that
    computes a map with ``create_graph=True``: what is differentiated later is what ran inside. Everything that runs
    inside is smooth, logits too, and so the choice of an `Enhanced` method's contrast: give it classes chosen outside.

    Parameters
    ----------
    beta
        How sharp the bend at 0 is, above 0; activations within about ``1/beta`` of it are smoothed.

    Raises
    ------
    ParameterError
        If beta is not a finite number above 0.
    MethodError
        From a method of this package inside the block, if it runs a model of which a ReLU cannot be replaced (it is
        scripted, checkpointed or in another thread, or `DeepLIFT` has a rule of its own there), or which also bends
        where there is no ReLU, as LeakyReLU does: there, second derivatives would be zero all the same.

    Examples
    --------
    >>> with smooth_activations(beta=10):  # doctest: +SKIP
    ...     maps = Gradient()(classifier, images.requires_grad_(), classes, create_graph=True)
    >>> change = torch.autograd.grad(maps.square().sum(), images)  # doctest: +SKIP
    """
    positive("beta", beta)
    with uncompiled(), _SmoothCalls(beta):
        yield


@dataclass(frozen=True)
class SmoothReLU:
    """Softplus, or the difference of two where the activation is cut off at `upper`."""

    upper: float
    beta: float
    keeps_input: ClassVar[bool] = True

    def value(self, inputs: Tensor, inplace: bool = False) -> Tensor:
        """Compute the output; in place too, if asked."""
        if inplace:
            # Of a copy: the backward pass reads the input.
            return inputs.copy_(self.value(inputs.clone()))
        output = F.softplus(inputs, self.beta)
        return output if self.upper == float("inf") else output - F.softplus(inputs - self.upper, self.beta)

    def own_gradient(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Compute the gradient at the input from the one at the output, differentiably."""
        slope = torch.sigmoid(self.beta * kept)
        if self.upper != float("inf"):
            slope = slope - torch.sigmoid(self.beta * (kept - self.upper))
        return gradient * slope


class _SmoothCalls(TorchFunctionMode):
    """While active, every ReLU call is made with a smooth activation, with the rule that it may have."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is ruled_relu:
            _check_runs_once()
            inputs, rule, upper, inplace = args
            return ruled(inputs, rule, SmoothReLU(upper, self.beta), inplace)
        if func is report_logits:
            _check_smooth(*args)
        call = as_relu(func, args, kwargs or {})
        if call is None:
            return func(*args, **(kwargs or {}))
        _check_runs_once()
        inputs, upper, inplace = call
        return SmoothReLU(upper, self.beta).value(inputs, inplace)


def _check_runs_once() -> None:
    """Raise `MethodError` in a checkpointed part of a model: it will run again, for its values, outside of the mode."""
    frame = inspect.currentframe()
    # A checkpoint around the classifier is the caller's, who may have this block inside it.
    while frame is not None and (where := frame.f_globals.get("__name__")) != Classifier.__module__:
        if where == "torch.utils.checkpoint":
            raise _unseen("a checkpoint")
        frame = frame.f_back


_BENT = {"LeakyRelu": "LeakyReLU", "Prelu": "PReLU", "RreluWithNoise": "RReLU", "Hardtanh": "Hardtanh"}


def _check_smooth(module: nn.Module, logits: Tensor, images: Tensor) -> None:
    """Raise `MethodError` if a ReLU ran where it was not replaced, or there is another activation that bends."""
    names = graph_nodes(logits, images)
    unseen = sorted({name for name in names if name.startswith((*UNSEEN, "_RescaledReLU"))})
    if unseen or is_scripted(module):
        raise _unseen(", ".join(unseen) or "a ScriptModule")
    bent = sorted({title for start, title in _BENT.items() if any(name.startswith(start) for name in names)})
    if bent:
        raise MethodError(
            "smooth_activations replaces ReLU, ReLU6 and Hardtanh(0, h); this model also uses "
            f"{', '.join(bent)}, and would still be piecewise linear there."
        )


def _unseen(part: str) -> MethodError:
    return MethodError(
        "A part of this model runs where smooth_activations cannot replace its ReLUs: scripted, traced, compiled as a "
        f"function, checkpointed, in another thread or under deeplift's own rule ({part}). Give the plain Python "
        "module, without checkpoints, and another method than deeplift."
    )
