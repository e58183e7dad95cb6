"""A private copy of a model for many passes on a CPU: the same function, in fewer and quicker operations.

Two things are done to it. A batch norm in evaluation mode is a scale and a shift of each channel, which the convolution
before it can do as well. And PyTorch, with one thread and few images, computes convolutions of 1 × 1 in a way that is
slower than oneDNN's. Either changes last digits, so the copy is for what is evaluated many times over (the search of an
attack, what a region does, what comes back when pixels are removed), never for maps, whose kinks could fall otherwise,
nor for what a report says of the model's own logits, or whether an attack succeeded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from whyfooled.classifier.borrowing import copy_at_rest, find_sharing, has_hooks
from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.dependence import operation, walk
from whyfooled.classifier.workers import are_large, mark_state
from whyfooled.errors import first_line
from whyfooled.types import Images

ROUNDING, ROUNDING_IN_DOUBLE = 8, 1e-9
"""How many times as far as the model's own logits the copy's may lie from those of double precision; and how far these
may lie apart, as a share of their spread. [ours]"""

_SMALLER = 4
"""How many times as small, each way, noise is in double precision where the model takes images of that size. [ours]"""

MOST_VALUES = 2**26
"""Of a model's state: twice as many bytes in double precision would be most of what an explanation takes. [ours]"""

Pair = tuple[str, str]
"""The names of a convolution, and of the batch norm that reads what it gives."""


@final
@dataclass(frozen=True, eq=False)
class Quickened:
    """What computes the same as a classifier's module, more quickly.

    Parameters
    ----------
    module
        The copy; None where there is none, so that the classifier's own has to do.
    said
        What was done, or why nothing was, in a sentence.
    forwards
        How many forward passes of one image it took to make sure of it.
    copyable
        Whether a copy of the model stands in for it at all.
    """

    module: nn.Module | None
    said: str
    forwards: int = 0
    copyable: bool = True


def quicken(classifier: Classifier, images: Images) -> Quickened:
    """Make a copy of a classifier's module that computes the same more quickly, if that can be.

    That it does is made sure of on noise: in double precision both must agree but for rounding, and the copy's logits
    in single precision must be about as near to these as the model's are. Inside the blocks of `one_thread` that is
    done once, for as long as the model stays as it is.

    Parameters
    ----------
    classifier
        The classifier. Nothing about it changes.
    images
        (n,c,h,w) Images of the size that it is to be used for; what they show makes no difference.
    """
    hindrance = _find_hindrance(classifier, images)
    if hindrance:
        return Quickened(None, f"On the model as it is: {hindrance}.", copyable=False)
    shape = tuple(images.shape[1:])
    state = shape, [mark_state(tensor) for tensor in classifier.state_dict(keep_vars=True).values()]
    copies = find_sharing().copies
    made_of: Any
    quick: Quickened | None
    made_of, quick = copies.get(classifier, (None, None))
    if quick is None or made_of != state:
        quick = _make(classifier, torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(images.dtype))
        copies[classifier] = state, quick
    return quick


@torch.enable_grad()
def _make(classifier: Classifier, noise: Images) -> Quickened:
    if sum(value.numel() for value in classifier.state_dict().values()) > MOST_VALUES:
        return Quickened(None, "On the model as it is: it is too large to be made sure of in double precision.")
    try:
        # Not counted as a pass of whoever happens to be the first to need the copy.
        logits = classifier.forward(noise.clone().requires_grad_())
        pairs = _find_pairs(classifier.module, logits)
        if not pairs and not _list_pointwise(classifier.module):
            return Quickened(None, "On the model as it is: nothing in it could be computed more quickly.", 1)
        quick = classifier.with_module(copy_sharing(classifier.module))
        _fold(quick.module, pairs)
        pointwise = _hand_to_onednn(quick.module)
        with torch.no_grad():
            difference = float((quick(noise) - logits.detach()).abs().max())
        same, forwards = _is_same(classifier, quick, pairs, noise, difference / _spread(logits.detach()))
    except Exception as error:  # whatever a part of someone else's model stumbles over in a copy
        return Quickened(None, f"On the model as it is: a copy of it fails ({first_line(error)}).", 4, copyable=False)
    if not same:
        return Quickened(None, "On the model as it is: a copy with batch norms folded gave other logits.", forwards)
    done = [f"{_count(len(pairs), 'batch norm')} folded into convolutions"] if pairs else []
    done += [f"{_count(pointwise, 'convolution')} of 1 × 1 by oneDNN"] if pointwise else []
    said = (
        f"On a quicker copy of the model, the same function but for rounding ({', '.join(done)}): on an image of noise "
        f"its logits differ by {difference:.1g} at most."
    )
    return Quickened(quick.module, said, forwards)


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _find_hindrance(classifier: Classifier, images: Images) -> str:
    """Say why no copy should be made; "" if nothing speaks against it."""
    if not are_large(images.shape[-2:]):
        return "images this small go through it many at a time"
    if classifier.device.type != "cpu":
        return "it is not on a CPU"
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in classifier.state_dict().values()):
        return "it is not in single precision"
    if has_hooks(classifier.module):
        return "parts of it have hooks"
    return ""


