"""Whether one image's maps hardly change where they should not, and depend on the model's weights, beside chance.

Noise, another seed, or a universal perturbation should leave a map nearly as it is; random weights should leave nothing
of it (Adebayo et al. 2018, arXiv 1810.03292).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.classifier.randomised import PARTS, list_parts, randomise
from whyfooled.classifier.workers import share_out
from whyfooled.errors import MethodError
from whyfooled.registry import describe, title, with_next_seed
from whyfooled.saliency._spatial import choose_alike
from whyfooled.saliency.pairs import pair_maps
from whyfooled.saliency.recovery import shifted_maps
from whyfooled.tensors.measures import mean_ranks, rank_correlation
from whyfooled.tensors.randomness import add_noise
from whyfooled.types import Images, Maps, Progress, silent

SHIFTS = 19
"""To how many other places a map is shifted, to see how like itself it is by chance. [ours]"""
DRAWS = 3
"""How many times noise is drawn. [ours]"""

MAPS_CHECKED = 2 + DRAWS + PARTS + 1
"""How many maps of a method that has no seed are computed, on models of the usual depth."""

Kind = Literal["noise", "method seed", "attack seed", "universal", "cascading", "independent"]
"""What is changed: the image, by noise or by a universal perturbation; the method's seed, or the attack's; all weights,
or those of one part of the model."""


@final
@dataclass(frozen=True)
class Likeness:
    """How alike two maps are, by rank correlation.

    Parameters
    ----------
    value
        The rank correlation of the two; of noise, the mean over its draws; NaN where a map is empty.
    chance, highest
        That of the first map and itself, shifted to other places: the mean, and the highest.
    """

    value: float
    chance: float
    highest: float


@final
@dataclass(frozen=True, eq=False)
class MapCheck:
    """What changes one method's maps of an image, and what does not.

    Parameters
    ----------
    method
        The method, as on the command line.
    title
        The method's name in a report.
    likeness
        How like the map is to itself under each change; without those that there are not, such as another seed of a
        method without any. Of the parts of the model, the one under which it changes least.
    part
        That part.
    """

    method: str
    title: str
    likeness: Mapping[Kind, Likeness]
    part: str


@final
@dataclass(frozen=True, eq=False)
class MapChecks:
    """What changes each method's maps of an image, and what does not.

    Parameters
    ----------
    methods
        Of each method.
    l2
        How long the noise is.
    passes
        Images sent through randomised models, which the user's own does not count.
    """

    methods: tuple[MapCheck, ...]
    l2: float
    passes: Passes


def check_maps(
    classifier: Classifier,
    methods: Sequence[Any],
    clean: Images,
    adversarial: Images,
    true: int,
    wrong: int,
    *,
    again: Images | None = None,
    universal: Images | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> MapChecks:
    """Change the image, the seeds and the weights, and see how alike each method's maps stay.

    Everything but the attack's seed is about the clean image's map of the true class; enhanced methods contrast it with
    the wrong one.

    Parameters
    ----------
    classifier
        The classifier; nothing about it is changed.
    methods
        Saliency methods that work on it.
    clean, adversarial
        (1,c,h,w) The image before and after the attack, values in [0, 1]; noise is as long in ℓ2 as what was added.
    true, wrong
        The class that the image shows, and the one that it is taken for.
    again
        (1,c,h,w) The image after the same attack with another seed, if it has one: its map of the wrong class is then
        compared with that of `adversarial`.
    universal
        (1,c,h,w) The clean image under a universal perturbation, if there is one.
    seed
        Seed of noise, shifts and weights.
    progress
        Called with the steps done, the steps in all, and what is being done.

    Raises
    ------
    MethodError
        If the model has no weights that can be randomised, or a method does not work on it.
    ModelError
        If the model cannot be copied.
    """
    length = float((adversarial - clean).norm())
    parts = list_parts(classifier)
    steps = len(parts) + 3
    noisy = [add_noise(clean, length, seed + number) for number in range(DRAWS)] if length else []
    images = torch.cat([clean, *noisy, *([] if universal is None else [universal])])
    maps = _compute(methods, classifier, images, true, wrong)
    progress(1, steps, "map checks")
    rulers = [_Ruler(before[:1], clean, seed) for before in maps]
    likeness: list[dict[Kind, Likeness]] = []
    for of_method, ruler in zip(maps, rulers, strict=True):
        changes: dict[Kind, Maps] = {"noise": of_method[1 : 1 + DRAWS]} if noisy else {}
        changes |= {} if universal is None else {"universal": of_method[-1:]}
        likeness.append({kind: ruler.measure(other) for kind, other in changes.items()})
    for place, other in _reseed(methods, classifier, clean, true, wrong):
        likeness[place]["method seed"] = rulers[place].measure(other)
    if again is not None:
        for place, both in enumerate(_compute(methods, classifier, torch.cat([adversarial, again]), wrong, true)):
            likeness[place]["attack seed"] = _Ruler(both[:1], clean, seed).measure(both[1:])
    progress(2, steps, "map checks")
    whole = Passes()
    layers = [layer for part in parts for layer in part.layers]
    named = {"": layers, **{part.name: part.layers for part in parts}}
    independent: list[dict[str, Likeness]] = [{} for _ in methods]

    def compute_randomised(name: str) -> tuple[list[Maps], Passes]:
        made = randomise(classifier, named[name], seed)
        choose_alike(made, classifier)
        with count_passes(made) as passes:
            return _compute(methods, made, clean, true, wrong), passes

    randomised = share_out(classifier, compute_randomised, named)
    for step, (name, (others, passes)) in enumerate(zip(named, randomised, strict=True), start=3):
        for place, (ruler, other) in enumerate(zip(rulers, others, strict=True)):
            if name:
                independent[place][name] = ruler.measure(other)
            else:
                likeness[place]["cascading"] = ruler.measure(other)
        whole.add(passes)
        progress(step, steps, "map checks")
    return MapChecks(tuple(map(_finish, methods, likeness, independent)), length, whole)


def _finish(method: Any, likeness: dict[Kind, Likeness], independent: Mapping[str, Likeness]) -> MapCheck:
    """Add the part of the model under which a map changes least."""
    known = {name: measured for name, measured in independent.items() if measured.value == measured.value}
    part = max(known or independent, key=lambda name: independent[name].value)
    return MapCheck(describe(method), title(method), {**likeness, "independent": independent[part]}, part)


def _compute(methods: Sequence[Any], classifier: Classifier, images: Images, cls: int, contrast: int) -> list[Maps]:
    classes, others = (torch.full((len(images),), index, device=images.device) for index in (cls, contrast))
    computed = []
    for _, maps in pair_maps(methods, classifier, images, classes, others):
        if isinstance(maps, MethodError):
            raise maps
        computed.append(maps[:, 0].detach())
    return computed


def _reseed(
    methods: Sequence[Any], classifier: Classifier, clean: Images, true: int, wrong: int
) -> Iterator[tuple[int, Maps]]:
    """Compute the maps of the methods that have a seed, with the next one, by their places."""
    again = {place: with_next_seed(method) for place, method in enumerate(methods)}
    reseeded = {place: method for place, method in again.items() if method != methods[place]}
    yield from zip(reseeded, _compute([*reseeded.values()], classifier, clean, true, wrong), strict=True)


@final
class _Ruler:
    """Measures how like a map (1,d,h,w) others are, beside itself at other places."""

    def __init__(self, saliency: Maps, image: Images, seed: int) -> None:
        self.saliency = saliency
        ranks = mean_ranks(saliency.double().sum(1).flatten(1))
        centred = (ranks - ranks.mean()).view(1, 1, *saliency.shape[-2:])
        # The ranks of a shifted map are its own, shifted.
        chance = (centred * shifted_maps(centred, image, SHIFTS, seed)).sum((1, 2, 3)) / centred.square().sum()
        self.chance, self.highest = float(chance.mean()), float(chance.max())

    def measure(self, others: Maps) -> Likeness:
        values: Tensor = rank_correlation(self.saliency.expand_as(others), others)
        return Likeness(float(values.mean()), self.chance, self.highest)
