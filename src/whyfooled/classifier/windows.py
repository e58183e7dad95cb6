"""Many images that differ from one in a small window each: early layers are computed in the windows alone.

What a layer gives depends on the pixels near by, so that only a window of it changes with a window of the image; the
rest is what it gave for the image itself, computed once. How far each layer sees is found by running it (a row of NaN
shows in all rows that depend on it), for whatever it is made of; and that all of it computes the same is made sure of
on noise. [ours]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from whyfooled.classifier.borrowing import find_sharing
from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.folding import Quickened, copy_sharing
from whyfooled.classifier.segments import cut_into_segments
from whyfooled.classifier.tracing import without_inference_mode
from whyfooled.errors import first_line
from whyfooled.types import Images

MOST_OF_A_MAP = 0.5
"""Share of a layer's input above which all of it is computed: cutting out and putting back takes time too. [ours]"""

ROUNDING = 1e-5
"""How far logits may lie from those of whole images, as a share of their spread. [ours]"""

_BESIDE, _STEPS = 24, 8
"""How far a layer sees is tried on an input of so many pixels and so many steps; where that is not enough, it is
computed whole. [ours]"""

_TRIED = 16
"""Side of the windows in which it is tried whether logits are the same. [ours]"""


@final
@dataclass(frozen=True)
class Reach:
    """How far a layer sees along an axis: output q depends on inputs from ``step·q - before`` to ``step·q + after``."""

    step: int = 1
    before: int = 0
    after: int = 0

    def find_outputs(self, start: int, size: int, count: int) -> tuple[int, int]:
        """Return which outputs, of so many, depend on some inputs: the first one, and the one after the last."""
        first = -((self.after - start) // self.step)
        return max(first, 0), min((start + size - 1 + self.before) // self.step + 1, count)

    def find_inputs(self, start: int, size: int, count: int) -> tuple[int, int]:
        """Return which inputs, of so many, some outputs depend on; the first is a multiple of the step."""
        first = max(self.step * start - self.before, 0)
        return first // self.step * self.step, min(self.step * (start + size - 1) + self.after + 1, count)


_ITS_PLACE = Reach()


@final
@dataclass(frozen=True, eq=False)
class Layer:
    """A part of a module, and how far it sees down and across; None where that is everywhere, or not known."""

    part: nn.Module
    reach: tuple[Reach, Reach] | None


@final
@dataclass(frozen=True, eq=False)
class Windows:
    """What computes a module for many images that differ from one in a window each.

    Parameters
    ----------
    layers
        The module's parts, one after the other; none where it has to be computed whole.
    said
        What is done, or why it is not, in a sentence.
    """

    layers: tuple[Layer, ...]
    said: str

    def around(self, image: Tensor) -> Windowed:
        """Make what computes the module for images that differ in windows from one (1,c,h,w), as it takes it."""
        return Windowed(self.layers, image)


def find_windows(classifier: Classifier, quick: Quickened, images: Images) -> Windows:
    """Find which layers of a classifier see so little that they can be computed in windows.

    Inside the blocks of `one_thread` that is done once for a model.

    Parameters
    ----------
    classifier
        The classifier. Nothing about it changes.
    quick
        What `quicken` made of it.
    images
        (n,c,h,w) Images of the size that it is to be used for; what they show makes no difference.
    """
    if not quick.copyable:
        return Windows((), "")
    shape = tuple(images.shape[1:])
    copies = find_sharing().copies
    kept: tuple[tuple[int, ...], Windows] | None = copies.get(quick)
    if kept is None or kept[0] != shape:
        module = copy_sharing(classifier.module) if quick.module is None else quick.module
        kept = copies[quick] = shape, _find(module, torch.Size(shape))
    return kept[1]


@without_inference_mode()
@torch.no_grad()
def _find(module: nn.Module, shape: torch.Size) -> Windows:
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        layers = _find_layers(cut_into_segments(module), noise[:1])
        seen = sum(layer.reach is not None for layer in layers)
        if not seen:
            return Windows((), "Each image as a whole: the first layer of the model sees all of it.")
        changed = _change_windows(*noise)
        whole, windowed = module(changed), Windowed(layers, noise[:1])(changed)
        error = float((whole - windowed).abs().max())
        if not error <= ROUNDING * float(whole.max() - whole.min()):
            return Windows((), "Each image as a whole: in windows, the model gave other logits.")
    except Exception as error:  # whatever a part of someone else's model stumbles over
        return Windows((), f"Each image as a whole: the model cannot be cut into layers ({first_line(error)}).")
    return Windows(layers, f"The first layers, {seen} of {len(layers)} steps, around each region alone.")


def _find_layers(parts: Sequence[nn.Module], noise: Tensor) -> tuple[Layer, ...]:
    """Put parts together that see nothing but their own place, and all that come after one that sees too much."""
    layers: list[Layer] = []
    for number, part in enumerate(parts):
        reach = _find_reach(part, noise)
        if reach is None:
            return (*layers, Layer(nn.Sequential(*parts[number:]), None))
        if layers and reach == (_ITS_PLACE, _ITS_PLACE):
            layers[-1] = Layer(nn.Sequential(layers[-1].part, part), layers[-1].reach)
        else:
            layers.append(Layer(part, reach))
        noise = part(noise.clone())
    return tuple(layers)


def _find_reach(part: nn.Module, given: Tensor) -> tuple[Reach, Reach] | None:
    """Find how far a part sees, by what becomes NaN where some rows or columns are; None if that is too far to tell."""
    try:
        sizes, made = given.shape[-2:], _run_blindly(part, given.clone()).shape
        if len(made) != 4 or any(after > before for before, after in zip(sizes, made[-2:], strict=True)):
            return None
        steps = [round(before / after) for before, after in zip(sizes, made[-2:], strict=True)]
        # Of a size that leaves the same rest as the whole, since padding may depend on that.
        sides = [
            min(size, (_BESIDE // step + _STEPS) * step + size % step) for size, step in zip(sizes, steps, strict=True)
        ]
        tried = given[:, :, : sides[0], : sides[1]]
        down, across = (_find_reach_along(axis, step, part, tried) for axis, step in zip((2, 3), steps, strict=True))
    except RuntimeError:
        # It takes no other size, as where a number belongs to each place, or looks at values.
        return None
    return None if down is None or across is None else (down, across)


def _run_blindly(part: nn.Module, given: Tensor) -> Tensor:
    """Run a part; raise `RuntimeError` if its code looks at values, by which it may decide otherwise for a window."""
    with _Blind():  # type: ignore[no-untyped-call]
        made: Tensor = part(given)
    return made


class _Blind(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LOOKS:
            raise RuntimeError("It looks at values.")
        return func(*args, **(kwargs or {}))


_LOOKS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default, torch.ops.aten.is_nonzero.default}


def _find_reach_along(axis: int, step: int, part: nn.Module, given: Tensor) -> Reach | None:
    begin = given.shape[axis] // 2 // step * step
    places = range(begin, min(begin + 2 * step, given.shape[axis]))
    tried = given.repeat(len(places), 1, 1, 1)
    for number, place in enumerate(places):
        tried[number].select(axis - 1, place).fill_(torch.nan)
    shown = _run_blindly(part, tried).isnan().any(1).any(2 if axis == 2 else 1)
    seen = [(place, own.nonzero()[:, 0].tolist()) for place, own in zip(places, shown, strict=True) if own.any()]
    if not seen or any(own[0] == 0 or own[-1] == shown.shape[1] - 1 for _, own in seen):
        return None
    reach = Reach(
        step,
        before=max(step * own[-1] - place for place, own in seen),
        after=max(place - step * own[0] for place, own in seen),
    )
    expected = [reach.find_outputs(place, 1, shown.shape[1]) for place, _ in seen]
    # In the second period as in the first, or it is no step.
    is_step = all(first <= own[0] and own[-1] < end for (first, end), (_, own) in zip(expected, seen, strict=True))
    return reach if is_step else None


def _change_windows(image: Tensor, other: Tensor) -> Tensor:
    """Make images (3,c,h,w) that are another one in a window: at two corners, and in the middle."""
    height, width = image.shape[-2:]
    ends = (max(height - _TRIED, 0), max(width - _TRIED, 0))
    places = [(0, 0), ends, (ends[0] // 2, ends[1] // 2)]
    changed = image.repeat(len(places), 1, 1, 1)
    for edited, (top, left) in zip(changed, places, strict=True):
        window = (slice(None), slice(top, top + _TRIED), slice(left, left + _TRIED))
        edited[window] = other[window]
    return changed


@final
@dataclass(frozen=True, eq=False)
class _Patches:
    """What is different in each of n maps from a common one: (n,c,a,b) values, each from its row and column on."""

    values: Tensor
    tops: list[int]
    lefts: list[int]


@final
class Windowed(nn.Module):
    """Computes what a module does, for images that differ from one in a window each.

    Parameters
    ----------
    layers
        The module's parts, one after the other.
    image
        (1,c,h,w) The image that others differ from, as the module takes it.
    """

    def __init__(self, layers: Sequence[Layer], image: Tensor) -> None:
        super().__init__()
        self.steps = layers
        self.common = [image]
        with torch.no_grad():
            for layer in layers:
                if layer.reach is not None:
                    # A copy, because a layer may write into what it is given.
                    self.common.append(layer.part(self.common[-1].clone()))

    def forward(self, images: Tensor) -> Tensor:
        """Compute what the module gives for images (n,c,h,w)."""
        patches = _find_patches(images, self.common[0])
        done = 0
        for layer, before, after in zip(self.steps, self.common, self.common[1:], strict=False):
            further = _go_through(layer, patches, before, after)
            if further is None:
                break
            patches, done = further, done + 1
        maps = _paste(self.common[done].repeat(len(images), 1, 1, 1), patches, [0] * len(images), [0] * len(images))
        for layer in self.steps[done:]:
            maps = layer.part(maps)
        return maps


def _find_patches(images: Tensor, common: Tensor) -> _Patches:
    """Cut out of images (n,c,h,w) what is different from a common one (1,c,h,w), in windows of one size."""
    differs = (images != common).any(1)
    spans = [[_find_span(row) for row in differs.any(axis)] for axis in (2, 1)]
    (height, width), sides = ([max(end - start for start, end in some) for some in spans], images.shape[-2:])
    tops, lefts = (
        [min(start, side - size) for start, _ in some]
        for some, size, side in zip(spans, (height, width), sides, strict=True)
    )
    return _Patches(_cut(images, tops, lefts, height, width), tops, lefts)


def _find_span(flags: Tensor) -> tuple[int, int]:
    """Return the first place that is set, and the one after the last; one place, if none is."""
    places = flags.nonzero()[:, 0]
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 1)


def _go_through(layer: Layer, patches: _Patches, before: Tensor, after: Tensor) -> _Patches | None:
    """Compute what is different in a layer's outputs from what is different in its inputs; None if that is too much."""
    if layer.reach is None:
        return None
    down, across = (
        _plan(*each)
        for each in zip(
            layer.reach,
            (patches.tops, patches.lefts),
            patches.values.shape[-2:],
            before.shape[-2:],
            after.shape[-2:],
            strict=True,
        )
    )
    if down.input_size * across.input_size > MOST_OF_A_MAP * before[0, 0].numel():
        return None
    count = len(patches.tops)
    given = _cut(before.expand(count, -1, -1, -1), down.inputs, across.inputs, down.input_size, across.input_size)
    made = layer.part(_paste(given, patches, down.inputs, across.inputs))
    values = _cut(made, down.kept, across.kept, down.output_size, across.output_size)
    return _Patches(values, down.outputs, across.outputs)


@final
@dataclass(frozen=True)
class _Plan:
    """Where windows of inputs begin along an axis, and their size; and the same of what is kept of their outputs."""

    inputs: list[int]
    input_size: int
    kept: list[int]
    outputs: list[int]
    output_size: int


def _plan(reach: Reach, starts: Sequence[int], size: int, inputs: int, outputs: int) -> _Plan:
    """Plan windows of one size, each of which has all that outputs depend on that are different."""
    spans = [reach.find_outputs(start, size, outputs) for start in starts]
    output_size = max(1, *(end - first for first, end in spans))
    firsts = [min(first, outputs - output_size) for first, _ in spans]
    needed = [reach.find_inputs(first, output_size, inputs) for first in firsts]
    input_size = max(end - begin for begin, end in needed)
    # The same rest as the whole leaves, so that its last step is at the same place.
    input_size = min(input_size + (inputs - input_size) % reach.step, inputs)
    begins = [min(begin, inputs - input_size) for begin, _ in needed]
    kept = [first - begin // reach.step for first, begin in zip(firsts, begins, strict=True)]
    return _Plan(begins, input_size, kept, firsts, output_size)


def _cut(maps: Tensor, tops: Sequence[int], lefts: Sequence[int], height: int, width: int) -> Tensor:
    """Cut a window (n,c,height,width) out of each of maps (n,c,h,w); a copy."""
    places = zip(maps, tops, lefts, strict=True)
    return torch.stack([own[:, top : top + height, left : left + width] for own, top, left in places])


def _paste(maps: Tensor, patches: _Patches, tops: Sequence[int], lefts: Sequence[int]) -> Tensor:
    """Write patches into maps (n,c,h,w), each of which begins at some row and column, as far as they overlap."""
    height, width = maps.shape[-2:]
    for number, values in enumerate(patches.values):
        rows, own_rows = _overlap(patches.tops[number] - tops[number], values.shape[1], height)
        columns, own_columns = _overlap(patches.lefts[number] - lefts[number], values.shape[2], width)
        maps[number, :, rows, columns] = values[:, own_rows, own_columns]
    return maps


def _overlap(start: int, size: int, count: int) -> tuple[slice, slice]:
    """Return which places, of so many, something has that begins at one of them, or outside; and which of its own."""
    begin, end = max(start, 0), min(start + size, count)
    end = max(begin, end)
    return slice(begin, end), slice(begin - start, end - start)