def _is_same(
    classifier: Classifier, quick: Classifier, pairs: Sequence[Pair], noise: Images, difference: float
) -> tuple[bool, int]:
    """Tell whether the copy computes what the model does but for rounding, and after how many passes that is known.

    A pass in double precision takes as long as twenty, so these are made on a quarter of the height and the width,
    where the model takes images as small as that. What rounding does there it may do to the whole noise, whose logits
    differ by the `difference`, a share of their spread; if it does more, that is judged in double precision too.
    """
    height, width = (side // _SMALLER for side in noise.shape[-2:])
    allowed, passes = -1.0, 2
    # A model for one size of images stumbles over another in its own way.
    with suppress(Exception):
        allowed = _find_rounding(classifier, quick, pairs, noise[..., :height, :width].contiguous())
        passes += 4
    if difference <= allowed:
        return True, passes
    return _find_rounding(classifier, quick, pairs, noise) >= 0, passes + 4


@torch.no_grad()
def _find_rounding(classifier: Classifier, quick: Classifier, pairs: Sequence[Pair], noise: Images) -> float:
    """Return how far rounding may move logits, as a share of their spread; -1 where more than rounding is different."""
    exact, folded = (_compute_in_double(classifier, noise, own) for own in ([], pairs))
    # Not counted as passes of whoever happens to be the first to need the copy.
    own_error, error = (float((each.forward(noise).double() - exact).abs().max()) for each in (classifier, quick))
    spread = _spread(exact)
    allowed = ROUNDING * max(own_error / spread, torch.finfo(torch.float32).eps)
    same = float((folded - exact).abs().max()) <= ROUNDING_IN_DOUBLE * spread and error <= allowed * spread
    return allowed if same else -1.0


def _spread(logits: Tensor) -> float:
    """Return how far apart logits lie; never 0, as what is divided by it is none either then."""
    return float(logits.max() - logits.min()) or 1.0


def _find_pairs(module: nn.Module, logits: Tensor) -> list[Pair]:
    """Name the convolutions, each with the batch norm that reads what it gives and that nothing else does.

    By the graph behind the logits of a pass, and not by names or by order: what runs twice, shares its weight, or has
    another weight than its own (such as a normalised one) is none.
    """
    nodes = list(walk(logits))
    readers = Counter(before for node in nodes for before, _ in node.next_functions if before is not None)
    convolutions = _name_by_tensor(module, nn.Conv2d, "weight")
    norms = _name_by_tensor(module, nn.BatchNorm2d, "running_mean")
    made_by = {node: convolutions.get(_place_of(node, "_saved_weight")) for node in nodes if _is_convolution(node)}
    read_by = {node: norms.get(_place_of(node, "_saved_running_mean")) for node in nodes if _is_fixed_norm(node)}
    runs = Counter([*made_by.values(), *read_by.values()])
    pairs = []
    for node, norm in read_by.items():
        before = node.next_functions[0][0]
        convolution = made_by.get(before)
        once = readers[before] == runs[convolution] == runs[norm] == 1
        if norm and convolution and once and _find_rest(module.get_submodule(norm)) is not None:
            pairs.append((convolution, norm))
    return pairs


def _is_convolution(node: Any) -> bool:
    return "Convolution" in operation(node.name()) and not getattr(node, "_saved_transposed", True)


def _is_fixed_norm(node: Any) -> bool:
    return "BatchNorm" in operation(node.name()) and not getattr(node, "_saved_training", True)


def _place_of(node: Any, saved: str) -> int:
    tensor = getattr(node, saved, None)
    return 0 if tensor is None else int(tensor.data_ptr())


def _name_by_tensor(module: nn.Module, kind: type[nn.Module], tensor: str) -> dict[int, str]:
    """Name the parts of a kind by where their tensor lies; not those that share it."""
    named = [(name, part) for name, part in module.named_modules(remove_duplicate=False) if isinstance(part, kind)]
    tensors = [(name, getattr(part, tensor, None)) for name, part in named]
    places = {name: own.data_ptr() for name, own in tensors if own is not None}
    counts = Counter(places.values())
    return {place: name for name, place in places.items() if counts[place] == 1}


def _find_rest(norm: nn.Module) -> nn.Module | None:
    """Return what is left of a batch norm once it is folded; None for a kind that is not known."""
    kind = type(norm)
    if kind is nn.BatchNorm2d:
        return nn.Identity()
    if (kind.__module__, kind.__name__) == ("timm.layers.norm_act", "BatchNormAct2d"):
        return nn.Sequential(cast(nn.Module, norm.drop), cast(nn.Module, norm.act))
    return None


def copy_sharing(module: nn.Module) -> nn.Module:
    """Copy a module's parts, and share its tensors."""
    return copy_at_rest(module, {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]})


