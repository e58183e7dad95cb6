"""What a universal perturbation does to images that it was not fitted to: always on the true network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import pandas as pd
import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_saliency
from whyfooled.classifier.memory import batch_size_for
from whyfooled.classifier.workers import most_together
from whyfooled.drawing.summary import SummaryTable
from whyfooled.errors import ImageError, WhyfooledError, at_least, bad_parameter, check_seed, warn
from whyfooled.images import content_digest, looks_like, perceptual_hash
from whyfooled.registry import describe_value
from whyfooled.running.publishing import hide_folders
from whyfooled.saliency.interpretations import Interpretations
from whyfooled.sources import Source, class_map, mapped
from whyfooled.tensors.balls import length
from whyfooled.tensors.measures import centre_shift, rank_correlation, structural_similarity, top_overlap
from whyfooled.tensors.randomness import choose, image_generators, normal, random_directions
from whyfooled.tensors.statistics import Interval, RandomDraws, bootstrap_difference, bootstrap_means, draw_bounds
from whyfooled.types import Classes, Image, Images, PerImage, Progress, silent
from whyfooled.universal._given import Given, as_source
from whyfooled.universal._method import GRADIENT
from whyfooled.universal._perturbation import Altered, UniversalPerturbation
from whyfooled.universal.dissimilarity import distance
from whyfooled.universal.maps import Saliency, interpret

MEASURES = {
    "dissimilarity": "D",
    "fooled": "fooling rate",
    "top_overlap": "top pixels in common",
    "rank_correlation": "rank correlation",
    "structural_similarity": "SSIM",
    "centre_shift": "mass centre moves (pixels)",
}
"""What is measured of each image, and what it is called in a table."""

UNIVERSAL, RANDOM = "universal", "random"
REVERSED, BRIGHTNESS = "reversed", "brightness"
"""The universal perturbation with the other sign, and one that makes every value as much lighter, or darker."""
DIRECTIONS = 8
"""How many random directions a perturbation is compared with. [ours]"""
TOP = 0.05
"""Share of the pixels that count as the top ones. [ours]"""


@one_thread()
def changes(
    saliency: Saliency,
    classifier: Classifier,
    images: Images,
    classes: Classes,
    moved: Images,
    *,
    clean: Interpretations | None = None,
    share: float = TOP,
) -> dict[str, PerImage]:
    """Measure how far each image's map and prediction change.

    Parameters
    ----------
    saliency
        The saliency method.
    classifier
        The true network: no smooth activations here.
    images
        (n,c,h,w) The images as they were, values in [0, 1].
    classes
        (n,) The classes whose maps are taken.
    moved
        (n,c,h,w) The images as they are now; their values may lie outside [0, 1].
    clean
        (n,h,w) The images' interpretations, if they are known already.
    share
        Share of the pixels that count as the top ones.

    Returns
    -------
    dict
        (n,) for each of `MEASURES`: the `dissimilarity`; 1 if the prediction is not the class any more, else 0; the
        share of the top pixels that both maps have; Spearman's rank correlation; SSIM (NaN under 11 pixels a side); how
        many pixels the centre of mass moves. NaN where a map is empty; D only where the first is.
    """
    before = interpret(saliency, classifier, images, classes) if clean is None else clean
    measured = compare_maps(before, interpret(saliency, classifier, moved, classes), share)
    measured["fooled"] = (classifier.predict(moved) != classes).double()
    return {name: measured[name] for name in MEASURES}


def compare_maps(before: Interpretations, after: Interpretations, share: float = TOP) -> dict[str, PerImage]:
    """Compare (n,h,w) interpretations: what `changes` measures, but for the predictions."""
    first, second = before.unsqueeze(1), after.unsqueeze(1)
    empty = ~(before.flatten(1).any(1) & after.flatten(1).any(1))
    return {
        "dissimilarity": distance(before, after).double(),
        "top_overlap": top_overlap(first, second, share).masked_fill(empty, torch.nan),
        "rank_correlation": rank_correlation(first, second),
        "structural_similarity": structural_similarity(first, second).masked_fill(empty, torch.nan),
        "centre_shift": centre_shift(first, second),
    }


def random_like(perturbation: UniversalPerturbation, images: Images, seed: int) -> Images:
    """Add to each image a random direction of its own, of the perturbation's norm."""
    drawn = normal(images, image_generators(images, seed))
    return images + torch.stack([_as_large(perturbation, direction) for direction in drawn])


