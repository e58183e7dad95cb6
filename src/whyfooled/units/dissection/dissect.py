"""Network dissection: which concept each hidden unit detects (Bau et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier
from whyfooled.classifier.layers import Layer, choose_layers
from whyfooled.classifier.memory import batch_size_for
from whyfooled.classifier.passes import Passes
from whyfooled.errors import ImageError, at_least, bad_parameter, check_seed
from whyfooled.running.provenance import Stages, versions
from whyfooled.running.publishing import hide_all_folders
from whyfooled.types import Progress, silent
from whyfooled.units.concepts import Concepts
from whyfooled.units.dissection.dissection import Dissection
from whyfooled.units.dissection.passes import AnnotatedRun, Counts, Survey, count, make_permutation_groups, survey
from whyfooled.units.dissection.results import CUTOFF, DissectedLayer
from whyfooled.units.dissection.summary import list_names

TOP = 0.005
"""The share of a unit's activations above its threshold (Bau et al. 2017, sec. 2.2)."""
PERMUTATIONS = 20
"""How often the annotations are permuted among the images, to see what chance gives. [ours]"""
TOP_IMAGES = 8
"""How many of the images in which a unit is most active are kept. [ours]"""


@one_thread()
def dissect(
    classifier: Classifier,
    layers: str | Sequence[str],
    concepts: Concepts,
    *,
    top: float = TOP,
    cutoff: float = CUTOFF,
    permutations: int = PERMUTATIONS,
    top_images: int = TOP_IMAGES,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Dissection:
    """Find out which concept each unit of some layers detects (network dissection, Bau et al. 2017, sec. 2).

    A unit's threshold is the smallest of its activations, over all places of all images, above which lies at most the
    share `top` of them. Of equal activations all or none are above, so a unit that gives its largest one more often is
    never active, as is a dead one, which gives the same everywhere. The map, less the threshold, is enlarged bilinearly
    to the size of the label maps; where that is above 0 the unit is active. IoU is the number of pixels where it is
    active and a concept shown, over those where it is active or the concept shown, both summed over the images in which
    the concept's category is annotated.

    Chance: the annotations are permuted among the images, within groups drawn at random, `permutations` times. What a
    unit reaches then, it reaches by firing where in a picture such things are, not by seeing them.

    The classifier sees the pictures as it always does, mostly a cut-out; label maps are cut in the same way. (Published
    dissections squash the whole picture instead: ``Fit(squash=True)``.) It takes two forward passes an image, whatever
    the number of layers; more only where the activations above the thresholds would take over 1 GiB. Memory does not
    grow with the number of images beyond that, and nothing is written to disk.

    Parameters
    ----------
    classifier
        The classifier.
    layers
        Names, patterns or ``"last-stage"``, see `whyfooled.classifier.layers.choose_layers`.
    concepts
        Annotated images, see `whyfooled.units.open_concepts`.
    top
        The share of a unit's activations above its threshold, from 0 to 1.
    cutoff
        The IoU above which a unit detects its best concept.
    permutations
        How often annotations are permuted among the images; 0 to leave chance out.
    top_images
        How many of the images in which a unit is most active are kept, with its maps there.
    batch_size
        Images worked on together; as many as fit if None.
    seed
        Seed of the groups.
    progress
        Called with the images done, the images in all, and what is being done.

    Returns
    -------
    Dissection

    Raises
    ------
    ParameterError
        If there is no such layer, it has no units with places, or `top` leaves no activation above a threshold.
    ImageError
        If an image or its annotation cannot be read, or no pixel that the classifier sees shows any concept.
    ModelError
        If an activation is NaN or infinite.
    """
    check_classifier(classifier, several_labels=True)
    if not isinstance(concepts, Concepts):
        fix = "Open them: open_concepts('masks:IMAGES,LABELS,NAMES')."
        raise bad_parameter("concepts", "must be annotated images", type(concepts).__name__, fix)
    check_seed(seed)
    if not 0 < top < 1:
        raise bad_parameter("top", "must be between 0 and 1", top)
    if not 0 <= cutoff < 1:
        raise bad_parameter("cutoff", "must be at least 0 and below 1", cutoff)
    at_least("permutations", permutations, 0)
    at_least("top_images", top_images, 1)
    at_least("batch_size", 1 if batch_size is None else batch_size, 1)
    chosen = choose_layers(classifier, layers)
    size = batch_size_for(classifier) if batch_size is None else batch_size
    groups = make_permutation_groups(len(concepts), permutations, size, seed)
    stages = Stages(classifier, progress)
    images = AnnotatedRun(classifier, chosen, concepts, size, stages.progress)
    with stages.stage("thresholds"):
        surveys = survey(images, top, min(top_images, len(concepts)))
    with stages.stage("overlaps"):
        counts = count(images, groups, permutations, surveys)
    if not counts.area.any():
        raise ImageError(
            f"No pixel of the {len(concepts)} images of {concepts.title} shows any of its {len(concepts.names)} "
            "concepts, in the part of the images that the classifier sees."
        )
    return Dissection(
        layers=tuple(_make_layer(layer, surveys[layer.name], counts) for layer in chosen),
        concepts=concepts.names,
        category_of=concepts.category_of,
        categories=concepts.categories,
        area=counts.area,
        images=concepts.images,
        cutoff=cutoff,
        model_digest=classifier.digest(),
        parameters=hide_all_folders(
            {
                "model": classifier.name,
                "device": str(classifier.device),
                "input_size": list(classifier.size),
                "squash": classifier.fit.squash,
                "concepts": concepts.title,
                "top": top,
                "permutations": min(permutations, len(concepts) - 1),
                "batch_size": size,
                "seed": seed,
                "versions": versions(),
            }
        ),
        notes=tuple(_write_notes(concepts, surveys, counts, permutations)),
        seconds=stages.seconds,
        passes=Passes(sum(one.forwards for one in stages.passes.values())),
        source=concepts,
        fit=classifier.fit,
        channels=classifier.channels,
    )


def _make_layer(layer: Layer, surveyed: Survey, counts: Counts) -> DissectedLayer:
    tally = counts.tallies[layer.name]
    null = [permuted.iou(counts.area).amax(1) for permuted in counts.permuted[layer.name]]
    return DissectedLayer(
        layer=layer,
        positions=surveyed.positions,
        threshold=surveyed.threshold.cpu(),
        above=surveyed.above.cpu(),
        dead=surveyed.moments.constant.cpu(),
        mean=surveyed.moments.mean.cpu(),
        std=surveyed.moments.std.cpu(),
        both=tally.both.cpu(),
        union=tally.union(counts.area).cpu(),
        active_images=counts.spread[layer.name].images.cpu(),
        most=counts.spread[layer.name].most.cpu(),
        null_iou=torch.stack(null).cpu() if null else torch.zeros(0, layer.units, dtype=torch.float64),
        top_images=surveyed.tops.images,
        top_values=surveyed.tops.values,
        top_maps=surveyed.tops.maps,
    )


def _write_notes(concepts: Concepts, surveys: Mapping[str, Survey], counts: Counts, permutations: int) -> Iterator[str]:
    if counts.seen < 0.995:
        yield (
            f"The classifier sees {counts.seen:.0%} of the annotated pixels; the rest is cut off. Squashed into the "
            "input (--squash), pictures are seen whole."
        )
    hidden = [name for name, area in zip(concepts.names, counts.area.tolist(), strict=True) if not area]
    if hidden:
        where = ", in the part that the classifier sees" if counts.seen < 1 else ""
        yield f"Of the listed concepts, no image shows {list_names(hidden)}{where}."
    for name, surveyed in surveys.items():
        seldom = int(((surveyed.threshold == surveyed.moments.smallest) & (surveyed.above > 0)).sum())
        if seldom:
            yield (
                f"{seldom} units of {name} are on in less than the share asked for, so they are active wherever they "
                "are on at all; enlarged, that is all between those places and the next."
            )
    if permutations and len(concepts) == 1:
        yield "There is one image, so annotations cannot be permuted, and nothing says what chance gives."
    elif permutations >= len(concepts):
        yield (
            f"Among {len(concepts)} images annotations can be permuted in {len(concepts) - 1} ways only, not "
            f"{permutations}: what chance gives is known less well."
        )
