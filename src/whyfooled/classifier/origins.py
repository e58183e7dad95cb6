"""From where in the image the values of a tensor come, followed through every operation of a forward pass.

Each value of the image has its row and its column, in pixels. What is computed from several values is, on the mean,
where they are. So operations that move values about (a change of shape, windows, tokens in a row) take rows and columns
along; what mixes channels leaves them; and what mixes the whole image (a pooling over all places, the keys of
attention) is nowhere in particular. The pass itself is as it would be otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor

Coordinate = Tensor | None
"""For each value of a tensor its row, or its column, on the CPU; NaN where it is nowhere, None if all values are.

What is the same all along an axis has stride 0 there, so it takes no memory and is known to be the same.
"""

NEAR = 1e-3
"""Coordinates no further apart than this, in pixels, are the same. [ours]"""

_AS_SHARP = 0.99
"""Of origins that meet, those count whose variance is at least this share of the largest. [ours]"""


class Origin(NamedTuple):
    """From which rows and columns of the image the values of a tensor come."""

    rows: Coordinate
    columns: Coordinate


NOWHERE = Origin(None, None)


class Call(NamedTuple):
    """A call of an operation, with what it gave, and where tensors come from."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Sequence[Tensor]
    origin: Callable[[Tensor], Origin]
    pixels: tuple[int, int]

    def coordinate(self, place: int, way: int) -> Coordinate:
        """Return the rows (way 0) or columns (way 1) of an argument."""
        return self.origin(self.args[place])[way]

    def argument(self, name: str) -> Any:
        """Return an argument by its name, its default if it was not given."""
        for place, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                return self.args[place] if place < len(self.args) else self.kwargs.get(name, argument.default_value)
        return None


Rule = Callable[[Call, int], Sequence[Coordinate]]
"""Of a call, and a way (0 for rows, 1 for columns), the coordinates of what it gave."""


def follow(call: Call) -> list[Origin]:
    """Return where the outputs of a call come from."""
    rule = _find_rule(call.func)
    if rule is not _slide and all(call.origin(each) is NOWHERE for each in tensors_among(call.args)):
        return [NOWHERE] * len(call.outputs)
    if rule is None:
        # What writes into a tensor, in a way that is not known, leaves it where it was.
        stay = call.func._schema.is_mutable
        return [call.origin(output) if stay else NOWHERE for output in call.outputs]
    rows, columns = (_apply(rule, call, way) for way in (0, 1))
    origins = [NOWHERE if row is column is None else Origin(row, column) for row, column in zip_longest(rows, columns)]
    return [*origins, *[NOWHERE] * len(call.outputs)][: len(call.outputs)]


