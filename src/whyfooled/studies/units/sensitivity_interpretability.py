"""Whether the units that attacks move most are those that detect concepts (Xu et al. 2019).

A unit that moves under an attack may be one that moves under anything. So noise of the perturbation's size is measured
beside it, and units are ranked by what the attack does beyond that, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from matplotlib.figure import Figure

from whyfooled.classifier import Classifier
from whyfooled.classifier.layers import Layer
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import at_least, bad_parameter
from whyfooled.registry import Card
from whyfooled.studies.parts.attacked import FOOLED, check_attacks, check_target
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, fooled_by, fooled_headline, who_was_fooled
from whyfooled.studies.parts.over_images import by_image, means
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study
from whyfooled.studies.table import Columns, Table
from whyfooled.studies.units.curves import curves, unit_curves_figure
from whyfooled.studies.units.links import ATTACK, FACTS, GRID, MOVES, NOISE, packed, read_units
from whyfooled.studies.units.words import LEVEL, link_rows, ranked, size_rows, unit_rows, verdict
from whyfooled.tensors.randomness import add_noise
from whyfooled.tensors.statistics import Interval
from whyfooled.types import Images
from whyfooled.units import load_dissection
from whyfooled.units.changes import check_dissection
from whyfooled.units.dissection.dissection import Dissection
from whyfooled.units.dissection.results import DissectedLayer
from whyfooled.units.sensitivity import PairMoves, pair_moves


@final
@dataclass(frozen=True)
class SensitivityInterpretability(Study):
    """Hold the units that an attack moves most against the others, in how well they detect concepts.

    For each image that fools the classifier, how far the perturbation moves each unit's activation map; a unit's
    sensitivity is the mean over them, over its standard deviation on the clean images, as
    `whyfooled.units.unit_sensitivity` has it. What units detect is read from a dissection. The exact form of the
    sensitivity is ours, and so are the tests: the paper draws the share of detectors among the most sensitive units.

    Parameters
    ----------
    dissection
        A folder that ``whyfooled dissect`` wrote, of the classifier that is attacked.
    attacks
        What fools the classifier; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    layers
        Which of the dissected layers, by name; all if empty.
    control
        Whether to measure noise too, which has the perturbation's ℓ2 norm and nothing else in common with it. [ours]
    shares
        How many of the most sensitive units are held against the rest, as shares of a layer's living units. [ours]
    counts
        The same, as numbers of units. [ours]
    permutations
        How often what units detect is dealt to other units, for p-values. [ours]
    """

    dissection: str = ""
    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    layers: tuple[str, ...] = ()
    control: bool = True
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    counts: tuple[int, ...] = (10, 50)
    permutations: int = 1000

    card: ClassVar[Card] = Card(
        name="sensitivity-interpretability",
        title="Sensitive and interpretable units",
        summary="Whether the units that attacks move most are those that detect concepts.",
        source="Xu et al. 2019, arXiv 1904.02057, network level",
        cost="the attacks, and 2 forward passes for each image that fools; twice that with the control",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "perturbation": "text",
        "layer": "text",
        "l2": "real",
        **dict.fromkeys((*MOVES, *FACTS, *GRID), "bytes"),
        "permutations": "whole",
    }
    headline: ClassVar[str] = "fooled"

    def __post_init__(self) -> None:
        check_attacks(self.attacks)
        check_target(self.target)
        at_least("permutations", self.permutations, 1)
        if not all(0 < share < 1 for share in self.shares):
            raise bad_parameter("shares", "must be between 0 and 1", list(self.shares))
        if not all(count >= 1 for count in self.counts):
            raise bad_parameter("counts", "must be at least 1", list(self.counts))
        if not self.shares and not self.counts:
            raise bad_parameter("shares", "must have an entry, or `counts`", "none")

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which dissection it is, by what is taken from it."""
        digest = hashlib.blake2b(digest_size=16)
        for layer, facts in self._dissected(setting.classifier)[1]:
            digest.update(layer.name.encode() + b"".join(facts.values()))
        return {"dissection_digest": digest.hexdigest()}

    def prepare(self, setting: Setting) -> Prepared:
        """Read the dissection."""
        found, carried = self._dissected(setting.classifier)
        concepts = found.parameters.get("concepts", "concepts")
        note = f"The units were dissected on {len(found.images)} images ({concepts}); cutoff of the IoU {found.cutoff}."
        return Prepared(setting.places, carried, notes=(note,))

    def _dissected(self, classifier: Classifier) -> tuple[Dissection, _Carried]:
        """Read the dissection, and take from it what the rows carry of each layer."""
        if not self.dissection:
            raise bad_parameter(
                "dissection", "must be a folder that `whyfooled dissect` wrote", repr(""), "Make one of this model."
            )
        found = load_dissection(self.dissection)
        check_dissection(classifier, found)
        layers = [found[name] for name in dict.fromkeys(self.layers)] or found.layers
        return found, tuple((one.layer, _facts(one, found.cutoff)) for one in layers)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, and see how far each perturbation, and noise of its size, moves every unit."""
        rows: list[dict[str, Any]] = []
        for fooled in fooled_by(classifier, batch, self.attacks, self.target):
            rows += fooled.others()
            if fooled.places:
                rows += self._moved(classifier, fooled, batch)
        return Measured(rows)

    def _moved(self, classifier: Classifier, fooled: Fooled, batch: Batch) -> Iterator[dict[str, Any]]:
        clean, carried = fooled.result.clean, batch.prepared
        changed = {ATTACK: fooled.result.attempted}
        if self.control:
            changed[NOISE] = _noisy(clean, fooled.result.attempted, batch.seed)
        for kind, images in changed.items():
            l2 = (images - clean).double().flatten(1).norm(dim=1)
            moves = pair_moves(classifier, [layer for layer, _ in carried], clean, images)
            for layer, facts in carried:
                rows = fooled.rows({"l2": l2}, perturbation=kind, layer=layer.name, **facts, **self._asked())
                for row, own in zip(rows, _by_pair(moves[layer.name]), strict=True):
                    yield row | own

    def _asked(self) -> dict[str, Any]:
        """Return what the table must hold to be written up by itself."""
        return {"shares": packed(self.shares), "counts": packed(self.counts), "permutations": self.permutations}

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image whether it fools the classifier."""
        return fooled_headline(rows)

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Correlations, the most sensitive units against the rest, and for each layer and attack what they say."""
        layers = list(read_units(table))
        linked, tops = (list[tuple[Cell, ...]]() for _ in range(2))
        verdicts: list[str] = []
        for own in layers:
            found = ranked(own, seed)
            linked += link_rows(own, found)
            tops += size_rows(own, found)
            verdicts.append(verdict(own, found))
        tables = [_table(_UNITS, _UNIT_COLUMNS, unit_rows(layers)), _table(_LINKS, _LINK_COLUMNS, linked)]
        if tops:
            tables.append(_table(_TOPS, _TOP_COLUMNS, tops))
        who = f"{who_was_fooled(table)} Mean ℓ2 norm of the perturbations: {_sizes(table, seed)}."
        return Summary((who, _SENSITIVITY, _HOW_SURE, *verdicts), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw, for each layer, the share of detectors and the mean IoU among the N most sensitive units, over N."""
        columns: dict[str, dict[str, dict[str, Any]]] = {}
        for own in read_units(table):
            column = columns.setdefault(own.layer, {"share of detectors": {}, "mean of the best IoU": {}})
            for panel, values in zip(column.values(), (own.detector.double(), own.iou), strict=True):
                panel[own.attack] = curves(own, values, seed)
        return unit_curves_figure(columns, x="most sensitive units, % of the layer's")


