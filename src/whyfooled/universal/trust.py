"""How much one image's maps change under a universal perturbation, beside chance: the data of a report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, at_least
from whyfooled.images import content_digest
from whyfooled.registry import describe, title
from whyfooled.saliency import Enhanced
from whyfooled.saliency.interpretations import Interpretations, interpretation, quiet
from whyfooled.saliency.pairs import pair_maps
from whyfooled.types import Image, Images, Progress, silent
from whyfooled.universal import UniversalPerturbation
from whyfooled.universal.evaluation import compare_maps, random_like

DRAWS = 10
"""How many random directions a perturbation is compared with. [ours]"""

_AT_ONCE = 4
"""How many images go through a saliency method together."""


@final
@dataclass(frozen=True, eq=False)
class MapTrust:
    """How much one method's map of one image changes.

    Parameters
    ----------
    method
        The method, as on the command line.
    title
        The method's name in a report.
    contrastive
        Whether the map holds its class against another one.
    maps
        (3,h,w) The interpretations of the clean image, under the universal perturbation, and under the first random
        direction, on the CPU.
    universal
        What `whyfooled.universal.evaluation.map_changes` measures, under the universal perturbation; NaN where a map is
        empty.
    random
        (k,) The same, under each of k random directions of the same norm.
    """

    method: str
    title: str
    contrastive: bool
    maps: Float[Tensor, "3 h w"]
    universal: Mapping[str, float]
    random: Mapping[str, Float[Tensor, " k"]]


@final
@dataclass(frozen=True, eq=False)
class Trust:
    """How much one image's maps change under a universal perturbation, and what becomes of the prediction.

    Parameters
    ----------
    perturbation
        The universal perturbation.
    delta
        (c,h,w) What it adds to this image once the values are brought back to [0, 1].
    seen, contrast
        The class whose maps are taken, and the one that contrastive maps contrast it with.
    clean_logits, logits
        (m,) The classifier's logits before and after.
    stays
        (k,) Whether the class is still predicted under each of k random directions of the same norm.
    methods
        How much each method's map changes.
    notes
        What a reader should know, in sentences.
    """

    perturbation: UniversalPerturbation
    delta: Image
    seen: int
    contrast: int
    clean_logits: Tensor
    logits: Tensor
    stays: Bool[Tensor, " k"]
    methods: tuple[MapTrust, ...]
    notes: tuple[str, ...]


def find_trust(
    classifier: Classifier,
    clean: Images,
    seen: int,
    contrast: int,
    perturbation: UniversalPerturbation,
    methods: Sequence[Any],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    digests: Collection[str] = (),
    progress: Progress = silent,
) -> Trust:
    """Add a universal perturbation to an image, and random directions of the same norm, and see which maps change.

    All images are clipped to [0, 1], as a picture's values must be. It costs ``2 + draws`` maps of every method.

    Parameters
    ----------
    classifier
        The classifier.
    clean
        (1,c,h,w) The image, values in [0, 1].
    seen, contrast
        The class whose maps are taken, as a rule the predicted one; and the one that contrastive maps contrast it with,
        as a rule that with the strongest other logit.
    perturbation
        The universal perturbation.
    methods
        The saliency methods.
    seed
        Seed of the random directions.
    draws
        How many random directions. [ours]
    digests
        Of the image before it was brought to the classifier's input size, for finding it among the fitting images.
    progress
        Called with the steps done, the steps in all, and what is being done.

    Returns
    -------
    Trust

    Raises
    ------
    ImageError
        If the perturbation has another size than the image.
    MethodError
        If a method does not work on this model.
    """
    at_least("draws", draws, 1)
    perturbed = [perturbation.apply(clean)]
    perturbed += [random_like(perturbation, clean, seed + number).clamp(0, 1) for number in range(draws)]
    images = torch.cat([clean, *perturbed])
    logits = torch.cat([classifier.logits(some) for some in torch.split(images, _AT_ONCE)])
    with quiet():
        maps = _compute_interpretations(classifier, images, seen, contrast, methods, progress)
    return Trust(
        perturbation=perturbation,
        delta=(perturbed[0] - clean)[0].cpu(),
        seen=seen,
        contrast=contrast,
        clean_logits=logits[0].cpu(),
        logits=logits[1].cpu(),
        stays=(logits[2:].argmax(1) == seen).cpu(),
        methods=tuple(_compare_maps(method, own) for method, own in zip(methods, maps, strict=True)),
        notes=tuple(_write_notes(classifier, clean, perturbation, digests)),
    )


def _compute_interpretations(
    classifier: Classifier, images: Images, seen: int, contrast: int, methods: Sequence[Any], progress: Progress
) -> list[Float[Tensor, "n h w"]]:
    """Compute the interpretations of every method, a few images at once; methods with the same base share passes."""
    interpretations: list[list[Tensor]] = [[] for _ in methods]
    chunks = torch.split(images, _AT_ONCE)
    for number, some in enumerate(chunks):
        classes, others = (torch.full((len(some),), index, device=some.device) for index in (seen, contrast))
        for place, (_, maps) in enumerate(pair_maps(methods, classifier, some, classes, others)):
            if isinstance(maps, MethodError):
                raise maps
            interpretations[place].append(interpretation(maps[:, 0].detach()))
            progress(number * len(methods) + place + 1, len(chunks) * len(methods), "trust")
    return [torch.cat(parts) for parts in interpretations]


def _compare_maps(method: Any, maps: Interpretations) -> MapTrust:
    """Compare a method's maps with the first, the clean image's."""
    changes = compare_maps(maps[:1].expand(len(maps) - 1, -1, -1), maps[1:])
    return MapTrust(
        method=describe(method),
        title=title(method),
        contrastive=isinstance(method, Enhanced),
        maps=maps[:3].cpu(),
        universal={name: float(values[0]) for name, values in changes.items()},
        random={name: values[1:].cpu() for name, values in changes.items()},
    )


def _write_notes(
    classifier: Classifier, clean: Images, perturbation: UniversalPerturbation, digests: Collection[str]
) -> Iterator[str]:
    transfer = perturbation.transfer_note(classifier)
    if transfer:
        yield transfer
    known = perturbation.fitted_to
    if known is None:
        yield "It is not known which images the universal perturbation was fitted to; this may be one of them."
    elif not known.isdisjoint((content_digest(clean[0]), *digests)):
        yield (
            "The universal perturbation was fitted to this very image, among others: how much it changes this image's "
            "maps says little about other images."
        )


def name_trust_tensors(trust: Trust) -> Iterator[tuple[str, Tensor]]:
    """Name the tensors: what was added, and each method's three interpretations."""
    yield "trust/delta", trust.delta
    for map_trust in trust.methods:
        yield f"trust/maps/{map_trust.method}", map_trust.maps
