"""Whether removing what a saliency method points at brings the right answer back (Gu & Tresp 2019, fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from whyfooled.attacks import CarliniWagner
from whyfooled.classifier import Classifier
from whyfooled.classifier.folding import quicken
from whyfooled.errors import MethodError, at_least, bad_parameter, one_of
from whyfooled.registry import Card
from whyfooled.saliency import Enhanced
from whyfooled.saliency.recovery import FRACTIONS, random_maps, recovery_curve
from whyfooled.studies.maps import recovery_account
from whyfooled.studies.parts.attacked import check_attacks, check_target
from whyfooled.studies.parts.defaults import METHODS
from whyfooled.studies.parts.fooled import Fooled, find_fooled
from whyfooled.studies.parts.maps import TitledMaps, compute_maps, make_error_rows, scatter_maps
from whyfooled.studies.study import Batch, Measured, Study, check_entries, check_methods
from whyfooled.studies.table import Columns
from whyfooled.tensors.fills import FILLS, Fill


@final
@dataclass(frozen=True)
class Recovery(Study):
    """Perturb the most salient pixels of adversarial images, and see how often the true class is predicted again.

    Each method ranks the pixels by its map of the wrong class on the adversarial image (enhanced methods contrast it
    with the true class). A random order and the size of the perturbation itself are the references.

    Parameters
    ----------
    attack
        What fools the classifier; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    methods
        Saliency methods.
    fills
        What perturbed pixels become; see `whyfooled.saliency.recovery.recovery_curve`.
    fractions
        Shares of the pixels to perturb, ascending. [ours]
    random_orders
        How many random orders are averaged for each image. [ours]
    """

    attack: Any = field(default_factory=CarliniWagner)
    target: str | None = None
    methods: tuple[Any, ...] = (*METHODS, Enhanced(norm="energy"), Enhanced(norm="max"))
    fills: tuple[Fill, ...] = FILLS
    fractions: tuple[float, ...] = FRACTIONS
    random_orders: int = 5

    card: ClassVar[Card] = Card(
        name="recovery",
        title="Recovery of the true class",
        summary="How often the true class comes back when the pixels that a map points at are removed.",
        source="Gu & Tresp 2019, arXiv 1908.08413, fig. 4",
        cost="the attack, the methods' maps, and a forward pass for each method, fill and share of the pixels",
    )
    columns: ClassVar[Columns] = {
        "outcome": "text",
        "l2": "real",
        "method": "text",
        "fill": "text",
        "fraction": "real",
        "recovered": "real",
        "probability": "real",
    }
    headline: ClassVar[str] = "recovered"

    def __post_init__(self) -> None:
        check_methods(self.methods)
        check_attacks([self.attack])
        check_target(self.target)
        check_entries("fills", self.fills)
        for fill in self.fills:
            one_of("fills", fill, FILLS)
        ascending = list(self.fractions) == sorted(set(self.fractions))
        if not self.fractions or not ascending or not 0 < self.fractions[0] <= self.fractions[-1] <= 1:
            raise bad_parameter("fractions", "must be ascending shares, above 0 and at most 1", list(self.fractions))
        at_least("random_orders", self.random_orders, 1)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, compute the maps, perturb and predict."""
        (fooled,) = find_fooled(classifier, batch, [self.attack], self.target)
        rows = list(fooled.others())
        quick = quicken(classifier, batch.images).module
        kept: dict[str, Tensor] = {}
        size = {"l2": fooled.delta.flatten(1).norm(dim=1)}
        for name, orders in self._order(classifier, fooled, batch.seed) if fooled.places else ():
            if isinstance(orders, MethodError):
                rows += make_error_rows(fooled.rows(size), name, orders)
                continue
            kept[name] = scatter_maps(orders[0], fooled.places, len(batch.images))
            for fill in self.fills:
                recovered, probability = self._recover(classifier, quick, fooled, orders, fill, batch.seed)
                for place, fraction in enumerate(self.fractions):
                    numbers = {"recovered": recovered[:, place], "probability": probability[:, place]}
                    rows += fooled.rows(size | numbers, method=name, fill=fill, fraction=fraction)
        return Measured(rows, kept)

    def _order(self, classifier: Classifier, fooled: Fooled, seed: int) -> TitledMaps:
        """Give (k,m,d,h,w) maps that order the pixels; the recovery is averaged over the k, which are random orders."""
        result = fooled.result
        # Not `adversarial`, which is the clean image where another class than the target was reached.
        for name, maps in compute_maps(self.methods, classifier, result.attempted, result.predictions, fooled.true):
            yield name, maps if isinstance(maps, MethodError) else maps.unsqueeze(0)
        yield recovery_account.SIZE, fooled.delta.abs().unsqueeze(0)
        random = [random_maps(result.clean, seed + number) for number in range(self.random_orders)]
        yield recovery_account.RANDOM, torch.stack(random)

    def _recover(
        self, classifier: Classifier, quick: nn.Module | None, fooled: Fooled, orders: Tensor, fill: Fill, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return (m,f) the shares of the orders that recover, and the probabilities of the true classes."""
        images, origin = fooled.result.attempted, fooled.result.clean
        recover = partial(recovery_curve, fractions=self.fractions, fill=fill, origin=origin, seed=seed, through=quick)
        curves = [recover(classifier, images, fooled.true, maps) for maps in orders]
        recovered, probability = ([getattr(curve, name) for curve in curves] for name in ("recovered", "probability"))
        return torch.stack(recovered).double().mean(0), torch.stack(probability).double().mean(0)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take the recovery of the first method, under the first fill."""
        measured = [row for row in rows if "fill" in row]
        first = [(row["method"], row["fill"]) for row in measured[:1]]
        return [row["recovered"] for row in measured if [(row["method"], row["fill"])] == first]

    summarise = staticmethod(recovery_account.summarise)
    draw = staticmethod(recovery_account.draw)