def tensors_among(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors whose values can be followed, those in lists included."""
    for value in values:
        if isinstance(value, Tensor):
            if has_memory(value):
                yield value
        elif isinstance(value, list | tuple):
            yield from tensors_among(value)


def has_memory(tensor: Tensor) -> bool:
    """Tell whether a tensor is values in memory: not sparse, not nested, not one of `torch.func`'s."""
    plain = tensor.layout is torch.strided and not tensor.is_nested
    return plain and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _apply(rule: Rule, call: Call, way: int) -> Sequence[Coordinate]:
    try:
        return rule(call, way)
    except Exception:  # an operation that takes other arguments than a rule knows: where its values come from is not
        return []


@cache
def _find_rule(func: Any) -> Rule | None:
    name = func._schema.name.removeprefix("aten::")
    name = name.removesuffix("_") if func._schema.is_mutable else name
    if name in _RULES:
        return _RULES[name]
    if torch.Tag.pointwise in func.tags:
        return _merge
    if "scaled_dot_product" in name:
        return _attend
    if func.is_view:
        return _move
    return None if func.namespace == "aten" else _trust


def _trust(call: Call, way: int) -> Sequence[Coordinate]:
    """Of another library's operation: where what it takes is, if it gives as many values in the same shape."""
    coordinate = call.coordinate(0, way)
    return [coordinate if coordinate is not None and coordinate.shape == call.outputs[0].shape else None]


def _merge(call: Call, way: int) -> Sequence[Coordinate]:
    """Of what is computed value by value of several tensors."""
    shape = call.outputs[0].shape
    coordinates = [call.origin(tensor)[way] for tensor in tensors_among((*call.args, *call.kwargs.values()))]
    return [_choose_sharpest([each.expand(shape) for each in coordinates if each is not None])]


def _keep(call: Call, way: int) -> Sequence[Coordinate]:
    """Of what leaves values where they are."""
    return [call.coordinate(0, way)]


def _write_over(call: Call, way: int) -> Sequence[Coordinate]:
    """Of what is written over."""
    source = call.coordinate(1, way)
    return [call.coordinate(0, way) if source is None else source.expand(call.outputs[0].shape)]


def _move(call: Call, way: int) -> Sequence[Coordinate]:
    """Of what moves values about: the same is done to their coordinates."""
    coordinate = call.coordinate(0, way)
    if coordinate is None:
        return []
    moved = call.func(coordinate, *map(_bring_to_cpu, call.args[1:]), **call.kwargs)
    return [each if each.is_floating_point() else None for each in tensors_among([moved])]


def _bring_to_cpu(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_bring_to_cpu(each) for each in value]
    return value.cpu() if isinstance(value, Tensor) else value


def _reshape(call: Call, way: int) -> Sequence[Coordinate]:
    """Of a change of shape; what has no view of that shape is copied."""
    coordinate, shape = call.coordinate(0, way), list(call.outputs[0].shape)
    if coordinate is None:
        return []
    # The axes at both ends that stay as they are need no copies of what is the same along them.
    same = min(coordinate.ndim, len(shape))
    first = next((axis for axis in range(same) if coordinate.shape[axis] != shape[axis]), same)
    last = next(
        (axis for axis in range(1, same - first + 1) if coordinate.shape[-axis] != shape[-axis]), same - first + 1
    )
    for axis in (*range(first), *range(1 - last, 0)):
        if _is_flat(coordinate, axis):
            coordinate, shape[axis] = coordinate.narrow(axis, 0, 1), 1
    return [coordinate.reshape(shape).expand(call.outputs[0].shape)]


def _turn(call: Call, way: int) -> Sequence[Coordinate]:
    """Of what moves values along axes that it names."""
    coordinate = call.coordinate(0, way)
    if coordinate is None or not call.argument("dims"):
        return _move(call, way)
    return [call.func(drop_repeats(coordinate), *call.args[1:], **call.kwargs).expand(coordinate.shape)]


def _select(call: Call, way: int) -> Sequence[Coordinate]:
    """Of some of the places along an axis."""
    coordinate = call.coordinate(0, way)
    return [None if coordinate is None else _take(coordinate, call.args[1], call.args[2].cpu())]


def _halve(call: Call, way: int) -> Sequence[Coordinate]:
    """Of an axis of which one half is a gate of the other."""
    coordinate, axis = call.coordinate(0, way), call.argument("dim")
    return [None if coordinate is None else coordinate.narrow(axis, 0, call.outputs[0].shape[axis])]


def _pad(call: Call, way: int) -> Sequence[Coordinate]:
    """Of a margin of constants: it is where the values next to it are."""
    coordinate, margins = call.coordinate(0, way), call.args[1]
    if coordinate is None:
        return []
    for number, before in enumerate(margins[::2]):
        axis = coordinate.ndim - 1 - number
        places = torch.arange(call.outputs[0].shape[axis]) - before
        coordinate = _take(coordinate, axis, places.clamp(0, coordinate.shape[axis] - 1))
    return [coordinate]


def _join(call: Call, way: int) -> Sequence[Coordinate]:
    """Of tensors one after the other, along one of their axes or a new one."""
    output, stacked = call.outputs[0], call.func._schema.name == "aten::stack"
    axis = call.argument("dim") % output.ndim
    parts = [part for part in call.args[0] if part.ndim + stacked == output.ndim]
    coordinates = [call.origin(part)[way] for part in parts]
    if all(each is None for each in coordinates):
        return []
    there = [
        torch.full((1,) * part.ndim, torch.nan).expand(part.shape) if each is None else each
        for part, each in zip(parts, coordinates, strict=True)
    ]
    there = [each.unsqueeze(axis) for each in there] if stacked else there
    for side in range(output.ndim):
        if all(_is_flat(each, side) for each in there):
            there = [each.narrow(side, 0, 1) if side != axis else each for each in there]
    first, *others = (each.narrow(axis, 0, 1) for each in there if each.shape[axis])
    if all(_is_flat(each, axis) for each in there) and all(_are_alike(first, other) for other in others):
        return [first.expand(output.shape)]
    return [torch.cat(there, axis).expand(output.shape)]


def _reduce(call: Call, way: int) -> Sequence[Coordinate]:
    """Of a mean, a sum or a maximum over some axes."""
    coordinate, axes = call.coordinate(0, way), call.argument("dim")
    if coordinate is None or axes is None:
        return []
    numbers = sorted({axis % coordinate.ndim for axis in (axes if isinstance(axes, list | tuple) else [axes])})
    for axis in reversed(numbers):
        coordinate = _average(coordinate, axis)
        coordinate = coordinate if call.argument("keepdim") else coordinate.squeeze(axis)
    return [_drop_if_everywhere(coordinate.expand(output.shape)) for output in call.outputs]


def _multiply(call: Call, way: int) -> Sequence[Coordinate]:
    """Of a product of matrices, or of batches of them, to which a third may be added."""
    *_, left, right = tensors_among(call.args)
    # Where both are somewhere, as queries and keys are, what counts is the left one.
    for factor, axis in ((left, -1), (right, -2)):
        coordinate = call.origin(factor)[way]
        summed = (
            None
            if coordinate is None
            else _drop_if_everywhere(_average(coordinate, axis).expand(call.outputs[0].shape))
        )
        if summed is not None:
            return [summed]
    return []


def _attend(call: Call, way: int) -> Sequence[Coordinate]:
    """Of attention in one call, or of a linear layer: where the queries are, or the layer's inputs."""
    coordinate = call.coordinate(0, way)
    return [None if coordinate is None else _drop_if_everywhere(_average(coordinate, -1).expand(call.outputs[0].shape))]


def _slide(call: Call, way: int) -> Sequence[Coordinate]:
    """Of convolutions, poolings and resizings: where the middle of each window is."""
    output, coordinate = call.outputs[0], call.coordinate(0, way)
    sides = 2 if "2d" in call.func._schema.name else output.ndim - 2
    if coordinate is None:
        return [_start_anew(call, way)] if sides == 2 else []
    middles = _average(coordinate, -sides - 1)
    for side in range(-sides, 0):
        places = _find_middles(call, sides, side, middles.shape[side], output.shape[side])
        if places is not None:
            low, high = (_take(middles, side, whole.long()) for whole in (places.floor(), places.ceil()))
            fraction = (places - places.floor()).view(-1, *(1,) * (-side - 1))
            middles = low + fraction * (high - low)
    return [_drop_if_everywhere(middles.expand(output.shape))]


def _start_anew(call: Call, way: int) -> Coordinate:
    """Return the rows, or columns, that an operation in two dimensions makes of a single one, or of what is nowhere."""
    axis, shape = way - 2, call.outputs[0].shape
    if shape[axis] == 1 or (
        call.args[0].shape[axis] > 1 and any(each is not None for each in call.origin(call.args[0]))
    ):
        return None
    places = (torch.arange(shape[axis]) + 0.5) * call.pixels[way] / shape[axis] - 0.5
    return (places.view(-1, 1) if way == 0 else places).expand(shape)


def _find_middles(call: Call, sides: int, side: int, before: int, after: int) -> Tensor | None:
    """Return (after,) where the middles of windows along a side are, from 0 to before − 1; None if they stay."""
    stride, padding, dilation = (call.argument(name) for name in ("stride", "padding", "dilation"))
    kernel = call.args[1].shape[-sides:] if call.argument("weight") is not None else call.argument("kernel_size")
    if not kernel or padding is None or call.argument("transposed"):
        if before == after:
            return None
        # Windows side by side, as many as there are values.
        return ((torch.arange(after) + 0.5) * before / after - 0.5).clamp(0, before - 1)
    long, step, margin, apart = (
        values[side % len(values)] for values in (kernel, stride or kernel, padding, dilation or [1])
    )
    if before == after and step == 1 and 2 * margin == (long - 1) * apart:
        return None
    middles: Tensor = (torch.arange(after) * step - margin + (long - 1) * apart / 2).clamp(0, before - 1)
    return middles


_RULES: dict[str, Rule | None] = {
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "_reshape_copy"), _reshape),
    **dict.fromkeys(("as_strided", "view_as_complex", "view_as_real", "_conj", "real", "imag"), None),
    **dict.fromkeys(("roll", "flip"), _turn),
    "index_select": _select,
    **dict.fromkeys(("repeat", "rot90", "gather", "index", "take", "im2col"), _move),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"), _move),
    **dict.fromkeys([f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)], _move),
    "constant_pad_nd": _pad,
    **dict.fromkeys(("cat", "stack"), _join),
    "copy": _write_over,
    "glu": _halve,
    **dict.fromkeys(
        ("_to_copy", "contiguous", "native_dropout", "cumsum", "rrelu_with_noise", "hardswish", "log_sigmoid_forward"),
        _keep,
    ),
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm", "renorm"), _keep),
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), _keep),
    **dict.fromkeys(("_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _keep),
    **dict.fromkeys(("_batch_norm_with_update", "batch_norm_elemt"), _keep),
    **dict.fromkeys(
        (
            "_softmax",
            "_log_softmax",
            "_safe_softmax",
            "tril",
            "triu",
            "slice_scatter",
            "select_scatter",
            "index_put",
            "_index_put_impl",
        ),
        _keep,
    ),
    **dict.fromkeys(("_native_multi_head_attention", "_transformer_encoder_layer_fwd"), _keep),
    **dict.fromkeys(("rsub", "_prelu_kernel", "fill", "zero"), _merge),
    **dict.fromkeys(("mean", "sum", "nansum", "amax", "amin", "max", "min", "prod", "logsumexp"), _reduce),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "median"), _reduce),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "_addmm_activation"), _multiply),
    **dict.fromkeys(("linear", "mkldnn_linear", "mv"), _attend),
    **dict.fromkeys(("convolution", "cudnn_convolution", "mkldnn_convolution", "miopen_convolution"), _slide),
    **dict.fromkeys(
        [f"{kind}_pool{d}d" for kind in ("avg", "_adaptive_avg", "adaptive_max") for d in (1, 2, 3)], _slide
    ),
    **dict.fromkeys([f"max_pool{d}d_with_indices" for d in (2, 3)], _slide),
    **dict.fromkeys(("mkldnn_max_pool2d", "mkldnn_adaptive_avg_pool2d", "fractional_max_pool2d"), _slide),
    **dict.fromkeys([f"upsample_{kind}2d" for kind in ("nearest", "bilinear", "bicubic")], _slide),
    **dict.fromkeys([f"_upsample_{kind}2d" for kind in ("nearest_exact", "bilinear", "bicubic")], _slide),
    **dict.fromkeys([f"_upsample_{kind}2d_aa" for kind in ("bilinear", "bicubic")], _slide),
    **dict.fromkeys(("grid_sampler_2d", "torchvision::deform_conv2d"), _slide),
}