_Carried = tuple[tuple[Layer, Mapping[str, bytes]], ...]


def _facts(one: DissectedLayer, cutoff: float) -> dict[str, bytes]:
    chance = one.null_iou.double()
    return {
        "iou": packed(one.best_iou),
        "chance_iou": packed(chance.mean(0)),
        "detector": packed(one.detectors(cutoff)),
        "chance_detector": packed((chance > cutoff).double().mean(0) if len(chance) else chance.mean(0)),
        "dead": packed(one.dead),
    }


def _by_pair(moves: PairMoves) -> Iterator[dict[str, bytes]]:
    return ({name: packed(getattr(moves, name)[number]) for name in MOVES} for number in range(len(moves.distance)))


def _noisy(clean: Images, changed: Images, seed: int) -> Images:
    """Add noise to the clean images that is as large (ℓ2) as the perturbation, as far as the bounds of images allow."""
    sizes = (changed - clean).double().flatten(1).norm(dim=1).tolist()
    return torch.cat([add_noise(one, size, seed) for one, size in zip(torch.split(clean, 1), sizes, strict=True)])


def _sizes(table: Table, seed: int) -> str:
    """Say how large each attack's perturbations are, and the noise that should be as large."""
    rows = table.read(["index", "attack", "perturbation", "l2"], [("outcome", "==", FOOLED)])
    found: dict[str, dict[str, Interval]] = {
        str(kind): means(*by_image(own, "attack", "l2"), seed)
        for kind, own in rows.groupby("perturbation", observed=True, sort=False)
    }
    noise = {attack: f" (noise: {size})" for attack, size in found.get(NOISE, {}).items()}
    return ", ".join(f"{attack} {size}{noise.get(attack, '')}" for attack, size in found[ATTACK].items())


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> SummaryTable:
    signed = frozenset(name for name in columns if name.endswith("difference") or name == "minus noise")
    return SummaryTable(caption, tuple(columns), rows, signed=signed)


