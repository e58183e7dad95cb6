"""Whether a perturbation that was fitted on one model moves the maps of others (Ehsani Oskouie & Farnia 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import pandas as pd
import torch
from matplotlib.figure import Figure

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.drawing.figures.matrices import Matrix, matrices_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import ImageError, ParameterError
from whyfooled.registry import Card
from whyfooled.saliency import Gradient
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns, Table
from whyfooled.studies.universal.fits import (
    CHANCE,
    TESTED,
    Fits,
    Fitted,
    ball_text,
    by_chance,
    check_fit,
    check_universal,
    fitting_images,
    looked_at,
    named,
    tested,
    what_was_fitted_to,
)
from whyfooled.studies.universal.models import Models, check_same_classes
from whyfooled.tensors.balls import Ball
from whyfooled.tensors.statistics import FEWEST, Interval, bootstrap_means, bootstrap_ratio
from whyfooled.universal import UPIGrad, changes
from whyfooled.universal.maps import interpret

_METHOD, _SALIENCY = UPIGrad(), Gradient()
_MEASURES = ("dissimilarity", "fooled")


@final
@dataclass(frozen=True)
class UniversalTransfer(Study):
    """Fit a perturbation on each of several models, and test each on all of them.

    All models see the same pixels: images and perturbations have the input size of the run's own model, and a model of
    another input size resizes inside (bilinearly, with antialiasing), so that no perturbation is resized by itself.
    What is fitted to a model, and tested on one, are images that it gets right.

    Parameters
    ----------
    method
        The way to find the perturbation; its radius and ball are the study's.
    models
        The models, by the names that ``--model`` takes; they must tell the same classes apart.
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
    fit_count
        How many images to fit to, drawn at random; all if None.
    """

    method: Any = _METHOD
    models: tuple[str, ...] = ("lite0", "lite1", "lite2")
    saliency: Any = _SALIENCY
    epsilon: float = 10.0
    ball: Ball = "l2"
    scale: int = 1
    fit: str = ""
    fit_labels: str = ""
    fit_count: int | None = None

    card: ClassVar[Card] = Card(
        name="universal-transfer",
        title="Universal perturbations on other models",
        summary="How far a perturbation that was fitted on one model moves the maps of others.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, sec. 5",
        cost="a fit on each model; for each image and model a map, and for each model and for chance 1 map, 1 forward",
    )
    columns: ClassVar[Columns] = {
        "method": "text",
        "ball": "text",
        "scale": "whole",
        "epsilon": "real",
        "fitted_on": "text",
        "tested_on": "text",
        "outcome": "text",
        "fit": "text",
        "fit_images": "whole",
        **dict.fromkeys(_MEASURES, "real"),
    }
    headline: ClassVar[str] = "D on the model fitted on"

    def __post_init__(self) -> None:
        check_universal((self.method,), (self.epsilon,), self.ball, self.scale)
        check_methods((self.saliency,), "saliency")
        check_fit(self.fit, self.fit_labels, self.fit_count)
        if not self.models or len(set(self.models)) < len(self.models):
            raise ParameterError("`models` must have at least one entry, and each once.")

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which images are fitted to, and the models' weights."""
        images = fitting_images(setting, self.fit, self.fit_labels, self.fit_count)
        models = Models(self.models, setting.seed)
        digests = {name: models.get(name, setting.classifier).digest() for name in self.models}
        return {"fit_images_digest": images.source.digest(), "models_digests": digests}

    def prepare(self, setting: Setting) -> Prepared:
        """Fit on every model."""
        images = fitting_images(setting, self.fit, self.fit_labels, self.fit_count)
        models = Models(self.models, setting.seed)
        check_same_classes(models, setting.classifier, [setting.source, images.source])
        images = looked_at(images, setting)
        fits = Fits(setting)
        method = replace(self.method, epsilon=self.epsilon, ball=self.ball, scale=self.scale)
        found = {
            name: fits.find(method, self.saliency, images, models.get(name, setting.classifier)) for name in self.models
        }
        return Prepared(images.tested, _Carried(models, found, images.origin), fits.passes, images.notes)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Test every perturbation on every model, with the images that the model gets right."""
        rows: list[dict[str, Any]] = []
        whole = Passes()
        for name in self.models:
            model = batch.prepared.models.get(name, classifier)
            if model is classifier:
                rows += self._on(name, model, batch)
                continue
            with count_passes(model) as passes:
                rows += self._on(name, model, batch)
            whole.forwards += passes.forwards
            whole.backwards += passes.backwards
        return Measured(rows, passes=whole)

    def _on(self, name: str, model: Classifier, batch: Batch) -> list[dict[str, Any]]:
        """Test every perturbation on one model."""
        some = tested(model, batch)
        shared = {"tested_on": name, "ball": self.ball, "scale": self.scale, "epsilon": self.epsilon}
        rows = [row | shared for row in some.wrong()]
        if not some.places:
            return rows
        clean = interpret(self.saliency, model, some.images, some.classes)
        carried: _Carried = batch.prepared
        for other, fitted in carried.fitted.items():
            about = {**shared, "method": fitted.method, "fitted_on": other, "fit": carried.origin}
            if fitted.perturbation is None:
                rows += some.rows({**about, "error": f"{other}: {fitted.error}"})
                continue
            moved = fitted.perturbation.apply(some.images, clip=False)
            found = changes(self.saliency, model, some.images, some.classes, moved, clean=clean)
            rows += some.rows({**about, "fit_images": fitted.used, **{one: found[one] for one in _MEASURES}})
        moved = by_chance(some.images, self.epsilon, self.ball, self.scale, batch.seed)
        found = changes(self.saliency, model, some.images, some.classes, moved, clean=clean)
        about = {**shared, "method": named(self.method), "fitted_on": CHANCE}
        rows += some.rows({**about, **{one: found[one] for one in _MEASURES}})
        return rows

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take D where a perturbation is tested on the model that it was fitted on."""
        measured = [row for row in rows if "dissimilarity" in row]
        return [row["dissimilarity"] for row in measured if row["fitted_on"] == row["tested_on"]]

    @classmethod
    def summarise(cls, table: Table, seed: int) -> Summary:
        """Means of D and the fooling rate for every pair of models, and whether perturbations transfer."""
        rows = table.read()
        found = _compared(rows, seed)
        counts = sorted({one.fooled.count for one in found})
        many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        who = f"On every model {many} of {table.images} images were tested. {what_was_fitted_to(rows)}"
        first = rows[rows["method"].notna()].iloc[0]
        what = (
            f"Fitted with {first['method']}, epsilon {first['epsilon']:g} "
            f"({ball_text(str(first['ball']), int(first['scale']))}). An image counts for a model that gets it right. "
            "Chance is a random direction of each image's own, as long, on the model that is tested."
        )
        return Summary((who, what, *_verdicts(found)), (_table(found, str(first["method"])),))

    @classmethod
    def draw(cls, table: Table, seed: int) -> Figure:
        """Draw matrices of D, of D over chance and of the fooling rate; rows are the models fitted on."""
        found = _compared(table.read(), seed)
        panels = [
            ("dissimilarity D of the maps", _matrix(found, "d"), ".2f"),
            ("D over chance", _matrix([_without_ratio(one) for one in found], "ratio"), ".2f"),
            ("fooling rate", _matrix(found, "fooled"), ".2f"),
        ]
        return matrices_figure(panels, rows="fitted on", columns="tested on")


