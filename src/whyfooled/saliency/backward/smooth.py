"""Smooth activations in place of ReLUs, for as long as a map is differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyfooled.errors import MethodError, positive
from whyfooled.saliency.backward.doubts import Doubt
from whyfooled.saliency.backward.followed import Followed, RectifierCalls
from whyfooled.saliency.backward.graph import (
    is_checkpointed,
    is_scripted,
    report_logits,
    report_smoothing,
    uncompiled,
)
from whyfooled.saliency.backward.rectifiers import Rectifier
from whyfooled.saliency.backward.rescale import bounded_relu, rescaled, rescaled_relu
from whyfooled.saliency.backward.rules import ruled, ruled_gated, ruled_relu
from whyfooled.saliency.backward.steps import steps_between


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

    Layer-wise relevance propagation is left as it is. Its shares are quotients of what the network computes and have
    slopes without that; a smooth activation would let relevance through where a ReLU is shut, and so make another map
    of it, whose slopes lead nowhere on the true network [ours].

    As in `whyfooled.saliency.backward.rules`, calls are replaced wherever PyTorch sees them, in place or not; nothing
    is done to the model, and compiled modules run uncompiled inside the block. It need only cover the call that
    computes a map with ``create_graph=True``: what is differentiated later is what ran inside. Everything that runs
    inside is smooth, logits too, and so the choice of an `Enhanced` method's contrast: give it classes chosen outside.
    A ReLU that is spelled in other words, such as ``a.clamp(min=0)``, is replaced where a method of this package runs
    the model, and nowhere else: there, it may be anything.

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
        scripted, checkpointed or in another thread), or which also bends where there is no ReLU, as LeakyReLU does:
        there, second derivatives would be zero all the same.

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

    def through_gate(self, gradient: Tensor, kept: Tensor) -> Tensor:
        """Compute it by the derivative, which takes the place of what is open or closed."""
        return self.own_gradient(gradient, kept)


class _SmoothCalls(RectifierCalls):
    """While active, every rectifier is made as a smooth activation, with the rule that it may have."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.wanted = True

    def rectify(self, rectifier: Rectifier) -> Tensor:
        """Make a rectifier smooth."""
        _check_runs_once()
        return rectifier.compute(lambda inputs, upper, inplace: SmoothReLU(upper, self.beta).value(inputs, inplace))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is report_smoothing:
            self.wanted = args[1]
        if func is report_smoothing or not self.wanted:
            return func(*args, **(kwargs or {}))
        if func is ruled_relu:
            _check_runs_once()
            inputs, rule, upper, inplace = args
            return ruled(inputs, rule, SmoothReLU(upper, self.beta), inplace)
        if func is bounded_relu:
            _check_runs_once()
            inputs, upper, inplace = args
            return SmoothReLU(upper, self.beta).value(inputs, inplace)
        if func is rescaled_relu:
            _check_runs_once()
            inputs, reference, rescaling, upper, inplace = args
            rescaling.smoothed = True
            return rescaled(inputs, reference, rescaling, SmoothReLU(upper, self.beta), inplace)
        if func is ruled_gated:
            inputs, rule, activation, bends, inplace = args
            output = ruled(inputs, rule, activation, inplace)
            if bends and self.followed is not None:
                self.followed.doubts[output.grad_fn] = Doubt(bends, bends=True)
            return output
        if func is report_logits and self.followed is not None:
            module, logits, images = args
            _check_smooth(module, logits, images, self.followed)
            # What the method does with the logits is no part of the model.
            self.followed = None
        return super().__torch_function__(func, types, args, kwargs)


def _check_runs_once() -> None:
    if is_checkpointed():
        raise _unseen("a checkpoint")


_SMOOTH = frozenset((
    "Silu", "Gelu", "Mish", "Softplus", "Elu", "Celu", "Hardswish", "LogSigmoid", "Exp", "Exp2", "Expm1", "Log",
    "Log2", "Log10", "Log1P", "Pow", "Sqrt", "Rsqrt", "Reciprocal", "Erf", "Erfc", "Sin", "Cos", "Sinh", "Cosh",
    "Asinh", "Atan", "Logaddexp",
))  # fmt: skip
"""Activations, and what they are written out with, that are smooth already."""


def _check_smooth(module: nn.Module, logits: Tensor, images: Tensor, followed: Followed) -> None:
    """Raise `MethodError` if a ReLU ran where it was not replaced, or there may be another activation that bends."""
    if is_scripted(module):
        raise _unseen("a ScriptModule")
    steps = steps_between(logits, images, followed, _SMOOTH)
    if steps.unseen:
        raise _unseen(", ".join(sorted(steps.unseen)))
    if steps.unknown:
        raise MethodError(
            "smooth_activations replaces ReLU, ReLU6 and Hardtanh(0, h); this model also uses "
            f"{', '.join(sorted(steps.unknown))}, and would still be piecewise linear there, as far as is known."
        )


def _unseen(part: str) -> MethodError:
    return MethodError(
        "A part of this model runs where smooth_activations cannot replace its ReLUs: scripted, traced, compiled as a "
        f"function, checkpointed or in another thread ({part}). Give the plain Python module, without checkpoints."
    )
