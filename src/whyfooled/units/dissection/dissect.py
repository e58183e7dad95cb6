"""Network dissection: which concept each hidden unit detects (Bau et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier
from whyfooled.classifier.layers import Layer, choose_layers
from whyfooled.classifier.memory import batch_size_for
from whyfooled.classifier.passes import Passes
from whyfooled.errors import ImageError, at_least, bad_parameter, check_seed
from whyfooled.running.engines import ModelRecipe, choose_engine
from whyfooled.running.provenance import versions
from whyfooled.running.publishing import hide_all_folders
from whyfooled.running.runs import identify_computation
from whyfooled.types import Progress, silent
from whyfooled.units.concepts import Concepts
from whyfooled.units.dissection.dissection import Dissection
from whyfooled.units.dissection.passes import Counts, Going, Plan, Standing, Survey
from whyfooled.units.dissection.results import CUTOFF, DissectedLayer
from whyfooled.units.dissection.shards import DissectionWork
from whyfooled.units.dissection.summary import list_names
from whyfooled.units.dissection.unfinished import Unfinished

TOP = 0.005
"""The share of a unit's activations above its threshold (Bau et al. 2017, sec. 2.2)."""
PERMUTATIONS = 20
"""How often the annotations are permuted among the images, to see what chance gives. [ours]"""
TOP_IMAGES = 8
"""How many of the images in which a unit is most active are kept. [ours]"""
MEMORY = 1.0
"""GiB of activations that are kept from the first pass over the images, if that makes a second one needless. [ours]"""


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
    memory: float = MEMORY,
    seed: int = 0,
    workers: int | None = None,
    engine: str = "local",
    address: str | None = None,
    model: ModelRecipe | None = None,
    unfinished: str | Path | None = None,
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
    dissections squash the whole picture instead: ``Fit(squash=True)``.) It takes one forward pass an image where all
    that the layers give fits into `memory`, and two otherwise, whatever the number of layers; more only where the
    activations above the thresholds would take over 1 GiB. Memory does not grow with the number of images beyond that.
    The result is the same to the bit in one pass or two, on any number of cores or machines, and after interruptions.

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
        Images worked on together; as many as fit into memory if None, on a CPU one large or 8 small ones. Another size
        changes last digits.
    memory
        GiB of activations that may be kept, so that images go through the classifier once; 0 for two passes.
    seed
        Seed of the groups.
    workers
        Over how many cores the work is shared out; if None, as many as the threads that PyTorch is set to, and with Ray
        all of the cluster's.
    engine
        ``"local"``: in this process. ``"ray"``: on the machines of a Ray cluster, which need the annotated images under
        the same paths.
    address
        The Ray cluster's address; one of this machine alone if None.
    model
        How the machines of a cluster load the classifier, as it was loaded here; sent to them as it is if None.
    unfinished
        A folder for what is found so far: called again with the same arguments after an interruption, it goes on from
        there. It is written every half minute or so; `Dissection.save` to the same folder deletes it. Nothing is
        written if None.
    progress
        Called with the images done, the images in all, and what is being done.

    Returns
    -------
    Dissection

    Raises
    ------
    ParameterError
        If there is no such layer, it has no units with places, `top` leaves no activation above a threshold, or Ray
        cannot be reached.
    ImageError
        If an image or its annotation cannot be read, or no pixel that the classifier sees shows any concept.
    ModelError
        If an activation is NaN or infinite.
    OutputError
        If what is unfinished cannot be written.
    """
    check_classifier(classifier, several_labels=True)
    _check_concepts(concepts)
    check_seed(seed)
    _check_numbers(top=top, cutoff=cutoff)
    at_least("permutations", permutations, 0)
    at_least("top_images", top_images, 1)
    at_least("batch_size", 1 if batch_size is None else batch_size, 1)
    at_least("memory", memory, 0)
    # A shard shares out its own images, so that one group's annotations are in memory at a time.
    chosen_engine = choose_engine(engine, address, classifier, workers, one_by_one=True)
    chosen = choose_layers(classifier, layers)
    said = {
        "model": classifier.name,
        "device": str(classifier.device),
        "input_size": list(classifier.size),
        "squash": classifier.fit.squash,
        "concepts": concepts.title,
        "top": top,
        "permutations": min(permutations, len(concepts) - 1),
    }
    kept = None
    if unfinished is not None:
        run = {
            **said,
            **identify_computation(classifier),
            "fit": str(classifier.fit),
            "concepts_digest": concepts.digest(),
            "layers": [layer.name for layer in chosen],
            "top_images": top_images,
            "memory": memory,
            "seed": seed,
        }
        kept = Unfinished.of(Path(unfinished), run)
        batch_size = batch_size or kept.batch_size
    size = batch_size or batch_size_for(classifier)
    plan = Plan.of(
        chosen,
        concepts,
        permutations=permutations,
        top=top,
        most=top_images,
        batch_size=size,
        memory=memory,
        seed=seed,
    )
    standing = Standing() if kept is None else kept.load(plan, size)

    def save(now: Standing) -> None:
        if kept is not None:
            kept.save_if_due(plan, now, size)

    work, recipe = DissectionWork(concepts, chosen), model or ModelRecipe(classifier)
    with chosen_engine.start(work, recipe, max(len(plan.groups), len(plan.survey_shards()))) as crew:
        going = Going(plan, crew, standing, progress, save)
        try:
            surveys = going.survey()
            counts = going.count(surveys)
        except KeyboardInterrupt:
            if kept is not None:
                kept.save(plan, standing, size)
            raise
    if not counts.area.any():
        raise ImageError(
            f"No pixel of the {len(concepts)} images of {concepts.title} shows any of its {len(concepts.names)} "
            "concepts, in the part of the images that the classifier sees."
        )
    return Dissection(
        layers=tuple(_make_layer(layer, surveys[layer.name], counts, concepts.category_of) for layer in chosen),
        concepts=concepts.names,
        category_of=concepts.category_of,
        categories=concepts.categories,
        area=counts.area,
        images=concepts.images,
        cutoff=cutoff,
        model_digest=classifier.digest(),
        parameters=hide_all_folders({**said, "batch_size": size, "seed": seed, "versions": versions()}),
        notes=tuple(_write_notes(concepts, surveys, counts, permutations)),
        seconds=standing.seconds,
        passes=Passes(standing.forwards),
        source=concepts,
        fit=classifier.fit,
        channels=classifier.channels,
    )


def _check_concepts(concepts: object) -> None:
    if not isinstance(concepts, Concepts):
        fix = "Open them: open_concepts('masks:IMAGES,LABELS,NAMES')."
        raise bad_parameter("concepts", "must be annotated images", type(concepts).__name__, fix)


def _check_numbers(top: float, cutoff: float) -> None:
    if not 0 < top < 1:
        raise bad_parameter("top", "must be between 0 and 1", top)
    if not 0 <= cutoff < 1:
        raise bad_parameter("cutoff", "must be at least 0 and below 1", cutoff)


def _make_layer(layer: Layer, surveyed: Survey, counts: Counts, category_of: Sequence[int]) -> DissectedLayer:
    tally, *permuted = counts.tallies[layer.name]
    null = [one.iou(counts.area, category_of).amax(1) for one in permuted]
    return DissectedLayer(
        layer=layer,
        positions=surveyed.positions,
        threshold=surveyed.threshold,
        above=surveyed.above,
        dead=surveyed.moments.constant,
        mean=surveyed.moments.mean,
        std=surveyed.moments.std,
        both=tally.both,
        union=tally.union(counts.area, category_of),
        active_images=counts.spreads[layer.name].images,
        most=counts.spreads[layer.name].most,
        null_iou=torch.stack(null) if null else torch.zeros(0, layer.units, dtype=torch.float64),
        top_images=surveyed.tops.images,
        top_values=surveyed.tops.values,
        top_maps=surveyed.tops.maps,
    )


def _write_notes(concepts: Concepts, surveys: Mapping[str, Survey], counts: Counts, permutations: int) -> Iterator[str]:
    seen = counts.seen / counts.whole
    if seen < 0.995:
        yield (
            f"The classifier sees {seen:.0%} of the annotated pixels; the rest is cut off. Squashed into the "
            "input (--squash), pictures are seen whole."
        )
    hidden = [name for name, area in zip(concepts.names, counts.area.tolist(), strict=True) if not area]
    if hidden:
        where = ", in the part that the classifier sees" if seen < 1 else ""
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
