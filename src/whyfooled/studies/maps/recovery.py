"""Whether removing what a saliency method points at brings the right answer back (Gu & Tresp 2019, fig. 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.attacks import AttackResult, CarliniWagner
from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.curves import curves_figure
from whyfooled.drawing.summary import Summary, SummaryTable
from whyfooled.errors import MethodError, ParameterError, at_least, bad_parameter, one_of
from whyfooled.registry import Card
from whyfooled.saliency import Enhanced
from whyfooled.saliency.recovery import FRACTIONS, random_maps, recovery_curve
from whyfooled.studies.parts.attacked import (
    ALREADY_WRONG,
    FOOLED,
    attacked,
    check_attacks,
    check_some_fooled,
    check_target,
    outcomes,
)
from whyfooled.studies.parts.defaults import METHODS
from whyfooled.studies.parts.maps import compute_maps, scatter_maps
from whyfooled.studies.parts.over_images import by_image, check_some_method, differences, highest, means
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.tensors.fills import FILLS, Fill
from whyfooled.tensors.statistics import FEWEST, Interval

RANDOM, SIZE = "Random order", "Size of the perturbation"
_FILL_TITLES = {"zero": "black", "mean": "the image's mean", "noise": "uniform noise", "blur": "blurred"}


@final
@dataclass(frozen=True)
class Recovery(Study):
    """Perturb the most salient pixels of adversarial images, and see how often the true class is predicted again.

    Each method ranks the pixels by its map of the wrong class on the adversarial image (enhanced methods hold it
    against the true class). A random order and the size of the perturbation itself are the references.

    Parameters
    ----------
    attack
        What fools the classifier; not used on saved adversarial images.
    target
        ``"random"``, ``"least-likely"`` or ``"runner-up"``; any wrong class if None.
    methods
        Saliency methods.
    fills
        What perturbed pixels become; see `whyfooled.tensors.measures.recovery_curve`.
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
        for fill in self.fills:
            one_of("fills", fill, FILLS)
        if not self.fills:
            raise ParameterError("`fills` must have at least one entry.")
        ascending = list(self.fractions) == sorted(set(self.fractions))
        if not self.fractions or not ascending or not 0 < self.fractions[0] <= self.fractions[-1] <= 1:
            raise bad_parameter("fractions", "must be ascending shares, above 0 and at most 1", list(self.fractions))
        at_least("random_orders", self.random_orders, 1)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, compute the maps, perturb and predict."""
        ((_, result),) = attacked(classifier, batch, [self.attack], self.target)
        true = batch.true_classes(result.clean_logits.argmax(1))
        found = outcomes(batch, result)
        places = [place for place, outcome in enumerate(found) if outcome == FOOLED]
        rows: list[dict[str, Any]] = [
            {"place": place, "outcome": outcome} for place, outcome in enumerate(found) if outcome != FOOLED
        ]
        maps: dict[str, Tensor] = {}
        if places:
            chosen = torch.tensor(places, device=true.device)
            fooled = result.select(chosen)
            sizes = (fooled.attempted - fooled.clean).flatten(1).norm(dim=1).tolist()
            common = [
                {"place": place, "outcome": FOOLED, "l2": size} for place, size in zip(places, sizes, strict=True)
            ]
            for name, orders in self._orders(classifier, fooled, true[chosen], batch.seed):
                if isinstance(orders, MethodError):
                    rows += [{**one, "method": name, "error": f"{name}: {orders}"} for one in common]
                    continue
                maps[name] = orders[0]
                rows += self._recover(classifier, fooled, true[chosen], name, orders, common, batch.seed)
        return Measured(rows, {name: scatter_maps(one, places, len(found)) for name, one in maps.items()})

    def _orders(
        self, classifier: Classifier, result: AttackResult, true: Tensor, seed: int
    ) -> Iterator[tuple[str, list[Tensor] | MethodError]]:
        # Not `adversarial`, which is the clean image where another class than the target was reached.
        for name, maps in compute_maps(self.methods, classifier, result.attempted, result.predictions, true):
            yield name, maps if isinstance(maps, MethodError) else [maps]
        yield SIZE, [(result.attempted - result.clean).abs()]
        yield RANDOM, [random_maps(result.clean, seed + number) for number in range(self.random_orders)]

    def _recover(
        self,
        classifier: Classifier,
        result: AttackResult,
        true: Tensor,
        name: str,
        orders: list[Tensor],
        common: Sequence[dict[str, Any]],
        seed: int,
    ) -> Iterator[dict[str, Any]]:
        for fill in self.fills:
            curves = [
                recovery_curve(
                    classifier,
                    result.attempted,
                    true,
                    maps,
                    fractions=self.fractions,
                    fill=fill,
                    origin=result.clean,
                    seed=seed,
                )
                for maps in orders
            ]
            recovered = torch.stack([curve.recovered.double() for curve in curves]).mean(0).tolist()
            probability = torch.stack([curve.probability.double() for curve in curves]).mean(0).tolist()
            for number, one in enumerate(common):
                for point, fraction in enumerate(self.fractions):
                    yield {
                        **one,
                        "method": name,
                        "fill": fill,
                        "fraction": fraction,
                        "recovered": recovered[number][point],
                        "probability": probability[number][point],
                    }

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take the recovery of the first method, under the first fill."""
        measured = [row for row in rows if "fill" in row]
        look = [(row["method"], row["fill"]) for row in measured]
        return [row["recovered"] for row, one in zip(measured, look, strict=True) if one == look[0]]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means over the shares of pixels, for every fill; areas under the curves; paired differences to the best."""
        sentences, tables = [_who_was_fooled(table)], []
        check_some_method(table, references=(RANDOM, SIZE))
        for fill in _fills(table):
            rows = _of(table, fill)
            names, values = by_image(rows, "method", "recovered")
            found = means(names, values, seed)
            chance = differences(names, values, RANDOM, seed)
            sentences.append(_verdict(fill, found, chance))
            tables.append(_fill_table(fill, rows, names, values, found, chance, seed))
        return Summary(tuple(sentences), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw the curves with their intervals, a panel for each fill."""
        panels = {}
        for fill in _fills(table):
            rows = _of(table, fill)
            fractions = sorted(rows["fraction"].unique())
            panels[f"pixels become {_FILL_TITLES[fill]}"] = _points(rows, fractions, seed)
        return curves_figure(
            panels,
            x="perturbed pixels, most salient first (%)",
            y="given the true class again",
            references=(RANDOM, SIZE),
        )


