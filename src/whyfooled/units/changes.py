"""What one attack does to the units of some layers, and to two logits through them: the data of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_images
from whyfooled.classifier.layers import activations
from whyfooled.errors import ParameterError, at_least, bad_parameter
from whyfooled.perturbation.sensitivity import check_pair
from whyfooled.tensors.randomness import add_noise
from whyfooled.types import Images, Progress, silent
from whyfooled.units._slopes import PairThrough, differentiate_layers
from whyfooled.units._spread import clean_std
from whyfooled.units.concept_changes import ConceptChange, find_concept_changes
from whyfooled.units.dissection.dissection import Dissection, load_dissection
from whyfooled.units.dissection.results import DissectedLayer

DRAWS = 4
"""How many random perturbations the attack's is compared with. [ours]"""

AMISS = 1 / 3
"""Share of the logits' change that the units of a layer may leave unaccounted for before a note says so. [ours]"""

BENT = 0.5
"""Nonlinearity above which effects of single units are not to be trusted: 60° between gradients as long. [ours]"""

MOST_UNITS = 0.5
"""Share of the changing units that an attack must change more than any random perturbation; else a note. [ours]"""


@final
@dataclass(frozen=True, eq=False, repr=False)
class LayerChanges:
    """What a perturbation does to one layer's u units; float64 if not said otherwise, on the CPU.

    Parameters
    ----------
    dissected
        What the units detect.
    maps
        (2,u,h,w) Activation maps of the clean and of the adversarial image, float32.
    std
        (u,) Standard deviation of the activations over the dissection's images and the clean one; no less than half the
        layer's, but 0 where all are the same. See `find_unit_changes`.
    distance
        (u,) Length of the difference of the two, ``‖a_k(x') − a_k(x)‖₂``.
    chance
        (r,u) The same under each of r random perturbations of equal length.
    mean_change
        (u,) Change of the mean activation, over `std`; infinite where only that is 0.
    active
        (2,u) Share of the places above the dissection's threshold, before and after.
    held
        (2,u) Gradient times activation at the clean image, summed over the places: how much a unit holds the logit of
        the true class up, and of the wrong one.
    effect
        (2,u) What the unit's change does to the logit of the true class, and of the wrong one, to first order.
    nonlinearity
        (2,) How far what comes after the layer is from linear, for each of the two logits: the length of the difference
        of its gradients at the two images over the sum of their lengths. 0: the same gradient; 1: opposite ones.
    concepts
        What becomes of each concept that has a detector, in the order of the dissection's concepts.
    """

    dissected: DissectedLayer
    maps: Float[Tensor, "2 u h w"]
    std: Float[Tensor, " u"]
    distance: Float[Tensor, " u"]
    chance: Float[Tensor, "r u"]
    mean_change: Float[Tensor, " u"]
    active: Float[Tensor, "2 u"]
    held: Float[Tensor, "2 u"]
    effect: Float[Tensor, "2 u"]
    nonlinearity: Float[Tensor, " 2"]
    concepts: tuple[ConceptChange, ...]

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.dissected.layer.name

    @property
    def relative(self) -> Float[Tensor, " u"]:
        """Distance over `std`; 0 for a unit that neither varies nor changes, infinite where only `std` is 0."""
        return _over(self.distance, self.std)

    @property
    def relative_chance(self) -> Float[Tensor, "r u"]:
        """The same under each random perturbation."""
        return _over(self.chance, self.std)

    @property
    def moving(self) -> Bool[Tensor, " u"]:
        """Which units change at all, under the attack or under a random perturbation."""
        return (self.distance > 0) | (self.chance > 0).any(0)

    @property
    def beyond(self) -> Bool[Tensor, " u"]:
        """Which change more than under every random perturbation; chance makes it one changing unit of r + 1."""
        return self.distance > self.chance.amax(0)

    @property
    def beyond_share(self) -> float:
        """Share of the changing units that change more than under every random perturbation; NaN if none changes."""
        return float(self.beyond[self.moving].double().mean())

    @property
    def ranked(self) -> Int[Tensor, " k"]:
        """The units whose `std` is not 0, the one that changed most, `relative` to that, first."""
        order = self.relative.argsort(descending=True, stable=True)
        return order[self.std[order] > 0]

    @property
    def accounted(self) -> Float[Tensor, " 2"]:
        """What the changes of all units together do to the two logits, to first order."""
        return self.effect.sum(1)


