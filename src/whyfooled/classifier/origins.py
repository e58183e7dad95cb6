"""From where in the image the values of a tensor come, followed through every operation of a forward pass.

Each value of the image has its row and its column, in pixels. What is computed from several values is, on the mean,
where they are. So operations that move values about (a change of shape, windows, tokens in a row) take rows and columns
along; what mixes channels leaves them; and what mixes the whole image (a pooling over all places, the keys of
attention) is nowhere in particular. The pass itself is as it would be otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

Coordinate = Tensor | None
"""For each value of a tensor its row, or its column, on the CPU: NaN where it is nowhere in particular, None if all are.

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


_NOWHERE = Origin(None, None)


@final
class OriginTracker(TorchDispatchMode):
    """While active, follows where values come from, from the images through all that is computed of them.

    Operations are seen below whatever spells them: layers, functions, methods, scripted parts. What is computed out of
    PyTorch's sight (in NumPy, by an operation of another library that is not known here) comes from nowhere; a
    convolution of it, or a pooling, in two dimensions starts anew, since its last two axes are rows and columns.

    Parameters
    ----------
    images
        (n,c,h,w) What the pass is given.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        height, width = images.shape[-2:]
        self._pixels = (height, width)
        self._origins: dict[Any, tuple[StorageWeakRef, Origin]] = {}
        self._tidy_at = 1000
        self._watched: dict[int, list[Tensor]] = {}
        self._copies: dict[int, Tensor] = {}
        rows = torch.arange(height, dtype=torch.float32).view(-1, 1).expand(images.shape)
        columns = torch.arange(width, dtype=torch.float32).expand(images.shape)
        self._note(images, Origin(rows, columns))

    def origin(self, tensor: Tensor) -> Origin:
        """Return where a tensor's values come from."""
        known = self._origins.get(_key(tensor))
        return _NOWHERE if known is None else known[1]

    def watch(self, tensor: Tensor) -> None:
        """Keep a copy of a tensor as soon as something is about to write into it; the tensor must stay alive."""
        self._watched.setdefault(_storage(tensor), []).append(tensor)

    def overwritten(self, tensor: Tensor) -> Tensor | None:
        """Return what a watched tensor was before something wrote into it, None if nothing did."""
        return self._copies.get(id(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if self._watched and func._schema.is_mutable:
            self._copy_before(func, args, named)
        result = func(*args, **named)
        rule = _rule_of(func)
        # What writes into a tensor, in a way that is not known, leaves it where it is.
        if rule is not None or not func._schema.is_mutable:
            outputs = [result] if isinstance(result, Tensor) else list(_tensors(tree_leaves(result)))
            self._follow(rule, _Call(func, args, named, outputs, self.origin, self._pixels))
        return result

    def _follow(self, rule: _Rule | None, call: _Call) -> None:
        rows, columns = ([] if rule is None else list(_derived(rule, call, way)) for way in (0, 1))
        for output, *coordinates in zip_longest(call.outputs, rows, columns):
            if output is not None:
                self._note(output, Origin(*coordinates))

    def _note(self, tensor: Tensor, origin: Origin) -> None:
        key = _key(tensor)
        if origin.rows is None and origin.columns is None:
            self._origins.pop(key, None)
            return
        # Memory that is referred to, even weakly, is not given out again, so keys stay unique.
        self._origins[key] = StorageWeakRef(tensor.untyped_storage()), origin
        if len(self._origins) > self._tidy_at:
            self._origins = {key: known for key, known in self._origins.items() if not known[0].expired()}
            self._tidy_at = 2 * len(self._origins) + 1000

    def _copy_before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[place] if place < len(args) else kwargs.get(argument.name)
                for written in _tensors(tree_leaves(given)):
                    for tensor in self._watched.pop(_storage(written), []):
                        self._copies[id(tensor)] = tensor.detach().clone()


def _key(tensor: Tensor) -> Any:
    # Not the tensor's own identity: views are handed on as other objects than they are made.
    return _storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    return (value for value in values if isinstance(value, Tensor))


@final
@dataclass(frozen=True, eq=False)
class _Call:
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


_Rule = Callable[[_Call, int], Sequence[Coordinate]]
"""Of a call, and a way (0 for rows, 1 for columns), the coordinates of what it gave."""


def _derived(rule: _Rule, call: _Call, way: int) -> Sequence[Coordinate]:
    try:
        return rule(call, way)
    except Exception:  # an operation that takes other arguments than a rule knows: where its values come from is not
        return []


@cache
def _rule_of(func: Any) -> _Rule | None:
    name = func._schema.name.removeprefix("aten::")
    name = name.removesuffix("_") if func._schema.is_mutable else name
    if name in _RULES:
        return _RULES[name]
    if torch.Tag.pointwise in func.tags:
        return _met
    if "scaled_dot_product" in name:
        return _attended
    return _moved if func.is_view else None


def _met(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of what is computed value by value of several tensors."""
    shape = call.outputs[0].shape
    coordinates = [call.origin(tensor)[way] for tensor in _tensors((*call.args, *call.kwargs.values()))]
    return [_sharpest([each.expand(shape) for each in coordinates if each is not None])]


def _kept(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of what leaves values where they are."""
    return [call.coordinate(0, way)]


def _copied(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of what is written over."""
    source = call.coordinate(1, way)
    return [call.coordinate(0, way) if source is None else source.expand(call.outputs[0].shape)]


def _moved(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of what moves values about: the same is done to their coordinates."""
    coordinate = call.coordinate(0, way)
    if coordinate is None:
        return []
    rest, named = tree_map_only(Tensor, Tensor.cpu, (call.args[1:], call.kwargs))
    return [each if each.is_floating_point() else None for each in tree_leaves(call.func(coordinate, *rest, **named))]


def _shaped(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of a change of shape; what has no view of that shape is copied."""
    coordinate, shape = call.coordinate(0, way), list(call.outputs[0].shape)
    if coordinate is None:
        return []
    # The axes at both ends that stay as they are need no copies of what is the same along them.
    same = min(coordinate.ndim, len(shape))
    first = next((axis for axis in range(same) if coordinate.shape[axis] != shape[axis]), same)
    last = next((axis for axis in range(1, same - first + 1) if coordinate.shape[-axis] != shape[-axis]), same - first + 1)
    for axis in (*range(first), *range(1 - last, 0)):
        if _is_flat(coordinate, axis):
            coordinate, shape[axis] = coordinate.narrow(axis, 0, 1), 1
    return [coordinate.reshape(shape).expand(call.outputs[0].shape)]


def _turned(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of what moves values along axes that it names."""
    coordinate = call.coordinate(0, way)
    if coordinate is None or not call.argument("dims"):
        return _moved(call, way)
    return [call.func(narrowed(coordinate), *call.args[1:], **call.kwargs).expand(coordinate.shape)]


def _selected(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of some of the places along an axis."""
    coordinate = call.coordinate(0, way)
    return [None if coordinate is None else _taken(coordinate, call.args[1], call.args[2].cpu())]


def _halved(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of an axis of which one half is a gate of the other."""
    coordinate, axis = call.coordinate(0, way), call.argument("dim")
    return [None if coordinate is None else coordinate.narrow(axis, 0, call.outputs[0].shape[axis])]


def _padded(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of a margin of constants: it is where the values next to it are."""
    coordinate, margins = call.coordinate(0, way), call.args[1]
    if coordinate is None:
        return []
    for number, before in enumerate(margins[::2]):
        axis = coordinate.ndim - 1 - number
        places = torch.arange(call.outputs[0].shape[axis]) - before
        coordinate = _taken(coordinate, axis, places.clamp(0, coordinate.shape[axis] - 1))
    return [coordinate]


def _joined(call: _Call, way: int) -> Sequence[Coordinate]:
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
    if all(_is_flat(each, axis) for each in there) and all(_alike(first, other) for other in others):
        return [first.expand(output.shape)]
    return [torch.cat(there, axis).expand(output.shape)]


def _reduced(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of a mean, a sum or a maximum over some axes."""
    coordinate, axes = call.coordinate(0, way), call.argument("dim")
    if coordinate is None or axes is None:
        return []
    numbers = sorted({axis % coordinate.ndim for axis in (axes if isinstance(axes, list | tuple) else [axes])})
    for axis in reversed(numbers):
        coordinate = _mean(coordinate, axis)
        coordinate = coordinate if call.argument("keepdim") else coordinate.squeeze(axis)
    return [_somewhere(coordinate.expand(output.shape)) for output in call.outputs]


def _multiplied(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of a product of matrices, or of batches of them, to which a third may be added."""
    *_, left, right = _tensors(call.args)
    # Where both are somewhere, as queries and keys are, what counts is the left one.
    for factor, axis in ((left, -1), (right, -2)):
        coordinate = call.origin(factor)[way]
        summed = None if coordinate is None else _somewhere(_mean(coordinate, axis).expand(call.outputs[0].shape))
        if summed is not None:
            return [summed]
    return []


def _attended(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of attention in one call, or of a linear layer: where the queries are, or the layer's inputs."""
    coordinate = call.coordinate(0, way)
    return [None if coordinate is None else _somewhere(_mean(coordinate, -1).expand(call.outputs[0].shape))]


def _windowed(call: _Call, way: int) -> Sequence[Coordinate]:
    """Of convolutions, poolings and resizings: where the middle of each window is."""
    taken, output = call.args[0], call.outputs[0]
    coordinate = call.coordinate(0, way)
    sides = 2 if "2d" in call.func._schema.name else output.ndim - 2
    axis = way - 2
    if sides == 2 and coordinate is None and output.shape[axis] > 1:
        # Of a single row, or of what comes from nowhere, rows are where they are by what the operation means.
        if taken.shape[axis] > 1 and any(each is not None for each in call.origin(taken)):
            return []
        places = (torch.arange(output.shape[axis]) + 0.5) * call.pixels[way] / output.shape[axis] - 0.5
        return [(places.view(-1, 1) if way == 0 else places).expand(output.shape)]
    if coordinate is None:
        return []
    coordinate = _mean(coordinate, -sides - 1)
    for side in range(-sides, 0):
        places = _middles(call, sides, side, coordinate.shape[side], output.shape[side])
        if not torch.equal(places, torch.arange(coordinate.shape[side])):
            low, high = (_taken(coordinate, side, whole.long()) for whole in (places.floor(), places.ceil()))
            fraction = (places - places.floor()).view(-1, *(1,) * (-side - 1))
            coordinate = low + fraction * (high - low)
    return [_somewhere(coordinate.expand(output.shape))]


def _middles(call: _Call, sides: int, side: int, before: int, after: int) -> Tensor:
    """Return (after,) where the middles of windows along a side are, from 0 to before − 1."""
    stride, padding, dilation = (call.argument(name) for name in ("stride", "padding", "dilation"))
    kernel = call.args[1].shape[-sides:] if call.argument("weight") is not None else call.argument("kernel_size")
    if not kernel or padding is None or call.argument("transposed"):
        # Windows side by side, as many as there are values.
        return ((torch.arange(after) + 0.5) * before / after - 0.5).clamp(0, before - 1)
    long, step, margin, apart = (
        values[side % len(values)] for values in (kernel, stride or kernel, padding, dilation or [1])
    )
    return (torch.arange(after) * step - margin + (long - 1) * apart / 2).clamp(0, before - 1)


_RULES: dict[str, _Rule | None] = {
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "_reshape_copy"), _shaped),
    **dict.fromkeys(("as_strided", "view_as_complex", "view_as_real", "_conj", "real", "imag"), None),
    **dict.fromkeys(("roll", "flip"), _turned),
    "index_select": _selected,
    **dict.fromkeys(("repeat", "gather", "index", "take", "im2col"), _moved),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"), _moved),
    **dict.fromkeys([f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)], _moved),
    "constant_pad_nd": _padded,
    **dict.fromkeys(("cat", "stack"), _joined),
    "copy": _copied,
    "glu": _halved,
    **dict.fromkeys(
        ("_to_copy", "contiguous", "native_dropout", "cumsum", "rrelu_with_noise", "hardswish", "log_sigmoid_forward"),
        _kept,
    ),
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm", "renorm"), _kept),
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), _kept),
    **dict.fromkeys(("_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _kept),
    **dict.fromkeys(("_batch_norm_with_update", "batch_norm_elemt"), _kept),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax", "tril", "triu", "index_put", "_index_put_impl"), _kept),
    **dict.fromkeys(("_native_multi_head_attention", "_transformer_encoder_layer_fwd"), _kept),
    **dict.fromkeys(("rsub", "_prelu_kernel", "fill", "zero"), _met),
    **dict.fromkeys(("mean", "sum", "nansum", "amax", "amin", "max", "min", "prod", "logsumexp"), _reduced),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "median"), _reduced),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "_addmm_activation"), _multiplied),
    **dict.fromkeys(("linear", "mkldnn_linear", "mv"), _attended),
    **dict.fromkeys(("convolution", "cudnn_convolution", "mkldnn_convolution", "miopen_convolution"), _windowed),
    **dict.fromkeys([f"{kind}_pool{d}d" for kind in ("avg", "_adaptive_avg", "adaptive_max") for d in (1, 2, 3)], _windowed),
    **dict.fromkeys([f"max_pool{d}d_with_indices" for d in (2, 3)], _windowed),
    **dict.fromkeys(("mkldnn_max_pool2d", "mkldnn_adaptive_avg_pool2d", "fractional_max_pool2d"), _windowed),
    **dict.fromkeys([f"upsample_{kind}2d" for kind in ("nearest", "bilinear", "bicubic")], _windowed),
    **dict.fromkeys([f"_upsample_{kind}2d" for kind in ("nearest_exact", "bilinear", "bicubic")], _windowed),
    **dict.fromkeys([f"_upsample_{kind}2d_aa" for kind in ("bilinear", "bicubic")], _windowed),
    **dict.fromkeys(("grid_sampler_2d", "torchvision::deform_conv2d"), _windowed),
}


def narrowed(coordinate: Tensor) -> Tensor:
    """Keep one of those that are known to be the same, so that what is left broadcasts to what there was."""
    for axis in range(coordinate.ndim):
        coordinate = coordinate.narrow(axis, 0, 1) if _is_flat(coordinate, axis) else coordinate
    return coordinate


def _is_flat(coordinate: Tensor, axis: int) -> bool:
    return coordinate.stride(axis) == 0 or coordinate.shape[axis] == 1


def _taken(coordinate: Tensor, axis: int, places: Tensor) -> Tensor:
    """Take some places along an axis."""
    shape = list(coordinate.shape)
    shape[axis] = len(places)
    flat = _is_flat(coordinate, axis)
    return (narrowed(coordinate) if flat else narrowed(coordinate).index_select(axis, places)).expand(shape)


def _mean(coordinate: Tensor, axis: int) -> Tensor:
    """Take the mean along an axis, which is kept."""
    shape = list(coordinate.shape)
    shape[axis] = 1
    flat = _is_flat(coordinate, axis)
    return (narrowed(coordinate) if flat else narrowed(coordinate).nanmean(axis, keepdim=True)).expand(shape)


def _somewhere(coordinate: Tensor) -> Coordinate:
    """Return None for what is in the same place everywhere: a sum over all places is in none."""
    values = narrowed(coordinate)
    # Mostly the first and the last are apart already.
    apart = abs(float(values[(0,) * values.ndim]) - float(values[(-1,) * values.ndim])) > NEAR
    return coordinate if apart or _variance(values) > NEAR**2 else None


def _variance(coordinate: Tensor) -> float:
    values = narrowed(coordinate)
    values = values[~values.isnan()]
    return float(values.var(correction=0)) if len(values) else 0.0


def _alike(first: Tensor, second: Tensor) -> bool:
    first, second = narrowed(first), narrowed(second)
    if first.data_ptr() == second.data_ptr() and (first.shape, first.stride()) == (second.shape, second.stride()):
        return True
    if first.shape == second.shape and torch.equal(first, second):
        return True
    return torch.allclose(*torch.broadcast_tensors(first, second), 0, NEAR, equal_nan=True)


def _sharpest(coordinates: Sequence[Tensor]) -> Coordinate:
    """Of origins of the same values, choose that which tells the places best apart; take the mean of equally good ones.

    Beside the way around a block, what went through attention or a gate says less. Two that are as good and differ, as
    an image and its mirror image, leave nothing that is anywhere.
    """
    different: list[Tensor] = []
    for coordinate in coordinates:
        if not any(_alike(coordinate, other) for other in different):
            different.append(coordinate)
    if len(different) < 2:
        return different[0] if different else None
    variances = [_variance(coordinate) for coordinate in different]
    enough = _AS_SHARP * max(variances)
    sharp = [coordinate for coordinate, has in zip(different, variances, strict=True) if has >= enough]
    if len(sharp) == 1:
        return sharp[0]
    shape = sharp[0].shape
    return _somewhere(torch.stack(torch.broadcast_tensors(*map(narrowed, sharp))).nanmean(0).expand(shape))