@torch.no_grad()
def _compute_in_double(classifier: Classifier, images: Images, pairs: Sequence[Pair]) -> Tensor:
    """Compute the logits in double precision, with some batch norms folded."""
    double = classifier.with_module(copy_at_rest(classifier.module).double())
    _fold(double.module, pairs)
    logits: Tensor = double(images.double())
    return logits


@torch.no_grad()
def _fold(module: nn.Module, pairs: Sequence[Pair]) -> None:
    for place, norm_place in pairs:
        convolution = cast(nn.Conv2d, module.get_submodule(place))
        norm = cast(nn.BatchNorm2d, module.get_submodule(norm_place))
        mean, variance = (cast(Tensor, kept).double() for kept in (norm.running_mean, norm.running_var))
        # A norm without parameters of its own has neither.
        gain = 1.0 if norm.weight is None else norm.weight.double()
        offset = 0.0 if norm.bias is None else norm.bias.double()
        bias = 0.0 if convolution.bias is None else convolution.bias.double()
        scale = gain * (variance + norm.eps).rsqrt()
        for name, value in {
            "weight": convolution.weight.double() * scale.view(-1, 1, 1, 1),
            "bias": (bias - mean) * scale + offset,
        }.items():
            setattr(convolution, name, nn.Parameter(value.to(convolution.weight), requires_grad=False))
        module.set_submodule(norm_place, cast(nn.Module, _find_rest(norm)))


def _hand_to_onednn(module: nn.Module) -> int:
    """Let oneDNN compute the convolutions of 1 × 1; return how many there are."""
    pointwise = _list_pointwise(module)
    for part in pointwise:
        part.__class__ = _Pointwise
        cast(_Pointwise, part).weight_back = part.weight.detach().transpose(0, 1).contiguous()
    return len(pointwise)


def _list_pointwise(module: nn.Module) -> list[nn.Conv2d]:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    return [part for part in module.modules() if isinstance(part, nn.Conv2d) and _is_pointwise(part)]


def _is_pointwise(part: nn.Conv2d) -> bool:
    plain = part.padding in ((0, 0), "valid") and part.groups == 1 and part.stride == (1, 1)
    return plain and part.kernel_size == (1, 1) and type(part) is nn.Conv2d and type(part.weight) is nn.Parameter


class _Pointwise(nn.Conv2d):
    """A convolution of 1 × 1, by oneDNN; on the way back too, with a weight that was transposed once and for all."""

    weight_back: Tensor

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4:
            return super().forward(input)
        made: Tensor = _Convolution.apply(input, self.weight, self.bias, self.weight_back)
        return made


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, weight_back: Tensor) -> Tensor:
        ctx.weight_back = weight_back
        return _convolve(images, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        return _convolve(slope, ctx.weight_back, None), None, None, None


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.aten.mkldnn_convolution(images, weight, bias, [0, 0], [1, 1], [1, 1], 1)
    return made