@final
@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What a universal perturbation does to test images.

    Parameters
    ----------
    table
        One row for each image, perturbation and ``clipped`` (whether the values were brought back to [0, 1]), with the
        columns of `MEASURES`. Perturbations are ``"universal"``; ``"reversed"``, the same with the other sign;
        ``"random"``, a random direction of the same norm, whose number is in ``direction``; and ``"brightness"``, all
        values lighter (0 in ``direction``) or darker (1) by the same, with the same norm.
    perturbation
        What was evaluated.
    saliency
        Whose maps were looked at, as on the command line.
    model
        What the classifier is called.
    wrong
        How many images were left out because the classifier misclassifies them.
    unreadable
        Names of images that could not be used, with the reason.
    """

    table: pd.DataFrame
    perturbation: UniversalPerturbation
    saliency: str
    model: str
    wrong: int
    unreadable: dict[str, str]

    def __repr__(self) -> str:
        intervals = self.intervals()
        return f"Evaluation(D {intervals['dissimilarity']}, fooling rate {intervals['fooled']}, {self.count} images)"

    @property
    def count(self) -> int:
        """How many images were evaluated."""
        return int(self.table["image"].nunique())

    @property
    def directions(self) -> int:
        """How many random directions it was compared with."""
        return int(self.table.loc[self.table["perturbation"] == RANDOM, "direction"].nunique())

    def to_frame(self) -> pd.DataFrame:
        """Return the table."""
        return self.table

    def intervals(self, perturbation: str = UNIVERSAL, *, clipped: bool = False) -> dict[str, Interval]:
        """Return the mean of each of `MEASURES` over images, with 95 % bootstrap intervals."""
        values = torch.from_numpy(self._by_image(perturbation, clipped).to_numpy(copy=True))
        return dict(zip(MEASURES, bootstrap_means(values), strict=True))

    def gain(self, *, clipped: bool = False) -> Interval:
        """Return how much larger D is than under random directions of the same norm, paired by image.

        The interval holds what one more random direction would leave of it in 95 % of cases.
        """
        both = [self._by_image(name, clipped)["dissimilarity"].to_numpy(copy=True) for name in (UNIVERSAL, RANDOM)]
        by_direction = self._select(RANDOM, clipped).groupby("direction")["dissimilarity"].mean()
        gain = bootstrap_difference(torch.stack([torch.from_numpy(one) for one in both], dim=1))
        return gain.widen(RandomDraws(tuple(by_direction)).reach)

    def altered(self, *, clipped: bool = False) -> tuple[Interval, Interval]:
        """Return the share of the images whose map is altered, and the share that one random direction alters.

        A map is altered if it moves further than one more random direction would move it in 95 % of cases, as far as
        those that were tried tell (`whyfooled.tensors.statistics.draw_bounds`). The second share is measured in the
        same way, each direction against the others, on average over them.
        """
        by_direction = self._select(RANDOM, clipped).pivot_table(
            index="image", columns="direction", values="dissimilarity", dropna=False
        )
        draws = torch.from_numpy(by_direction.to_numpy(copy=True, dtype="float64"))
        moved = self._by_image(UNIVERSAL, clipped)["dissimilarity"].loc[by_direction.index]
        reached = torch.from_numpy(moved.to_numpy(copy=True, dtype="float64"))
        shares = [_tell_beyond(reached, draws)]
        if draws.shape[1] > 2:
            rest = (torch.cat([draws[:, :k], draws[:, k + 1 :]], dim=1) for k in range(draws.shape[1]))
            by_chance = [_tell_beyond(draws[:, k], others) for k, others in enumerate(rest)]
            shares.append(torch.stack(by_chance).mean(0))
        else:
            shares.append(torch.full_like(reached, torch.nan))
        ours, chance = bootstrap_means(torch.stack(shares, dim=1))
        return ours, chance

    def record(self, classifier: Classifier) -> UniversalPerturbation:
        """Return the perturbation with what share of these images it alters, clipped, which its file then keeps."""
        ours, chance = self.altered(clipped=True)
        altered = Altered(
            share=ours.mean,
            low=ours.low,
            high=ours.high,
            chance=chance.mean,
            images=ours.count,
            saliency=self.saliency,
            model=self.model,
            model_digest=classifier.digest(),
        )
        return replace(self.perturbation, altered=altered)

    def summary_table(self) -> SummaryTable:
        """Make a table of it, for Markdown or LaTeX: `whyfooled.drawing.summary.SummaryTable`."""
        rows = [
            [name, "clipped" if clipped else "not clipped", *self.intervals(name, clipped=clipped).values()]
            for clipped in (False, True)
            for name in (UNIVERSAL, REVERSED, RANDOM, BRIGHTNESS)
            if (self.table["perturbation"] == name).any()
        ]
        caption = (
            f"{self.perturbation.method} of {self.perturbation.size_text()}, on maps of {self.saliency} of "
            f"{self.model}, and {self.directions} random directions of the same norm (their mean). Reversed: the "
            "same with the other sign. Brightness: every value as much lighter, or darker (their mean). Clipped: "
            f"values brought back to [0, 1]. Top pixels: {TOP:.0%} of all, which is also what maps have in common by "
            "chance."
        )
        return SummaryTable(caption, ("perturbation", "values", *MEASURES.values()), rows)

    def _by_image(self, perturbation: str, clipped: bool) -> pd.DataFrame:
        """Return each image's `MEASURES`, in the mean of the random directions."""
        return self._select(perturbation, clipped).groupby("image", sort=False)[list(MEASURES)].mean()

    def _select(self, perturbation: str, clipped: bool) -> pd.DataFrame:
        return self.table[(self.table["perturbation"] == perturbation) & (self.table["clipped"] == clipped)]


