"""A classifier whose layers have other weights, drawn at random: what a saliency map that shows the model must show."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.layers import list_used_layers
from whyfooled.errors import MethodError, at_least
from whyfooled.tensors.randomness import named_seed

PARTS = 4
"""Into how many parts the layers below the head are divided unless told otherwise. [ours]"""

Order = Literal["cascading", "independent"]
"""Whether all parts down to one are randomised, or one alone (Adebayo et al. 2018, sec. 3.1)."""


@final
@dataclass(frozen=True)
class Part:
    """Some layers of a model, next to each other.

    Parameters
    ----------
    layers
        Their names, from the input's side; "" is the model itself, where it has weights of its own.
    """

    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called: its layer, or the first and the last."""
        first, last = (layer or "the model's own" for layer in (self.layers[0], self.layers[-1]))
        return first if len(self.layers) == 1 else f"{first} to {last}"


@final
@dataclass(frozen=True, eq=False)
class Randomised:
    """A classifier some of whose parts are randomised.

    Parameters
    ----------
    order
        Whether these are all down to one, or one alone.
    step
        The number of that part, the head's 1.
    part
        That part.
    classifier
        The classifier.
    """

    order: Order
    step: int
    part: Part
    classifier: Classifier


def list_parts(classifier: Classifier, count: int = PARTS) -> tuple[Part, ...]:
    """Divide the layers that have weights, and that the logits depend on, into parts, from the head down.

    Parameters
    ----------
    classifier
        The classifier. It takes one forward pass.
    count
        Into how many parts of nearly equally many layers those below the head are divided; where there are fewer
        layers, into as many as there are.

    Returns
    -------
    tuple of Part
        The last layer alone, and then the parts below it.

    Raises
    ------
    MethodError
        If the model has no weights that are floating-point numbers, or all of it is scripted.
    """
    at_least("parts", count, 1)
    *below, head = _list_weighted(classifier)
    parts = min(count, len(below))
    ends = [round(number * len(below) / parts) for number in range(parts + 1)] if parts else []
    divided = [Part(tuple(below[start:end])) for start, end in pairwise(ends)]
    return Part((head,)), *reversed(divided)


def _list_weighted(classifier: Classifier) -> list[str]:
    """List the layers with weights of their own in the order in which they finish; what is no layer, beside another.

    Weights of parts that no image goes through by itself, as those of a parametrisation, stand behind the layer that is
    registered before them, those of the model itself before all.
    """
    used = list_used_layers(classifier)
    # Where nothing can be traced back from the logits, they may depend on all.
    traced = any(used.values())
    places = {layer.name: place for place, layer in enumerate(used)}
    unused = {layer.name for layer, is_used in used.items() if traced and not is_used}
    weighted: list[tuple[int, str]] = []
    place = -1
    for name, part in classifier.module.named_modules():
        place = places.get(name, place)
        if name not in unused and _find_weights(part):
            weighted.append((place, name))
    if not weighted:
        raise MethodError("The model has no weights that are floating-point numbers, so none can be randomised.")
    return [name for _, name in sorted(weighted, key=lambda layer: layer[0])]


def randomise_in_turn(classifier: Classifier, parts: Sequence[Part], seed: int) -> Iterator[Randomised]:
    """Give the classifier with its parts randomised, from the head down: all down to each, then each alone.

    Each is a private copy; a part has the same random weights in all of them. The first part alone stands in both
    orders, and is given once.

    Parameters
    ----------
    classifier
        The classifier; nothing about it is changed.
    parts
        Its parts, of `list_parts`.
    seed
        Seed of the weights.
    """
    for step, part in enumerate(parts, start=1):
        layers = [layer for other in parts[:step] for layer in other.layers]
        yield Randomised("cascading", step, part, randomise(classifier, layers, seed))
    for step, part in enumerate(parts[1:], start=2):
        yield Randomised("independent", step, part, randomise(classifier, part.layers, seed))


def randomise(classifier: Classifier, layers: Sequence[str], seed: int) -> Classifier:
    """Make a classifier of a copy of the module, some of whose layers have random weights.

    A layer is initialised as it initialises itself (``reset_parameters``, which sets the statistics of a batch
    normalisation back too). Weights that this leaves as they were, or that have no such initialisation, are drawn from
    the normal distribution with their own mean and spread. Each layer draws from its own generator, made of the seed
    and its name, so its weights do not depend on which others are randomised.

    Parameters
    ----------
    classifier
        The classifier; nothing about it is changed.
    layers
        Names of modules, whose own weights are randomised, not those of the modules inside.
    seed
        Seed of the weights.

    Returns
    -------
    Classifier
        On the same device.

    Raises
    ------
    ModelError
        If the module cannot be copied.
    """
    made = classifier.copy("to randomise its weights")
    parts = dict(made.module.named_modules())
    drawn: set[int] = set()
    for name in layers:
        weights = {key: weight for key, weight in _find_weights(parts[name]).items() if id(weight) not in drawn}
        # Weights that several layers share are drawn once.
        drawn |= {id(weight) for weight in weights.values()}
        _draw(parts[name], weights, torch.Generator().manual_seed(named_seed(name, seed)))
    made.name = classifier.name
    return made


def _find_weights(part: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of a module's own."""
    return {name: weight for name, weight in part.named_parameters(recurse=False) if weight.is_floating_point()}


@torch.no_grad()
def _draw(part: nn.Module, weights: Mapping[str, nn.Parameter], generator: torch.Generator) -> None:
    fresh = _initialise(part, generator)
    for name, weight in weights.items():
        initial = fresh.get(name, weight)
        if torch.equal(initial.to(weight), weight):
            spread, mean = torch.std_mean(weight.detach().cpu().double(), correction=0)
            initial = mean + spread * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.copy_(initial)
    for name, buffer in part.named_buffers(recurse=False):
        if name in fresh:
            buffer.copy_(fresh[name])


def _initialise(part: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Return weights and statistics as a module initialises itself; none where it does not."""
    reset = getattr(type(part), "reset_parameters", None)
    if reset is None or isinstance(part, torch.jit.ScriptModule):
        return {}
    try:
        # A copy, because what is reset may be more than the module's own.
        made = copy.deepcopy(part).cpu()
        with _DrawingFrom(generator):
            reset(made)
    except Exception:  # someone else's initialisation may need what only its author has
        return {}
    return dict([*made.named_parameters(recurse=False), *made.named_buffers(recurse=False)])


_DRAWING = frozenset(
    [
        *(torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.random_, torch.Tensor.bernoulli_),
        *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli),
        # Those of its own initialisations that PyTorch hands over whole.
        *(nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.trunc_normal_),
        *(nn.init.xavier_uniform_, nn.init.xavier_normal_, nn.init.orthogonal_, nn.init.sparse_),
    ]
)
"""What draws random numbers, and takes a generator."""


class _DrawingFrom(TorchFunctionMode):
    """Draws from a generator what this thread would draw from PyTorch's own, which belongs to the whole process."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func in _DRAWING and named.get("generator") is None:
            named["generator"] = self.generator
        return func(*args, **named)
