"""How far universal perturbations move maps of images they were not fitted to (Ehsani Oskouie & Farnia 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.bands import tradeoff_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import MethodError, at_least, bad_parameter
from whyfooled.registry import Card, title
from whyfooled.saliency import Gradient
from whyfooled.studies.parts.maps import check_none_works
from whyfooled.studies.parts.over_images import check_some_method
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.studies.universal.fits import (
    CHANCE,
    TESTED,
    Fits,
    Fitted,
    Tested,
    ball_text,
    by_chance,
    check_fit,
    check_universal,
    fitting_images,
    looked_at,
    tested,
    who_was_tested,
)
from whyfooled.tensors.balls import Ball
from whyfooled.tensors.statistics import FEWEST, Interval, bootstrap_means, bootstrap_ratio
from whyfooled.universal import UAP, UPIPCA, InterpretationAttack, RandomDirection, UPIGrad, changes
from whyfooled.universal.evaluation import MEASURES, TOP
from whyfooled.universal.maps import interpret

ALONE = "Attack on each image by itself"
REFERENCES = (CHANCE, ALONE)
"""What universal perturbations lie between."""


@final
@dataclass(frozen=True)
class UniversalDissimilarity(Study):
    """Measure what every universal perturbation does to maps and predictions, over radii and saliency methods.

    Each perturbation is held against a random direction of each image's own, as long as the ball's radius. Images that
    the classifier gets wrong do not count. Perturbations that break maps are fitted to each saliency method anew.

    Parameters
    ----------
    methods
        Ways to find a universal perturbation; their radius and ball are the study's.
    epsilons
        The balls' radii, on the scale of `scale`.
    ball
        ``"l2"`` or ``"linf"``.
    scale
        The value of white: 1 for pixel values from 0 to 1, or 255.
    saliency
        Saliency methods whose maps are to change.
    attack_steps
        Steps of an attack on each image by itself, for what a perturbation that is not universal can reach while the
        prediction stays; 0 for none. It takes longer than all other measurements together.
    share
        Share of the pixels that count as the top ones. [ours]
    fit
        Where the images to fit to come from, as the study's own; half of the study's own, drawn at random, if "". No
        image is both fitted to and tested.
    fit_labels
        A CSV file with the labels of the images to fit to, if they are photographs; the study's own file if "".
    fit_count
        How many images to fit to, drawn at random; all if None.
    """

    methods: tuple[Any, ...] = (
        UPIGrad(),
        UPIGrad(penalty=0.1),
        UPIPCA(),
        UPIPCA(contrast=1.0),
        UAP(),
        RandomDirection(),
    )
    epsilons: tuple[float, ...] = (10.0,)
    ball: Ball = "l2"
    scale: int = 1
    saliency: tuple[Any, ...] = (Gradient(),)
    attack_steps: int = 40
    share: float = TOP
    fit: str = ""
    fit_labels: str = ""
    fit_count: int | None = None

    card: ClassVar[Card] = Card(
        name="universal-dissimilarity",
        title="Universal perturbations of maps",
        summary="How far universal perturbations move the maps of images that they were not fitted to.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, tables 1 and 2",
        cost="the fits; for each image and saliency method a map, for each perturbation 2 maps and 2 forwards, and for "
        "each of `attack_steps` 2 maps, one of them differentiated, 1 forward and a gradient",
    )
    columns: ClassVar[Columns] = {
        "saliency": "text",
        "ball": "text",
        "scale": "whole",
        "epsilon": "real",
        "method": "text",
        "clipped": "flag",
        "outcome": "text",
        "fit": "text",
        "fit_images": "whole",
        "share": "real",
        **dict.fromkeys(MEASURES, "real"),
    }
    headline: ClassVar[str] = "D"

    def __post_init__(self) -> None:
        check_universal(self.methods, self.epsilons, self.ball, self.scale)
        check_methods(self.saliency, "saliency")
        check_fit(self.fit, self.fit_labels, self.fit_count)
        at_least("attack_steps", self.attack_steps, 0)
        if not 0 < self.share <= 1:
            raise bad_parameter("share", "must be above 0 and at most 1", self.share)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which images are fitted to."""
        images = fitting_images(setting, self.fit, self.fit_labels, self.fit_count)
        return {"fit_images_digest": images.source.digest()}

    def prepare(self, setting: Setting) -> Prepared:
        """Fit every perturbation."""
        images = looked_at(fitting_images(setting, self.fit, self.fit_labels, self.fit_count), setting)
        fits = Fits(setting)
        found = [
            _Round(title(saliency), epsilon, fits.find(self._sized(method, epsilon), saliency, images), images.origin)
            for saliency in self.saliency
            for epsilon in self.epsilons
            for method in self.methods
        ]
        return Prepared(images.tested, found, fits.passes, images.notes)

    def _sized(self, method: Any, epsilon: float) -> Any:
        return replace(method, epsilon=epsilon, ball=self.ball, scale=self.scale)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Compute each image's maps with and without every perturbation, and how far they lie apart."""
        some = tested(classifier, batch)
        rows: list[dict[str, Any]] = list(some.wrong())
        if some.places:
            for saliency in self.saliency:
                try:
                    rows += self._changes(saliency, classifier, batch, some)
                except MethodError as error:
                    check_none_works(error, saliency, classifier, some.images, some.classes)
                    reason = {"saliency": title(saliency), "error": f"{title(saliency)}: {error}"}
                    rows += some.rows(reason)
        return Measured(rows)

    def _changes(self, saliency: Any, classifier: Classifier, batch: Batch, some: Tested) -> list[dict[str, Any]]:
        """Measure every perturbation of a saliency method's maps, brought back to [0, 1] and not."""
        clean = interpret(saliency, classifier, some.images, some.classes)
        rows: list[dict[str, Any]] = []
        for about, moved in self._perturbed(saliency, classifier, batch, some):
            if moved is None:
                rows += some.rows(about)
                continue
            for clipped in (False, True):
                now = moved.clamp(0, 1) if clipped else moved
                found = changes(saliency, classifier, some.images, some.classes, now, clean=clean, share=self.share)
                rows += some.rows({**about, "clipped": clipped, **found})
        return rows

    def _perturbed(
        self, saliency: Any, classifier: Classifier, batch: Batch, some: Tested
    ) -> Iterator[tuple[dict[str, Any], Tensor | None]]:
        """Yield for every perturbation what it is, and the images with it; None if it could not be found."""
        shared = {"saliency": title(saliency), "ball": self.ball, "scale": self.scale, "share": self.share}
        for epsilon in self.epsilons:
            for one in batch.prepared:
                if (one.saliency, one.epsilon) == (title(saliency), epsilon):
                    found = one.fitted.perturbation
                    moved = None if found is None else found.apply(some.images, clip=False)
                    yield {**shared, "epsilon": epsilon, **one.about()}, moved
            by_itself = by_chance(some.images, epsilon, self.ball, self.scale, batch.seed)
            yield {**shared, "epsilon": epsilon, "method": CHANCE}, by_itself
            if self.attack_steps:
                about = {**shared, "epsilon": epsilon, "method": ALONE}
                yield self._alone(saliency, classifier, batch, some, about)

    def _alone(
        self, saliency: Any, classifier: Classifier, batch: Batch, some: Tested, about: dict[str, Any]
    ) -> tuple[dict[str, Any], Tensor | None]:
        attack = InterpretationAttack(
            epsilon=about["epsilon"],
            ball=self.ball,
            scale=self.scale,
            seed=batch.seed,
            steps=self.attack_steps,
            clip=False,
        )
        try:
            return about, attack(classifier, some.images, some.classes, saliency)
        except MethodError as error:
            check_none_works(error, partial(_attacked, attack, saliency), classifier, some.images, some.classes)
            return {**about, "error": f"{ALONE}: {error}"}, None

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D under the first perturbation."""
        measured = [row for row in rows if "dissimilarity" in row and not row["clipped"]]
        first = measured[0] if measured else {}
        keys = ("saliency", "epsilon", "method")
        return [row["dissimilarity"] for row in measured if all(row[key] == first[key] for key in keys)]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means of all measures for every perturbation, and what they are beside chance."""
        rows = table.read()
        who = who_was_tested(rows, table.images)
        check_some_method(table, REFERENCES)
        found = _compared(rows, seed)
        first = rows[rows["method"].notna()].iloc[0]
        what = (
            "D is how far the normalised map of an image moves, relative to the map; 0 is not at all. "
            f"Epsilon is the {ball_text(str(first['ball']), int(first['scale']))}. "
            f"“{CHANCE}” is as long, and what every perturbation is held against."
        )
        groups: dict[tuple[str, float], list[_Compared]] = {}
        for one in found:
            if not one.clipped:
                groups.setdefault((one.saliency, one.epsilon), []).append(one)
        verdicts = [_verdict(saliency, epsilon, own) for (saliency, epsilon), own in groups.items()]
        tables = [
            _table(saliency, [one for one in found if one.saliency == saliency], float(first["share"]), clipped)
            for clipped in (False, True)
            for saliency in dict.fromkeys(one.saliency for one in found)
        ]
        return Summary((who, what, *verdicts), tuple(tables))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw D over the radius, and against the fooling rate, a row for each saliency method."""
        found = [one for one in _compared(table.read(), seed) if not one.clipped]
        panels: dict[str, Any] = {}
        for saliency in dict.fromkeys(one.saliency for one in found):
            curves: dict[str, list[tuple[float, Interval]]] = {}
            lines: dict[str, list[tuple[Interval, Interval]]] = {}
            for one in found:
                if one.saliency == saliency:
                    curves.setdefault(one.method, []).append((one.epsilon, one.means["dissimilarity"]))
                    if one.method == ALONE:
                        # It keeps the class by its making, and would press the others together.
                        continue
                    lines.setdefault(one.method, []).append((one.means["fooled"], one.means["dissimilarity"]))
            panels[f"maps of {saliency}"] = curves, lines
        return tradeoff_figure(
            panels, x="epsilon", y="dissimilarity D of the maps", other="fooling rate", references=REFERENCES
        )


def _attacked(
    attack: InterpretationAttack, saliency: Any, classifier: Classifier, images: Tensor, classes: Tensor
) -> Tensor:
    return attack(classifier, images, classes, saliency)


@final
@dataclass(frozen=True, eq=False)
class _Round:
    """A perturbation, and what it was fitted for."""

    saliency: str
    epsilon: float
    fitted: Fitted
    origin: str

    def about(self) -> dict[str, Any]:
        facts = {"method": self.fitted.method, "fit": self.origin, "fit_images": self.fitted.used}
        return facts | ({"error": self.fitted.error} if self.fitted.error else {})


@final
@dataclass(frozen=True)
class _Compared:
    """The means of a perturbation, and how its D stands to chance."""

    saliency: str
    epsilon: float
    method: str
    clipped: bool
    means: Mapping[str, Interval]
    over: Interval
    ratio: Interval
    values: Tensor


def _compared(rows: pd.DataFrame, seed: int) -> list[_Compared]:
    rows = rows[rows["outcome"] == TESTED]
    found = []
    for (saliency, _, clipped), own in rows.groupby(["saliency", "epsilon", "clipped"], observed=True, sort=False):
        parts = {
            str(method): part.set_index("index") for method, part in own.groupby("method", observed=True, sort=False)
        }
        chance = parts[CHANCE]
        for method, part in parts.items():
            values = torch.tensor(part[list(MEASURES)].to_numpy(dtype="float64"))
            both = torch.stack([values[:, 0], torch.tensor(chance.loc[part.index, "dissimilarity"].to_numpy())], dim=1)
            (over,) = bootstrap_means(both[:, :1] - both[:, 1:], seed=seed)
            means = dict(zip(MEASURES, bootstrap_means(values, seed=seed), strict=True))
            ratio = bootstrap_ratio(both, seed=seed)
            radius = float(own["epsilon"].iloc[0])
            found.append(_Compared(str(saliency), radius, method, bool(clipped), means, over, ratio, both[:, 0]))
    return found


def _verdict(saliency: str, epsilon: float, found: Sequence[_Compared]) -> str:
    """Say which perturbation moves the maps most, and how each stands to chance."""
    where = f"Maps of {saliency}, epsilon {epsilon:g}:"
    universal = [one for one in found if one.method not in REFERENCES]
    ranked = sorted(universal, key=lambda one: one.means["dissimilarity"].mean, reverse=True)
    if not ranked:
        return f"{where} no perturbation was measured."
    if ranked[0].over.count < FEWEST:
        return f"{where} of fewer than {FEWEST} images nothing can be said."
    best, chance = ranked[0], next(one for one in found if one.method == CHANCE)
    text = (
        f"{where} the largest D is {best.means['dissimilarity']} ({best.method}), {best.ratio} times chance's "
        f"{chance.means['dissimilarity'].mean:.3f}"
    )
    if len(ranked) > 1:
        second = ranked[1]
        (lead,) = bootstrap_means((best.values - second.values)[:, None])
        sure = "more" if lead.low > 0 else "not surely more"
        text += f", and {sure} than that of {second.method} (by {lead.format(sign=True)})"
    text = f"{text}. {_beside_chance(ranked)} {_predictions(ranked, chance)}"
    alone = [one.means["dissimilarity"] for one in found if one.method == ALONE]
    return f"{text} An attack on each image by itself that keeps its class reaches {alone[0]}." if alone else text


def _beside_chance(found: Sequence[_Compared]) -> str:
    kinds = {
        "above chance": [one.method for one in found if one.over.low > 0],
        "below it": [one.method for one in found if one.over.high < 0],
        "not to be told from it": [one.method for one in found if one.over.low <= 0 <= one.over.high],
    }
    told = "; ".join(f"{kind}: {', '.join(methods) or 'none'}" for kind, methods in kinds.items())
    return f"By paired intervals that leave out 0, {told}."


def _predictions(found: Sequence[_Compared], chance: _Compared) -> str:
    rates = [f"{one.means['fooled'].mean:.0%} ({one.method})" for one in found]
    return f"Of the predictions change {', '.join(rates)}, by chance {chance.means['fooled'].mean:.0%}."


def _table(saliency: str, found: Sequence[_Compared], share: float, clipped: bool) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for one in found:
        if one.clipped == clipped:
            first, *others = one.means.values()
            beside = (None, None) if one.method == CHANCE else (one.over, one.ratio)
            lines.append((f"{one.epsilon:g}", one.method, first, *beside, *others))
    values = "brought back to [0, 1]" if clipped else "as they are, outside of [0, 1] too"
    caption = (
        f"What perturbations do to the maps of {saliency}, and to predictions; the images' values {values}. Minus "
        f"chance: the paired difference of D. Top pixels: {share:.0%}, as many as maps have in common by chance."
    )
    head, *rest = MEASURES.values()
    columns = ("epsilon", "perturbation", head, "minus chance", "over chance", *rest)
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