_SENSITIVITY = (
    "A unit's sensitivity is the mean over images of how far its map moves (ℓ2 norm), over its standard deviation on "
    "the clean images."
)
_HOW_SURE = (
    "Two tests ask whether the sensitive units are the interpretable ones. Over N: the N most sensitive units against "
    "the rest, in the share of detectors and in the mean of the best IoU, corrected (Holm) for these comparisons. By "
    "rank: Spearman's correlation of sensitivity with the best IoU. Both p-values are over units: how often chance "
    "goes as far when what a layer's units detect is dealt to other units of it. Neither is corrected for layers and "
    "attacks, and neither is over models. Intervals are over images, for these units and this dissection (basic "
    "bootstrap). How well a ranking repeats is the correlation of the rankings by two halves of the images, as if each "
    "half had all of them; where it is low, correlations are drawn towards 0 and their intervals are too narrow. Units "
    "that give the same everywhere are left out."
)
_UNITS = (
    "The units. Detectors are those whose best IoU is above the cutoff; by chance: when annotations are dealt to other "
    "images."
)
_UNIT_COLUMNS = (
    *("layer", "attack", "units", "living", "detectors", "detectors by chance"),
    *("mean best IoU", "mean best IoU by chance"),
)
_LINKS = (
    "How the ranking of the living units goes with what they detect: Spearman's correlation with the best IoU, and its "
    "p; the smallest p over N, after Holm; the correlation minus that of noise; the correlation with the IoU less what "
    "chance gives, and with the unit's standard deviation taken out; how often a detector is ranked above another unit "
    "(AUROC). And with the unit's activity: its standard deviation, and its evenness, which is its squared mean over "
    "its mean square: 1 for a unit that is on everywhere alike, near 0 for one that is seldom on. Repeatability: how "
    "well the ranking agrees with that of as many other images."
)
_LINK_COLUMNS = (
    *("layer", "ranked by sensitivity to", "IoU", "p", "smallest p over N", "minus noise", "IoU above chance"),
    *("IoU, given deviation", "AUROC of detectors", "deviation", "evenness", "repeatability"),
)
_TOPS = (
    "The N most sensitive units against the rest, in the share of detectors and in the mean of the best IoU: the N at "
    f"which one of the two passes Holm (p under {LEVEL}). The figure has the curves over N."
)
_TOP_COLUMNS = (
    *("layer", "ranked by sensitivity to", "N", "detectors", "in the rest", "difference", "p", "p after Holm"),
    *("IoU", "of the rest", "IoU difference", "IoU p", "IoU p after Holm"),
)