@final
@dataclass(frozen=True, eq=False)
class _Carried:
    """What workers need: the models, and the perturbation fitted on each."""

    models: Models
    fitted: Mapping[str, Fitted]
    origin: str


@final
@dataclass(frozen=True)
class _Pair:
    """What the perturbation of one model does to another."""

    fitted_on: str
    tested_on: str
    d: Interval
    fooled: Interval
    over: Interval
    ratio: Interval


def _compared(rows: pd.DataFrame, seed: int) -> list[_Pair]:
    models = [str(name) for name in rows["tested_on"].dropna().unique()]
    rows = rows[rows["outcome"] == TESTED]
    if rows.empty:
        raise ImageError("No model gets any of the images right.")
    found = []
    for tested_on in models:
        own = rows[rows["tested_on"] == tested_on]
        parts = {str(name): part.set_index("index") for name, part in own.groupby("fitted_on", observed=True)}
        order = [str(name) for name in own["fitted_on"].unique()]
        chance = parts[CHANCE]["dissimilarity"]
        for name in order:
            part = parts[name]
            values = torch.tensor(part[list(_MEASURES)].to_numpy(dtype="float64"))
            both = torch.stack([values[:, 0], torch.tensor(chance.loc[part.index].to_numpy())], dim=1)
            d, fooled, over = bootstrap_means(torch.cat([values, both[:, :1] - both[:, 1:]], dim=1), seed=seed)
            found.append(_Pair(name, tested_on, d, fooled, over, bootstrap_ratio(both, seed=seed)))
    return found


def _verdicts(found: Sequence[_Pair]) -> list[str]:
    own = [one for one in found if one.fitted_on == one.tested_on]
    others = [one for one in found if one.fitted_on not in (one.tested_on, CHANCE)]
    sentences = []
    for name, pairs in (("On the model that they were fitted on", own), ("On other models", others)):
        known = [one for one in pairs if one.over.count >= FEWEST]
        if not pairs:
            continue
        if not known:
            sentences.append(f"{name}: of fewer than {FEWEST} images nothing can be said.")
            continue
        above, below = sum(one.over.low > 0 for one in known), sum(one.over.high < 0 for one in known)
        ratios = [one.ratio.mean for one in known]
        few = len(pairs) - len(known)
        not_counted = f" Not counted: {few} of {len(pairs)}, of fewer than {FEWEST} images." if few else ""
        sentences.append(
            f"{name}, perturbations move the maps more than chance in {above} of {len(known)} cases and less in "
            f"{below} (by paired intervals that leave out 0); D is {min(ratios):.2f} to {max(ratios):.2f} times "
            f"chance's.{not_counted}"
        )
    return sentences


def _without_ratio(one: _Pair) -> _Pair:
    """Leave out what chance is over itself."""
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    return replace(one, ratio=nothing) if one.fitted_on == CHANCE else one


def _matrix(found: Sequence[_Pair], value: str) -> Matrix:
    cells: dict[str, dict[str, Interval]] = {}
    for one in sorted(found, key=lambda one: one.fitted_on == CHANCE):
        cells.setdefault(one.fitted_on, {})[one.tested_on] = getattr(one, value)
    return cells


def _table(found: Sequence[_Pair], method: str) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    for one in found:
        beside = (None, None) if one.fitted_on == CHANCE else (one.over, one.ratio)
        lines.append((one.tested_on, one.fitted_on, one.d, *beside, one.fooled))
    caption = (
        f"What perturbations of {method} that were fitted on one model do to the maps and predictions of another. "
        "Minus chance: the paired difference of D on the tested model."
    )
    columns = ("tested on", "fitted on", "D", "minus chance", "over chance", "fooling rate")
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
