"""How many images it takes to find a universal perturbation (Ehsani Oskouie & Farnia 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure

from whyfooled.classifier import Classifier
from whyfooled.drawing.figures.bands import bands_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import ImageError, ParameterError, at_least
from whyfooled.registry import Card
from whyfooled.saliency import Gradient
from whyfooled.studies.parts.over_images import check_some_method
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.studies.universal.fits import (
    CHANCE,
    TESTED,
    Fits,
    Fitted,
    FittingImages,
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
from whyfooled.tensors.randomness import choose
from whyfooled.tensors.statistics import FEWEST, Interval, bootstrap_means
from whyfooled.types import Images
from whyfooled.universal import UPIPCA, UPIGrad, changes
from whyfooled.universal.maps import interpret

_SALIENCY = Gradient()
_MEASURES = ("dissimilarity", "fooled")


@final
@dataclass(frozen=True)
class FitSize(Study):
    """Measure how far the maps of test images move, over the number of images that perturbations are fitted to.

    For each size and repeat, so many images are drawn at random; in one repeat, a smaller draw is part of a larger one.
    A repeat changes the draw and the method's own seed.

    Parameters
    ----------
    methods
        Ways to find a universal perturbation; their radius and ball are the study's.
    sizes
        Numbers of images to fit to, before those that the classifier gets wrong are left out.
    repeats
        How many times images are drawn for each size.
    saliency
        The saliency method whose maps are to change.
    epsilon
        The ball's radius, on the scale of `scale`.
    ball
        ``"l2"`` or ``"linf"``.
    scale
        The value of white: 1 for pixel values from 0 to 1, or 255.
    fit
        Where the images to fit to come from, as the study's own; half of the study's own, drawn at random, if "".
    fit_labels
        A CSV file with the labels of the images to fit to, if they are photographs; the study's own file if "".
    """

    methods: tuple[Any, ...] = (UPIGrad(), UPIPCA())
    sizes: tuple[int, ...] = (8, 32, 128, 512)
    repeats: int = 3
    saliency: Any = _SALIENCY
    epsilon: float = 10.0
    ball: Ball = "l2"
    scale: int = 1
    fit: str = ""
    fit_labels: str = ""

    card: ClassVar[Card] = Card(
        name="fit-size",
        title="How many images a universal perturbation takes",
        summary="How far maps of test images move, over the number of images that perturbations are fitted to.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, sec. 5",
        cost="a fit for each method, size and repeat; for each image a map, and for each fit 1 map and 1 forward",
    )
    columns: ClassVar[Columns] = {
        "ball": "text",
        "scale": "whole",
        "epsilon": "real",
        "method": "text",
        "size": "whole",
        "repeat": "whole",
        "outcome": "text",
        "fit": "text",
        "fit_images": "whole",
        **dict.fromkeys(_MEASURES, "real"),
    }
    headline: ClassVar[str] = "D"

    def __post_init__(self) -> None:
        check_universal(self.methods, (self.epsilon,), self.ball, self.scale)
        check_methods((self.saliency,), "saliency")
        check_fit(self.fit, self.fit_labels, None)
        at_least("repeats", self.repeats, 1)
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise ParameterError("`sizes` must have at least one entry, and each once.")
        at_least("sizes", min(self.sizes), 1)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which images can be fitted to."""
        return {"fit_images_digest": fitting_images(setting, self.fit, self.fit_labels, None).source.digest()}

    def prepare(self, setting: Setting) -> Prepared:
        """Fit every method to every number of images."""
        images = looked_at(fitting_images(setting, self.fit, self.fit_labels, None), setting)
        there = len(images.source)
        sizes = [size for size in sorted(self.sizes) if size <= there]
        missing = [str(size) for size in sorted(self.sizes) if size > there]
        if not sizes:
            fix = "Give more images, or smaller sizes."
            raise ImageError(f"There are {there} images to fit to, fewer than the {missing[0]} asked for. {fix}")
        notes = (f"Left out: {', '.join(missing)} images to fit to; there are {there}.",) if missing else ()
        fits = Fits(setting)
        found = [
            _Fit(size, repeat, fits.find(self._repeated(method, repeat), self.saliency, own), images.origin)
            for size in sizes
            for repeat in range(self.repeats)
            for own in [_drawn(images, size, setting.seed + repeat)]
            for method in self.methods
        ]
        return Prepared(images.tested, found, fits.passes, (*images.notes, *notes))

    def _repeated(self, method: Any, repeat: int) -> Any:
        return replace(method, epsilon=self.epsilon, ball=self.ball, scale=self.scale, seed=method.seed + repeat)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Measure how far each image's map moves under every perturbation."""
        some = tested(classifier, batch)
        rows: list[dict[str, Any]] = list(some.wrong())
        if not some.places:
            return Measured(rows)
        clean = interpret(self.saliency, classifier, some.images, some.classes)
        shared = {"ball": self.ball, "scale": self.scale, "epsilon": self.epsilon}

        def measured(about: Mapping[str, Any], moved: Images) -> None:
            found = changes(self.saliency, classifier, some.images, some.classes, moved, clean=clean)
            rows.extend(some.rows({**shared, **about, **{name: found[name] for name in _MEASURES}}))

        for one in batch.prepared:
            if one.fitted.perturbation is None:
                rows.extend(some.rows({**shared, **one.about()}))
            else:
                measured(one.about(), one.fitted.applied_to(some.images))
        measured({"method": CHANCE}, by_chance(some.images, self.epsilon, self.ball, self.scale, batch.seed))
        return Measured(rows)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D under the first method, fitted to the most images."""
        measured = [row for row in rows if "size" in row]
        most = max((row["size"] for row in measured), default=0)
        own = [row for row in measured if row["size"] == most]
        return [row["dissimilarity"] for row in own if row["method"] == own[0]["method"]]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means of D for every number of images, and whether more images help."""
        rows = table.read()
        who = who_was_tested(rows, table.images)
        check_some_method(table, [CHANCE])
        first = rows[rows["method"].notna()].iloc[0]
        what = (
            f"D is the mean over test images, and over the draws of the fitting images ({rows['repeat'].nunique()}). "
            f"Epsilon is {first['epsilon']:g}, the {ball_text(str(first['ball']), int(first['scale']))}. Intervals are "
            "over test images; how far single draws lie apart says how much it matters which images are fitted to."
        )
        found = _points(rows, seed)
        names = dict.fromkeys(one.method for one in found)
        verdicts = [_verdict([one for one in found if one.method == name], seed) for name in names]
        return Summary((who, what, *verdicts), (_table(found, _chance(rows, seed)),))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw D over the number of images, with the draws beside the means."""
        rows = table.read()
        curves: dict[str, list[tuple[float, Interval]]] = {}
        points: dict[str, list[tuple[float, float]]] = {}
        found = _points(rows, seed)
        for one in found:
            curves.setdefault(one.method, []).append((one.size, one.d))
            points.setdefault(one.method, []).extend((one.size, draw) for draw in one.draws)
        chance = _chance(rows, seed)[0]
        curves[CHANCE] = [(size, chance) for size in sorted({one.size for one in found})]
        y = "dissimilarity D of the maps"
        return bands_figure(curves, x="images to fit to", y=y, references=[CHANCE], points=points)


@final
@dataclass(frozen=True, eq=False)
class _Fit:
    """A perturbation, and the draw of images that it was fitted to."""

    size: int
    repeat: int
    fitted: Fitted
    origin: str

    def about(self) -> dict[str, Any]:
        facts = {
            "method": self.fitted.method,
            "size": self.size,
            "repeat": self.repeat,
            "fit": self.origin,
            "fit_images": self.fitted.used,
        }
        return facts | ({"error": self.fitted.error} if self.fitted.error else {})


def _drawn(images: FittingImages, size: int, seed: int) -> FittingImages:
    places = choose(len(images.source), size, seed)
    return replace(images, source=images.source.only(places), digests=tuple(images.digests[place] for place in places))


@final
@dataclass(frozen=True, eq=False)
class _Point:
    """A method's mean over images and draws for one number of images, and that of each draw."""

    method: str
    size: int
    d: Interval
    fooled: Interval
    over: Interval
    draws: tuple[float, ...]
    used: float
    values: pd.Series