def _fills(table: Table) -> list[str]:
    fills = table.read(["fill"])["fill"].dropna().unique()
    return [str(fill) for fill in fills]


def _of(table: Table, fill: str) -> pd.DataFrame:
    return table.read(["index", "method", "fraction", "recovered"], [("fill", "==", fill)])


def _who_was_fooled(table: Table) -> str:
    outcome = table.read(["index", "outcome"]).drop_duplicates("index")["outcome"]
    check_some_fooled(outcome)
    counts = outcome.value_counts()
    fooled, tried = int(counts.get(FOOLED, 0)), int(counts.sum())
    text = f"{fooled} of {tried} images fool the classifier and are measured"
    already, failed = int(counts.get(ALREADY_WRONG, 0)), tried - fooled - int(counts.get(ALREADY_WRONG, 0))
    return f"{text}; {already} were taken for a wrong class before the attack, on {failed} it failed."


def _points(rows: pd.DataFrame, fractions: Sequence[float], seed: int) -> dict[str, list[tuple[float, Interval]]]:
    """Return each method's curve: the share of perturbed pixels in per cent, and the share that recovers."""
    curves: dict[str, list[tuple[float, Interval]]] = {str(name): [] for name in rows["method"].unique()}
    for fraction in fractions:
        for name, value in means(*by_image(rows[rows["fraction"] == fraction], "method", "recovered"), seed).items():
            curves[name].append((100 * fraction, value))
    return curves


def _fill_table(
    fill: str,
    rows: pd.DataFrame,
    names: list[str],
    values: Tensor,
    found: dict[str, Interval],
    chance: dict[str, Interval],
    seed: int,
) -> SummaryTable:
    best = _best(found)
    against = differences(names, values, best, seed)
    areas = means(*by_image(_areas(rows), "method", "area"), seed)
    first, second = f"minus {best}", f"minus {RANDOM.lower()}"
    last = 100 * rows["fraction"].max()
    return SummaryTable(
        f"Pixels become {_FILL_TITLES[fill]}. Recovered: the share of the adversarial images that are given their true "
        "class again, averaged over the shares of perturbed pixels; its paired differences; and the area under the "
        f"curve from 0 to {last:g} % of the pixels (trapezoids; 1 if every image recovered at once).",
        ("order of the pixels", "recovered", first, second, "area"),
        [
            (
                name,
                found[name],
                None if name == best else against[name],
                None if name == RANDOM else chance[name],
                areas[name],
            )
            for name in sorted(names, key=lambda name: -found[name].mean)
        ],
        signed=frozenset({first, second}),
    )


def _best(found: dict[str, Interval]) -> str:
    return highest({name: value for name, value in found.items() if name not in (RANDOM, SIZE)})


def _verdict(fill: str, found: dict[str, Interval], chance: dict[str, Interval]) -> str:
    methods = [name for name in found if name not in (RANDOM, SIZE)]
    better = sum(chance[name].low > 0 for name in methods)
    worse = sum(chance[name].high < 0 for name in methods)
    best = _best(found)
    text = (
        f"When pixels become {_FILL_TITLES[fill]}: the highest is {best}, {found[best]} (random order {found[RANDOM]})."
    )
    if found[best].count < FEWEST:
        count = found[best].count
        return f"{text} Of {count} images nothing can be said about which methods are better than a random order."
    return (
        f"{text} Of {len(methods)} methods {better} are better than a random order and {worse} worse, by intervals of "
        "the paired difference that leave out 0."
    )


def _areas(rows: pd.DataFrame) -> pd.DataFrame:
    """Integrate each image's curve over the share of pixels, from 0 (where nothing has recovered)."""
    rows = rows.sort_values(["index", "fraction"], kind="stable")
    curves = rows.groupby(["index", "method"], observed=True, sort=False)
    width = rows["fraction"] - curves["fraction"].shift(fill_value=0)
    middle = (rows["recovered"] + curves["recovered"].shift(fill_value=0)) / 2
    rows["area"] = width * middle / rows["fraction"].max()
    return rows.groupby(["index", "method"], observed=True, sort=False)["area"].sum().reset_index()