def drop_repeats(coordinate: Tensor) -> Tensor:
    """Keep one of those that are known to be the same, so that what is left broadcasts to what there was."""
    for axis in range(coordinate.ndim):
        coordinate = coordinate.narrow(axis, 0, 1) if _is_flat(coordinate, axis) else coordinate
    return coordinate


def _is_flat(coordinate: Tensor, axis: int) -> bool:
    return coordinate.stride(axis) == 0 or coordinate.shape[axis] == 1


def _take(coordinate: Tensor, axis: int, places: Tensor) -> Tensor:
    """Take some places along an axis."""
    shape = list(coordinate.shape)
    shape[axis] = len(places)
    flat = _is_flat(coordinate, axis)
    return (drop_repeats(coordinate) if flat else drop_repeats(coordinate).index_select(axis, places)).expand(shape)


def _average(coordinate: Tensor, axis: int) -> Tensor:
    """Take the mean along an axis, which is kept."""
    shape = list(coordinate.shape)
    shape[axis] = 1
    flat = _is_flat(coordinate, axis)
    return (drop_repeats(coordinate) if flat else drop_repeats(coordinate).nanmean(axis, keepdim=True)).expand(shape)


def _drop_if_everywhere(coordinate: Tensor) -> Coordinate:
    """Return None for what is in the same place everywhere: a sum over all places is in none."""
    values = drop_repeats(coordinate)
    # Mostly the first and the last are apart already.
    apart = abs(float(values[(0,) * values.ndim]) - float(values[(-1,) * values.ndim])) > NEAR
    return coordinate if apart or _measure_variance(values) > NEAR**2 else None


