"""Units ranked by their sensitivity to each attack, on images that are not measured; kept for a run that goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from whyfooled._version import __version__
from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import Layer, choose_layers
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.errors import ImageError
from whyfooled.images import content_digest
from whyfooled.registry import describe_value
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    is_count,
    is_number,
    is_text,
    list_of,
    read_record,
    record_of,
    write_record,
)
from whyfooled.sources import class_map
from whyfooled.studies.parts.attacked import FOOLED, outcomes_of, run_or_load_attacks
from whyfooled.studies.parts.held_out import over_batches
from whyfooled.studies.parts.right_images import right_images
from whyfooled.studies.prepare import Setting
from whyfooled.studies.study import Batch
from whyfooled.units.sensitivity import PairMoves, pair_moves

UNITS_FILE = "units.json"
"""The file of a run that keeps the sensitivities: for each attack and layer, one for each unit."""

_UNITS = FileKind(
    "file of unit sensitivities",
    2,
    "whyfooled study neuron-masking",
    {
        "key": is_text,
        "sensitivity": record_of(record_of(list_of(is_number))),
        "pairs": record_of(is_count),
        "passes": list_of(is_count),
        "notes": list_of(is_text),
        "images": list_of(is_text),
    },
)


@final
@dataclass(frozen=True, eq=False)
class RankedUnits:
    """The units of some layers, and how sensitive they are.

    Parameters
    ----------
    layers
        The layers.
    sensitivity
        For each attack, as on the command line, and each layer, by name, the units' sensitivities.
    pairs
        For each attack, of how many images with their adversarial ones.
    digests
        The contents of all images that were looked at.
    passes
        What it took.
    notes
        What a reader should know.
    """

    layers: tuple[Layer, ...]
    sensitivity: Mapping[str, Mapping[str, Sequence[float]]]
    pairs: Mapping[str, int]
    digests: frozenset[str]
    passes: Passes
    notes: tuple[str, ...] = ()

    def order(self, attack: str, layer: str) -> Tensor:
        """Return (u,) a layer's units from the most sensitive one to the least; of equal ones the first comes first."""
        values = torch.tensor(self.sensitivity[attack][layer], dtype=torch.float64)
        return values.argsort(descending=True, stable=True)


def rank_units(
    setting: Setting,
    places: Sequence[int],
    layers: Sequence[str],
    attacks: Sequence[Any],
    target: str | None,
    file: str = UNITS_FILE,
) -> RankedUnits:
    """Measure each unit's sensitivity to each attack, on the images at some places; or read what was measured before.

    That is kept in a file of the run.

    The pairs are those in which the classifier gets the clean image right, and is fooled.

    Raises
    ------
    ParameterError
        If there is no such layer, or it has no units with places.
    ImageError
        If no attack fools the classifier on any of the images.
    """
    path, key = setting.folder / file, _key(setting, places, layers, attacks, target)
    chosen = choose_layers(setting.classifier, layers)
    kept = _read(path, key)
    if kept is None:
        kept = {"key": key, **_measure(setting, places, chosen, attacks, target)}
        write_record(path, _UNITS, kept)
    images, passes = frozenset(kept["images"]), Passes(*kept["passes"])
    return RankedUnits(chosen, kept["sensitivity"], kept["pairs"], images, passes, tuple(kept["notes"]))


def _measure(
    setting: Setting, places: Sequence[int], layers: Sequence[Layer], attacks: Sequence[Any], target: str | None
) -> dict[str, Any]:
    classifier = setting.classifier

    def look(batch: Batch) -> tuple[list[str], dict[str, dict[str, PairMoves]]]:
        return list(map(content_digest, batch.images)), _measure_moves(classifier, layers, batch, attacks, target)

    with count_passes(classifier) as passes:
        looks, notes = over_batches(setting, places, look, "unit sensitivities")
    sensitivity: dict[str, dict[str, list[float]]] = {}
    pairs: dict[str, int] = {}
    for name in setting.source.attacks or tuple(map(describe_value, attacks)):
        batches = [moves[name] for _, moves in looks if name in moves]
        if not batches:
            reason = "it fooled the classifier on none of the images that sensitivities are measured on"
            notes.append(f"{name} was left out, because {reason}.")
            continue
        joined = {layer.name: PairMoves.join([moves[layer.name] for moves in batches]) for layer in layers}
        sensitivity[name] = {layer: moves.relative().mean(0).tolist() for layer, moves in joined.items()}
        pairs[name] = len(joined[layers[0].name].distance)
    if not pairs:
        raise ImageError(
            f"No attack fooled the classifier on any of the {len(places)} images that sensitivities are measured on, "
            f"so no unit can be called sensitive. Take a stronger one, or more images."
            + "".join(f" {note}" for note in notes[:1])
        )
    return {
        "sensitivity": sensitivity,
        "pairs": pairs,
        "passes": [passes.forwards, passes.backwards],
        "notes": notes,
        "images": sorted({digest for digests, _ in looks for digest in digests}),
    }


def _measure_moves(
    classifier: Classifier, layers: Sequence[Layer], batch: Batch, attacks: Sequence[Any], target: str | None
) -> dict[str, dict[str, PairMoves]]:
    """Measure the pairs of each attack that fooled the classifier, by layers."""
    right = right_images(classifier, batch)
    moves: dict[str, dict[str, PairMoves]] = {}
    for name, result in run_or_load_attacks(classifier, right.batch, attacks, target) if right.places else ():
        kinds = outcomes_of(right.batch, result)
        fooled = torch.tensor([kind == FOOLED for kind in kinds], device=result.clean.device)
        if fooled.any():
            moves[name] = pair_moves(classifier, layers, result.clean[fooled], result.attempted[fooled])
    return moves


def _key(
    setting: Setting, places: Sequence[int], layers: Sequence[str], attacks: Sequence[Any], target: str | None
) -> str:
    """Return a digest of everything that the sensitivities depend on."""
    about = [
        __version__,
        list(places),
        list(layers),
        describe_value(tuple(attacks)),
        target,
        setting.classifier.digest(),
        str(setting.classifier.fit),
        setting.source.digest(),
        class_map(setting.source, setting.classifier),
        setting.seed,
        setting.batch_size,
    ]
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """Read what was measured before; None if it is missing, damaged or of something else."""
    with suppress(OSError, DamagedError, ImageError):
        kept = read_record(path, _UNITS)
        if kept["key"] == key:
            return kept
    return None
