"""The weights of attention as a forward pass computes them, in whichever way the model does."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from whyfooled.saliency.backward.attention import as_attention, attend_with_heads
from whyfooled.saliency.backward.calls import Call
from whyfooled.saliency.backward.elementwise import title_of

_PRODUCTS = ("matmul", "bmm", "einsum")


class AttentionWeights(TorchFunctionMode):
    """While active, keeps the weights by which attention mixes tokens, in their place in the graph.

    Fused attention is computed step by step, so that its weights can be differentiated by. Where a model writes the
    steps out itself, the weights are what multiplies something from the left and has rows that sum to 1.

    ``found`` are the weights in the order in which they were used: (n, heads, tokens, tokens), or as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        attention = as_attention(call)
        if attention is not None:
            weights = attention.logits().softmax(-1)
            self.found.append(weights)
            return weights @ attention.values
        if func is F.multi_head_attention_forward:
            with self:
                attended = attend_with_heads(call)
            if attended is not None:
                return attended
        if title_of(call) in _PRODUCTS:
            self.found += [tensor for tensor in call.tensors[:1] if len(call.tensors) == 2 and _weighs(tensor)]
        return func(*args, **(kwargs or {}))


def _weighs(tensor: Tensor) -> bool:
    """Tell whether a tensor of the graph has rows of shares: at least 0, with a sum of 1."""
    if tensor.ndim < 3 or tensor.grad_fn is None or not tensor.is_floating_point():
        return False
    values = tensor.detach()
    # Sums of shares are off by their rounding.
    near = values.shape[-1] * torch.finfo(values.dtype).eps
    return bool((values >= 0).all() and ((values.sum(-1) - 1).abs() <= near).all())