@final
@dataclass(frozen=True, eq=False, repr=False)
class UnitChanges:
    """What one attack does to the units of the dissected layers. Made by `find_unit_changes`.

    Parameters
    ----------
    dissection
        What the units detect.
    layers
        What becomes of each layer's units.
    logit_change
        (2,) By how much the logits of the true class and of the wrong one change.
    l2
        Length of the perturbation.
    notes
        What a reader should know, in sentences.
    """

    dissection: Dissection
    layers: tuple[LayerChanges, ...]
    logit_change: Float[Tensor, " 2"]
    l2: float
    notes: tuple[str, ...]

    def completeness(self, layer: LayerChanges) -> Float[Tensor, " 2"]:
        """Return the share of each of the two logits' change that a layer's units account for; NaN for no change."""
        return torch.where(self.logit_change == 0, torch.nan, layer.accounted / self.logit_change)

    def rough(self, layer: LayerChanges) -> Bool[Tensor, " 2"]:
        """Tell for which of the two logits the effects of a layer's single units are not to be trusted.

        That is where what comes after the layer is far from linear, or the effects of all units do not add up. [ours]
        """
        missing = (layer.accounted - self.logit_change).abs()
        return (layer.nonlinearity > BENT) | (missing > AMISS * self.logit_change.abs().max())

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each unit: what it detects, how much it changed beside chance, and its effect.

        ``relative``, ``chance`` (the mean over the random perturbations) and ``mean_change`` are in units of ``std``.
        """
        detects = self.dissection.to_frame()[["layer", "unit", "concept", "category", "iou", "detector"]]
        columns = {
            "distance": [one.distance for one in self.layers],
            "std": [one.std for one in self.layers],
            "relative": [one.relative for one in self.layers],
            "chance": [one.relative_chance.mean(0) for one in self.layers],
            "beyond_chance": [one.beyond for one in self.layers],
            "mean_change": [one.mean_change for one in self.layers],
            "active_clean": [one.active[0] for one in self.layers],
            "active_adversarial": [one.active[1] for one in self.layers],
            "true_held": [one.held[0] for one in self.layers],
            "wrong_held": [one.held[1] for one in self.layers],
            "true_effect": [one.effect[0] for one in self.layers],
            "wrong_effect": [one.effect[1] for one in self.layers],
        }
        return detects.assign(**{name: torch.cat(parts).numpy() for name, parts in columns.items()})

    def __repr__(self) -> str:
        return f"UnitChanges({', '.join(f'{one.name}: {len(one.distance)} units' for one in self.layers)})"


@one_thread()
def find_unit_changes(
    classifier: Classifier,
    dissection: Dissection,
    clean: Images,
    adversarial: Images,
    true: int,
    wrong: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = silent,
) -> UnitChanges:
    """Say how much an attack changes each unit, and what that does to the logits of two classes (after Xu et al. 2019).

    The paper says that under an attack units that detect concepts of the true class fall, and those of the target's
    concepts rise. Its full text is not public: all definitions are [ours]. How much a unit changes is
    ``‖a_k(x') − a_k(x)‖₂`` over its standard deviation on the dissection's images and the clean image as one more:
    photographs of other things leave many units almost silent. It counts as no less than half the layer's (the root
    mean square over the units that vary), so that they do not come first for changing at all; a unit that gives the
    same in all those images has none, and is not ranked. The unit's effect on a logit is
    ``Σ ½(g_k(x) + g_k(x')) · (a_k(x') − a_k(x))`` over the places, with ``g_k`` the gradient of the logit with respect
    to the unit's map: the trapezoid rule of the integral along the straight way from one activation to the other. It is
    exact where what comes after the layer is linear, and the effects of all units then add up to the change of the
    logit, if nothing goes around the layer. Concepts are what the dissection says, whatever the class: a concept is the
    true class's if its detectors hold that class up in the clean image.

    It takes ``2 + draws`` forward passes, and for each of the two images and of the two classes a partial backward pass
    (to the layers).

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    dissection
        Of the same classifier, with the same weights.
    clean, adversarial
        (1,c,h,w) The image before and after, values in [0, 1].
    true, wrong
        The true class, and the one that the image is, or was to be, taken for.
    draws
        How many random perturbations of the same l2 norm the attack's is compared with. Their values, too, are kept in
        [0, 1]; a perturbation that no image can have that way is as long as it can be.
    seed
        Seed of the random perturbations.
    progress
        Called with the images done, the images in all, and what is being done.

    Returns
    -------
    UnitChanges

    Raises
    ------
    ParameterError
        If the dissection is of another model, there is more than one pair, or a class is not one of the model's, or
        both are the same.
    ImageError
        If the two images differ in size, have values outside [0, 1], or do not differ.
    ModelError
        If a layer gives NaN or infinite activations, or none.
    """
    at_least("draws", draws, 1)
    check_classifier(classifier, several_labels=True)
    check_images(clean)
    if len(clean) != 1:
        raise bad_parameter("clean", "must be one image (1, channels, height, width)", tuple(clean.shape))
    classes = torch.tensor([true, wrong], device=clean.device)
    check_pair(classifier, clean, adversarial, classes[:1], classes[1:])
    check_dissection(classifier, dissection)
    layers = [one.layer for one in dissection.layers]
    through = differentiate_layers(classifier, layers, torch.cat([clean, adversarial]), classes)
    l2 = float((adversarial - clean).double().norm())
    chance: list[dict[str, Tensor]] = []
    for number in range(draws):
        progress(2 + number, 2 + draws, "units")
        noisy = activations(classifier, layers, add_noise(clean, l2, seed + number))
        chance.append({name: _distance(through.maps[name][0], noisy[name][0]) for name in noisy})
    progress(2 + draws, 2 + draws, "units")
    layer_changes = tuple(
        _find_layer_changes(dissection, dissected, through, torch.stack([own[dissected.layer.name] for own in chance]))
        for dissected in dissection.layers
    )
    change = (through.logits[1] - through.logits[0]).cpu()
    names = (classifier.class_name(true), classifier.class_name(wrong))
    return UnitChanges(
        dissection, layer_changes, change, l2, tuple(_write_notes(layer_changes, change, through.unused, names))
    )


def check_dissection(classifier: Classifier, dissection: Dissection, argument: str = "dissection") -> None:
    """Raise `ParameterError` unless a dissection is of this classifier, with these weights."""
    if dissection.model_digest == classifier.digest():
        return
    model = dissection.parameters.get("model") or "a model"
    other = f"one of {model}" if model != classifier.name else f"one of a {model} with other weights"
    fix = "Dissect this one: whyfooled dissect."
    raise bad_parameter(argument, f"must be of the model that was attacked, {classifier.name}", other, fix)


def _distance(before: Tensor, after: Tensor) -> Float[Tensor, " u"]:
    length: Tensor = (after.double() - before.double()).flatten(1).norm(dim=1)
    return length.cpu()


def _over(values: Tensor, std: Tensor) -> Tensor:
    over: Tensor = values / std
    return over.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)


def _find_layer_changes(
    dissection: Dissection, dissected: DissectedLayer, through: PairThrough, chance: Tensor
) -> LayerChanges:
    name = dissected.layer.name
    maps, slopes = through.maps[name].double(), through.slopes[name].double()
    if maps.shape[1] != len(dissected.std):
        raise ParameterError(
            f"`dissection` must have the units of the layer {name!r}, {maps.shape[1]}; got {len(dissected.std)}."
        )
    change = maps[1] - maps[0]
    held = (slopes[:, 0] * maps[0]).sum((2, 3)).cpu()
    effect = (slopes.mean(1) * change).sum((2, 3)).cpu()
    lengths = slopes.flatten(2).norm(dim=2).sum(1)
    apart = (slopes[:, 1] - slopes[:, 0]).flatten(1).norm(dim=1)
    std = clean_std(dissected, maps[0])
    mean_change = _over(change.mean((1, 2)).cpu(), std)
    threshold = dissected.threshold.to(maps.device).view(-1, 1, 1)
    return LayerChanges(
        dissected=dissected,
        maps=through.maps[name].float().cpu(),
        std=std,
        distance=_distance(maps[0], maps[1]),
        chance=chance,
        mean_change=mean_change,
        # In single precision, as thresholds are found: else a plateau at one would be a digit above it.
        active=(maps.float() > threshold).double().mean((2, 3)).cpu(),
        held=held,
        effect=effect,
        nonlinearity=(apart / lengths).nan_to_num(nan=0.0).cpu(),
        concepts=tuple(find_concept_changes(dissection, dissected, mean_change, held, effect)),
    )


def _write_notes(
    layers: tuple[LayerChanges, ...], change: Tensor, unused: tuple[str, ...], names: tuple[str, str]
) -> Iterator[str]:
    for name in unused:
        yield f"The logits do not depend on {name} by operations that have a gradient, so its units have no effect."
    off = [one for one in layers if (one.accounted - change).abs().max() > AMISS * change.abs().max()]
    if off:
        sums = "; ".join(f"{one.name}: {one.accounted[0]:+.2f} and {one.accounted[1]:+.2f}" for one in off)
        yield (
            f"The effects of all units do not add up to what changed in the logits of {names[0]} and {names[1]} "
            f"({change[0]:+.2f} and {change[1]:+.2f}; {sums}): what comes after the layer is far from linear, or goes "
            "around it. Read the effects of its units and concepts as rough."
        )
    for layer in layers:
        changing, share = int(layer.moving.sum()), layer.beyond_share
        if not changing:
            yield f"No unit of {layer.name} changes at all, under the attack or under random perturbations."
        elif share < MOST_UNITS:
            yield (
                f"Of the {changing} units of {layer.name} that change at all, only {share:.0%} changed more than under "
                f"every one of {len(layer.chance)} random perturbations of equal length (by chance "
                f"{1 / (1 + len(layer.chance)):.0%}): noise changes most as much as the attack does."
            )
    bare = [one.name for one in layers if not one.concepts]
    if bare:
        yield f"No unit of {' or '.join(bare)} detects a concept, so nothing can be said of concepts there."


def name_unit_tensors(changes: UnitChanges) -> Iterator[tuple[str, Tensor]]:
    """Name the tensors: for each layer the two images' activation maps, and numbers for each unit."""
    for layer in changes.layers:
        yield f"units/{layer.name}/maps", layer.maps
        for name in ("std", "distance", "chance", "mean_change", "active", "held", "effect"):
            yield f"units/{layer.name}/{name}", getattr(layer, name)


def open_dissection(
    classifier: Classifier, dissection: Dissection | str | Path, argument: str = "dissection"
) -> Dissection:
    """Read a dissection from its folder, if it is not one already, and check that it is of this classifier.

    Raises
    ------
    ParameterError
        If it is of another model, or of one with other weights.
    ImageError
        If the folder holds none, or it is damaged.
    """
    opened = dissection if isinstance(dissection, Dissection) else load_dissection(dissection)
    check_dissection(classifier, opened, argument)
    return opened
