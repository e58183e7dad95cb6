"""A classifier without some of its units: they give 0, and everything else is as it was (Xu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whyfooled.classifier import Classifier
from whyfooled.classifier.axes import Axes
from whyfooled.classifier.borrowing import copy_at_rest, one_thread
from whyfooled.classifier.checks import check_classifier
from whyfooled.classifier.layers import LAST_STAGE, Layer, choose_layers, watch_layers
from whyfooled.errors import ModelError, ParameterError, bad_parameter, first_line
from whyfooled.saliency.backward.graph import is_scripted

Mask = Bool[Tensor, " _"]
"""(u,) Which of a layer's units are masked."""

BUFFER = "whyfooled_mask"
"""The buffer of a masked layer that says which of its units are masked; so it moves with the layer, and is digested."""


@one_thread()
def mask_units(classifier: Classifier, units: Mapping[str, Sequence[int] | Tensor]) -> Classifier:
    """Make a classifier in which some units give 0, at every place and each time that their layer runs.

    A unit of tokens gives 0 for every token, a class token too.

    It has the same weights in memory, not a copy; what is done to them (training, say) is done to both, while moving
    one to a device, or gradients that are kept in ``.grad``, leave the other alone. Layers have the same names, so
    whatever works on the classifier works on it, masking more units too. Nothing about the classifier is changed. It
    takes two forward passes of one image.

    What is masked is the layer's output, and nothing after it: if a bias or a normalisation follows, as in a residual
    branch, the unit's channel is constant there and not 0. The gradient does not flow through masked units. How exactly
    Xu et al. mask neurons is not public.

    Parameters
    ----------
    classifier
        The classifier.
    units
        For each layer, by its name (or ``"last-stage"``, see `whyfooled.classifier.layers.choose_layers`), the
        numbers of its units, from 0; or (u,) whether each unit is masked, as truth values.

    Returns
    -------
    Classifier
        Its name says what is masked, its digest differs with the units.

    Raises
    ------
    ParameterError
        If there is no such layer, or it has no units with places; if a unit does not exist, none is named, or none is
        left.
    ModelError
        If the model cannot be copied, or its copy does not run layers of its own.
    """
    check_classifier(classifier, several_labels=True)
    if not isinstance(units, Mapping):
        fix = "Such as {'layer4': [3, 17]}."
        raise bad_parameter("units", "must say for each layer which units are masked", type(units).__name__, fix)
    if not units:
        raise ParameterError("`units` must name at least one layer, with some of its units.")
    _check_plain(classifier.module)
    known = {layer.name: layer for layer in choose_layers(classifier, list(units), "units")}
    before = dict(_find_masks(classifier.module))
    masks: dict[str, Mask] = {}
    for given, chosen in units.items():
        # The last stage is the last that finishes, so the last of those chosen.
        name = list(known)[-1] if given == LAST_STAGE and given not in known else given
        if name not in known:
            raise bad_parameter("units", "must name its layers one by one", repr(given))
        mask = _as_mask(chosen, known[name].units, name) | masks.get(name, torch.tensor(False))
        if bool((mask | before.get(name, mask).cpu()).all()):
            rule = f"must leave at least one of the {len(mask)} units of {name!r}"
            raise bad_parameter("units", rule, "all of them, those masked before included")
        masks[name] = mask
    chosen_masks = {known[name]: mask for name, mask in masks.items()}
    masked = without(classifier, chosen_masks)
    _check_masked(masked, chosen_masks)
    return masked


def without(classifier: Classifier, masks: Mapping[Layer, Mask]) -> Classifier:
    """Make the classifier of `mask_units` from masks that are known to fit, without a pass."""
    module = _copy_sharing_memory(classifier.module)
    for layer, mask in masks.items():
        _mask_layer(module.get_submodule(layer.name), mask.to(classifier.device), layer.known_axes)
    base = classifier.name.removesuffix(_describe_masks(classifier.module))
    return classifier.with_module(module, name=base + _describe_masks(module)).to(classifier.device)


def _as_mask(units: Sequence[int] | Tensor, count: int, layer: str) -> Mask:
    """Return (u,) which units are meant, on the CPU."""
    try:
        chosen = torch.as_tensor(units).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise bad_parameter("units", f"must be whole numbers, for {layer!r} too", _shorten(units)) from None
    if chosen.ndim != 1 or not len(chosen):
        raise bad_parameter("units", f"must list at least one unit of {layer!r}", _shorten(units))
    if chosen.dtype == torch.bool:
        if len(chosen) != count or not chosen.any():
            rule = f"of truth values must have one for each of the {count} units of {layer!r}, and not all false"
            raise bad_parameter("units", rule, _shorten(units))
        return chosen
    if chosen.is_floating_point() or chosen.is_complex():
        raise bad_parameter("units", f"must be whole numbers, for {layer!r} too", _shorten(units))
    if int(chosen.min()) < 0 or int(chosen.max()) >= count:
        rule = f"must be from 0 to {count - 1} for {layer!r}"
        raise bad_parameter("units", rule, int(chosen.min()) if int(chosen.min()) < 0 else int(chosen.max()))
    return mark_units(count, chosen.long())