def _points(rows: pd.DataFrame, seed: int) -> list[_Point]:
    rows = rows[rows["outcome"] == TESTED]
    chance = rows[rows["method"] == CHANCE].set_index("index")["dissimilarity"]
    found = []
    fitted = rows[rows["size"].notna()]
    for name in fitted["method"].unique():
        own = fitted[fitted["method"] == name]
        for size in sorted(int(one) for one in own["size"].unique()):
            part = own[own["size"] == size]
            by_image = part.groupby("index")[list(_MEASURES)].mean()
            values = torch.tensor(by_image.to_numpy(dtype="float64"))
            beyond = values[:, :1] - torch.tensor(chance.loc[by_image.index].to_numpy())[:, None]
            d, fooled, over = bootstrap_means(torch.cat([values, beyond], dim=1), seed=seed)
            draws = tuple(float(one) for one in part.groupby("repeat")["dissimilarity"].mean())
            used = float(part.drop_duplicates("repeat")["fit_images"].mean())
            found.append(_Point(str(name), size, d, fooled, over, draws, used, by_image["dissimilarity"]))
    return found


def _chance(rows: pd.DataFrame, seed: int) -> list[Interval]:
    own = rows[rows["method"] == CHANCE]
    return bootstrap_means(torch.tensor(own[list(_MEASURES)].to_numpy(dtype="float64")), seed=seed)


def _verdict(found: Sequence[_Point], seed: int) -> str:
    """Say from how many images on a method is above chance, and whether more images help."""
    least, most = found[0], found[-1]
    if most.d.count < FEWEST:
        return f"{most.method}: of fewer than {FEWEST} test images nothing can be said."
    enough = [one.size for place, one in enumerate(found) if all(later.over.low > 0 for later in found[place:])]
    above = f"is above chance from {enough[0]} images on" if enough else "is not surely above chance"
    if least is most:
        return f"{most.method}: D {above}."
    gain = torch.tensor((most.values - least.values).to_numpy(dtype="float64"))[:, None]
    (change,) = bootstrap_means(gain, seed=seed)
    sure = "larger" if change.low > 0 else "smaller" if change.high < 0 else "not surely another"
    return (
        f"{most.method}: D {above}. Fitted to {most.size} images, it is {sure} than fitted to {least.size} (by "
        f"{change.format(sign=True)})."
    )


def _table(found: Sequence[_Point], chance: Sequence[Interval]) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for one in found:
        known = [draw for draw in one.draws if not isnan(draw)]
        draws = f"{min(known):.3f} to {max(known):.3f}" if known else None
        lines.append((one.method, one.size, f"{one.used:.3g}", one.d, draws, one.over, one.fooled))
    lines.append((CHANCE, None, None, chance[0], None, None, chance[1]))
    columns = ("perturbation", "images drawn", "of them right", "D", "of single draws", "minus chance", "fooling rate")
    caption = "D on test images over the number of images to fit to, and the paired difference to chance."
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
