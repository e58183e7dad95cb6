"""Attention and normalisations as relevance sees them: linear in one input, while everything else in them is held."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whyfooled.saliency.backward.calls import Call


class Held(NamedTuple):
    """A call that is linear in one of its tensors, but for a bias, while the others are held.

    Parameters
    ----------
    inputs
        That tensor.
    linear
        What the call does with it, without the bias.
    bias
        What it adds.
    """

    inputs: Tensor
    linear: Callable[[Tensor], Tensor]
    bias: Tensor | float


_NORMS: dict[Any, tuple[str, ...]] = {
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    torch.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    torch.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    torch.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.normalize: ("input", "p", "dim", "eps", "out"),
}


def as_norm(call: Call, *, again: bool = False) -> Held | None:
    """Read a normalisation by a layer's or a group's statistics, or by a length: all of these are held.

    With their graph, if what is made of them is differentiated `again`.
    """
    if call.function not in _NORMS:
        return None
    given = dict(zip(_NORMS[call.function], call.args, strict=False)) | call.kwargs
    inputs = given["input"] if again else given["input"].detach()
    if call.function is F.normalize:
        length = inputs.norm(given.get("p", 2.0), given.get("dim", 1), keepdim=True).clamp_min(given.get("eps", 1e-12))
        return Held(given["input"], lambda values: values / length, 0.0)
    if "num_groups" in given:
        return _hold_groups(given, inputs)
    axes = tuple(range(-len(given["normalized_shape"]), 0))
    weight = 1.0 if given.get("weight") is None else given["weight"].detach()
    if "rms_norm" in call.function.__name__:
        eps = torch.finfo(inputs.dtype).eps if given.get("eps") is None else given["eps"]
        scale = weight * (inputs.square().mean(axes, keepdim=True) + eps).rsqrt()
        return Held(given["input"], lambda values: values * scale, 0.0)
    scale = weight * (inputs.var(axes, correction=0, keepdim=True) + given.get("eps", 1e-5)).rsqrt()
    bias = 0.0 if given.get("bias") is None else given["bias"].detach()
    return Held(given["input"], lambda values: (values - values.mean(axes, keepdim=True)) * scale, bias)


def _hold_groups(given: Mapping[str, Any], inputs: Tensor) -> Held:
    def by_group(values: Tensor) -> Tensor:
        groups: Tensor = values.reshape(len(values), given["num_groups"], -1)
        return groups

    shape = (1, -1, *(1,) * (inputs.ndim - 2))
    deviation = (by_group(inputs).var(2, correction=0, keepdim=True) + given.get("eps", 1e-5)).sqrt()
    weight = 1.0 if given.get("weight") is None else given["weight"].detach().view(shape)
    bias = 0.0 if given.get("bias") is None else given["bias"].detach().view(shape)

    def linear(values: Tensor) -> Tensor:
        groups = by_group(values)
        normalised: Tensor = (groups - groups.mean(2, keepdim=True)) / deviation
        return normalised.view(values.shape) * weight

    return Held(given["input"], linear, bias)


_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class Attention(NamedTuple):
    """A call of attention: its queries, keys and values, and what is added to, or masked in, their products."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None
    scale: float

    def logits(self) -> Tensor:
        """Compute what the softmax is taken of."""
        logits = self.queries @ self.keys.transpose(-2, -1) * self.scale
        if self.mask is None:
            return logits
        if self.mask.dtype == torch.bool:
            return logits.masked_fill(~self.mask, -torch.inf)
        return logits + self.mask


def as_attention(call: Call) -> Attention | None:
    """Read a call of `scaled_dot_product_attention`; None for something else, or with dropout that is on."""
    if call.function is not F.scaled_dot_product_attention:
        return None
    given = dict(zip(_ATTENTION, call.args, strict=False)) | call.kwargs
    if given.get("dropout_p", 0.0) != 0:
        return None
    queries, keys, values = (given[name] for name in _ATTENTION[:3])
    if given.get("enable_gqa", False):
        repeats = queries.shape[-3] // keys.shape[-3]
        keys, values = (tensor.repeat_interleave(repeats, -3) for tensor in (keys, values))
    mask = given.get("attn_mask")
    if given.get("is_causal", False):
        mask = torch.ones(queries.shape[-2], keys.shape[-2], dtype=torch.bool, device=queries.device).tril()
    scale = given.get("scale")
    return Attention(queries, keys, values, mask, queries.shape[-1] ** -0.5 if scale is None else scale)


_HEADS = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v"),
    *("add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights"),
    *("attn_mask", "use_separate_proj_weight"),
)


def attend_with_heads(call: Call) -> tuple[Tensor, Tensor | None] | None:
    """Compute a call of PyTorch's attention with several heads step by step; None for other calls and other options."""
    if call.function is not F.multi_head_attention_forward:
        return None
    given = dict(zip(_HEADS, call.args, strict=False)) | call.kwargs
    odd = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
    drops = given.get("training", True) and given["dropout_p"] > 0
    if drops or given.get("add_zero_attn") or any(given.get(name) is not None for name in odd):
        return None
    if given.get("use_separate_proj_weight") or given["query"].ndim != 3:
        return None
    heads, biases = given["num_heads"], given.get("in_proj_bias")
    projected = [
        F.linear(given[name], weight, bias)
        for name, weight, bias in zip(
            _HEADS[:3],
            given["in_proj_weight"].chunk(3),
            (None,) * 3 if biases is None else biases.chunk(3),
            strict=True,
        )
    ]
    # (places, n, channels) -> (n, heads, places, channels of a head)
    queries, keys, values = (tensor.view(*tensor.shape[:2], heads, -1).permute(1, 2, 0, 3) for tensor in projected)
    mask = given.get("attn_mask")
    if mask is not None:
        mask = mask.view(-1, heads, *mask.shape[1:]) if mask.ndim == 3 else mask
        mask = ~mask if mask.dtype == torch.bool else mask
    attended = F.scaled_dot_product_attention(queries, keys, values, mask)
    joined = attended.permute(2, 0, 1, 3).flatten(2)
    outputs = F.linear(joined, given["out_proj_weight"], given.get("out_proj_bias"))
    if not given.get("need_weights", True):
        return outputs, None
    weights = Attention(queries, keys, values, mask, queries.shape[-1] ** -0.5).logits().softmax(-1)
    return outputs, weights.mean(1) if given.get("average_attn_weights", True) else weights