def mark_units(count: int, units: Tensor) -> Mask:
    """Return (count,) which of a layer's units are meant by their numbers, on the CPU."""
    return torch.zeros(count, dtype=torch.bool).index_fill(0, units, True)


def _shorten(units: Sequence[int] | Tensor) -> str:
    text = str(units.tolist() if isinstance(units, Tensor) else units)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_plain(module: nn.Module) -> None:
    """Raise `ModelError` for a model whose layers run where a mask would not be seen."""
    if is_scripted(module):
        raise ModelError(
            "A part of this model is scripted or traced, where units cannot be masked. Give the plain Python module."
        )
    if any(hasattr(part, "_orig_mod") for part in module.modules()):
        raise ModelError("The model is compiled, where units cannot be masked. Mask them first, and compile then.")


def _copy_sharing_memory(module: nn.Module) -> nn.Module:
    """Copy a module and its parts, hooks and modes included, but no tensor: all of them share the originals' memory."""
    try:
        return copy_at_rest(module, _make_sharing_tensors(module))
    except Exception as error:  # whatever a part of someone else's model stumbles over
        raise ModelError(f"The model cannot be copied, so its units cannot be masked: {first_line(error)}.") from error


def _make_sharing_tensors(module: nn.Module) -> dict[int, Any]:
    """Return for each tensor of a module, by its id, another one in the same memory."""
    # Not the tensor itself: it would be moved, or given a gradient, for both.
    sharing: dict[int, Any] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            sharing[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        # Not all tensors are registered: weights that are computed from others (an older weight norm) cannot be copied.
        plain = (value for value in vars(part).values() if isinstance(value, Tensor))
        for tensor in (*part.buffers(recurse=False), *plain):
            sharing.setdefault(id(tensor), tensor.detach())
    return sharing


def _mask_layer(part: nn.Module, mask: Mask, axes: Axes) -> None:
    """Mask units of a layer that is ours to change, those that are masked already included."""
    if _is_masked(part):
        part.register_buffer(BUFFER, part.get_buffer(BUFFER) | mask)
        return
    part.register_buffer(BUFFER, mask)
    _Zeroing(part, axes)


@final
class _Zeroing:
    """The hook that sets the masked units of its layer to 0; it can be copied and pickled with it."""

    def __init__(self, part: nn.Module, axes: Axes) -> None:
        self.axes = axes
        # Kept because reading it back reserves its number: else a hook of another process would take this one's place.
        self.handle: RemovableHandle = part.register_forward_hook(self)

    def __call__(self, part: nn.Module, given: tuple[Any, ...], output: Any) -> Tensor:
        mask = part.get_buffer(BUFFER)
        axes = self.axes
        dimensions = 3 if axes.tokens else 4
        if not isinstance(output, Tensor) or output.ndim != dimensions or output.shape[axes.channels] != len(mask):
            produced = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            wanted = f"(n, tokens, {len(mask)})" if axes.tokens else f"(n, {len(mask)}, height, width)"
            raise ModelError(
                f"A layer whose units are masked must give {wanted} each time that it runs; got {produced}."
            )
        # Not `masked_fill`, which does not keep the memory format; and not a product, which would keep NaN.
        of_channels = mask.view([-1 if axis == axes.channels else 1 for axis in range(output.ndim)])
        return torch.where(of_channels, output.new_zeros(()), output)


def _is_masked(part: nn.Module) -> bool:
    return any(name == BUFFER for name, _ in part.named_buffers(recurse=False))


def _find_masks(module: nn.Module) -> Iterator[tuple[str, Mask]]:
    """Yield the masked layers of a module, with their masks."""
    for name, part in module.named_modules():
        if _is_masked(part):
            yield name, part.get_buffer(BUFFER)


def _describe_masks(module: nn.Module) -> str:
    """Say what is masked in a module; nothing if nothing is."""
    counts = {name: (int(mask.sum()), len(mask)) for name, mask in _find_masks(module)}
    if not counts:
        return ""
    masked, among = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    where = next(iter(counts)) if len(counts) == 1 else f"{len(counts)} layers"
    return f" without {masked} of {among} units of {where}"


def _check_masked(masked: Classifier, masks: Mapping[Layer, Mask]) -> None:
    """Raise `ModelError` unless the masked layers run in a forward pass, and give 0 there."""
    layers = {layer.name: layer for layer in masks}
    zero: dict[str, bool] = {}

    def see(name: str, part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        layer = layers[name]
        zero[name] = not layer.to_maps(output)[:, masks[layer].to(output.device)].any()

    with watch_layers({name: masked.module.get_submodule(name) for name in layers}, see):
        masked.logits(masked.mean.new_zeros(1, masked.channels, *masked.size))
    missing = [name for name in layers if not zero.get(name, False)]
    if missing:
        raise ModelError(
            f"A copy of the model must run its own layer {missing[0]!r}, and does not: something in the model, such as "
            "a function that was stored in it, holds on to the original layer. So its units cannot be masked."
        )