def _measure_variance(coordinate: Tensor) -> float:
    values = drop_repeats(coordinate)
    values = values[~values.isnan()]
    return float(values.var(correction=0)) if len(values) else 0.0


def _are_alike(first: Tensor, second: Tensor) -> bool:
    first, second = drop_repeats(first), drop_repeats(second)
    if first.data_ptr() == second.data_ptr() and (first.shape, first.stride()) == (second.shape, second.stride()):
        return True
    if first.shape == second.shape and torch.equal(first, second):
        return True
    apart = (first - second).abs() > NEAR
    return not bool((apart | (first.isnan() != second.isnan())).any())


def _choose_sharpest(coordinates: Sequence[Tensor]) -> Coordinate:
    """Of origins of the same values, choose that which tells the places best apart; take the mean of equally good ones.

    Beside the way around a block, what went through attention or a gate says less. Two that are as good and differ, as
    an image and its mirror image, leave nothing that is anywhere.
    """
    different: list[Tensor] = []
    for coordinate in coordinates:
        if not any(_are_alike(coordinate, other) for other in different):
            different.append(coordinate)
    if len(different) < 2:
        return different[0] if different else None
    variances = [_measure_variance(coordinate) for coordinate in different]
    enough = _AS_SHARP * max(variances)
    sharp = [coordinate for coordinate, has in zip(different, variances, strict=True) if has >= enough]
    if len(sharp) == 1:
        return sharp[0]
    return _drop_if_everywhere(torch.stack([coordinate.contiguous() for coordinate in sharp]).nanmean(0))