@one_thread()
def evaluate(
    classifier: Classifier,
    perturbation: UniversalPerturbation,
    source: Given,
    saliency: Any = GRADIENT,
    *,
    count: int | None = None,
    directions: int = DIRECTIONS,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure what a universal perturbation does to the maps and predictions of images that it was not fitted to.

    Images that the classifier misclassifies are left out, as in the paper. It is compared with random directions of the
    same norm, added to the same images.

    Parameters
    ----------
    classifier
        The true network.
    perturbation
        What is evaluated.
    source
        The test images, as `UniversalMethod.fit` takes its own.
    saliency
        Any saliency method; its maps need not be differentiable.
    count
        How many images to draw at random, by the seed; all if None.
    directions
        How many random directions it is compared with, at least 2.
    seed
        Seed of the draw and of the random directions.
    batch_size
        Images measured together; as many as fit into memory if None, on a CPU 8 at most.
        Large images go one at a time there, whatever is given.
    progress
        Called with the images done, the images in all, and what is being done.

    Returns
    -------
    Evaluation

    Raises
    ------
    ParameterError
        If the perturbation was fitted to one of the images: by content, whatever the names.
    ImageError
        If the perturbation has another size than the images, or none can be used.
    """
    check_classifier(classifier)
    check_saliency(saliency)
    check_seed(seed)
    # Of one direction it is not known how far others lie from it.
    at_least("directions", directions, 2)
    perturbation.check_fits((classifier.channels, *classifier.size))
    images = as_source(source)
    classes = class_map(images, classifier)
    places = choose(len(images), count, seed)
    unreadable = check_unseen(perturbation, images, classifier, places, progress)
    readable = [place for place in places if images.name(place) not in unreadable]
    size = batch_size_for(classifier) if batch_size is None else batch_size
    at_least("batch_size", size, 1)
    size = most_together(classifier, size)
    shape = (classifier.channels, *classifier.size)
    drawn = [_as_large(perturbation, direction) for direction in random_directions(shape, directions, seed)]
    views: list[tuple[Mapping[str, Any], Image]] = [
        ({"perturbation": UNIVERSAL, "direction": None}, perturbation.delta),
    ]
    views += [({"perturbation": RANDOM, "direction": number}, delta) for number, delta in enumerate(drawn)]
    views.append(({"perturbation": REVERSED, "direction": None}, -perturbation.delta))
    even = _as_large(perturbation, torch.ones(shape))
    views += [({"perturbation": BRIGHTNESS, "direction": number}, delta) for number, delta in enumerate((even, -even))]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(readable), size):
        some = readable[start : start + size]
        rows += _measure(classifier, images, some, classes, saliency, views)
        progress(start + len(some), len(readable), "test")
    table = pd.DataFrame(rows)
    evaluated = 0 if table.empty else table["image"].nunique()
    if not evaluated:
        raise ImageError(f"None of the {len(places)} images is classified as what it shows, so none can be used.")
    return Evaluation(
        table=table,
        perturbation=perturbation,
        saliency=describe_value(saliency),
        model=hide_folders(classifier.name),
        wrong=len(readable) - evaluated,
        unreadable=unreadable,
    )


def check_unseen(
    perturbation: UniversalPerturbation,
    source: Source,
    classifier: Classifier,
    places: Sequence[int],
    progress: Progress = silent,
) -> dict[str, str]:
    """Raise `ParameterError` if a perturbation was fitted to one of the images; name unreadable ones.

    An image is one that it was fitted to if all pixels are equal, before or after they are brought to the input size.
    One that only looks like one, such as the same photograph compressed again, is warned of.
    """
    known = perturbation.fitted_to or frozenset()
    unreadable: dict[str, str] = {}
    seen: list[str] = []
    alike: list[str] = []
    for number, place in enumerate(places):
        try:
            sample = source[place]
            fitted = sample.fitted(classifier.fit, classifier.channels)
        except WhyfooledError as error:
            unreadable[source.name(place)] = str(error)
            continue
        if known and not known.isdisjoint((content_digest(sample.image), content_digest(fitted))):
            seen.append(sample.name)
        elif perturbation.looks and looks_like(perceptual_hash(sample.image), perturbation.looks):
            alike.append(sample.name)
        progress(number + 1, len(places), "look")
    if seen:
        raise bad_parameter(
            "images",
            "to test on must be ones that the perturbation was not fitted to, or the test would flatter it",
            f"{len(seen)} of {len(places)} that it was, such as {seen[0]}",
            "Leave them out.",
        )
    if alike:
        warn(
            f"{len(alike)} of the {len(places)} test images look like images that the perturbation was fitted to, such "
            f"as {alike[0]}, though their pixels differ. If they are the same pictures, leave them out.",
            stacklevel=2,
        )
    return unreadable


def _measure(
    classifier: Classifier,
    source: Source,
    places: Sequence[int],
    class_map: tuple[int, ...] | None,
    saliency: Saliency,
    views: Sequence[tuple[Mapping[str, Any], Image]],
) -> Iterator[dict[str, Any]]:
    """Measure images together, and give their rows."""
    samples = [source[place] for place in places]
    fitted = [sample.fitted(classifier.fit, classifier.channels) for sample in samples]
    images = torch.stack(fitted).to(classifier.mean)
    given = classifier.predict(images)
    right = []
    for number, sample in enumerate(samples):
        if int(given[number]) in (mapped(sample.labels, class_map) or given[number : number + 1].tolist()):
            right.append(number)
    if not right:
        return
    chosen = torch.tensor(right, device=images.device)
    images, classes = images[chosen], given[chosen]
    clean = interpret(saliency, classifier, images, classes)
    for about, delta in views:
        for clipped in (False, True):
            now = images + delta.to(images)
            now = now.clamp(0, 1) if clipped else now
            measured = changes(saliency, classifier, images, classes, now, clean=clean)
            columns = {key: value.tolist() for key, value in measured.items()}
            for row, number in enumerate(right):
                yield {
                    "image": samples[number].name,
                    "class": int(classes[row]),
                    **about,
                    "clipped": clipped,
                    **{key: values[row] for key, values in columns.items()},
                }


def _tell_beyond(reached: Tensor, draws: Tensor) -> Tensor:
    """Return (n,) 1 where a number is beyond what draws (n,k) tell of one more, else 0; NaN where one is missing."""
    beyond = (reached > draw_bounds(draws)).double()
    return beyond.masked_fill(reached.isnan() | draws.isnan().any(1), torch.nan)


def _as_large(perturbation: UniversalPerturbation, direction: Tensor) -> Image:
    """Return a direction with a perturbation's norm."""
    if perturbation.ball == "linf":
        return perturbation.linf * direction.sign()
    return perturbation.l2 * direction / length(direction[None])[0]
