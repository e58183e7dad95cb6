"""What a perturbation does, region by region: where it holds the true class down, and where it lifts the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal, final

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_attempted, check_classifier, check_images, name_images
from whyfooled.classifier.folding import quicken
from whyfooled.classifier.goals import check_class_vector
from whyfooled.classifier.windows import find_windows
from whyfooled.classifier.workers import cut_by_image, share_out
from whyfooled.errors import ImageError, ParameterError, at_least, bad_parameter, one_of
from whyfooled.perturbation.regions import (
    Grid,
    Labels,
    PerRegion,
    Regions,
    region_labels,
    region_norms,
    region_sums,
)
from whyfooled.saliency.backward.gradients import quiet_gradients
from whyfooled.tensors.measures import rank_correlation
from whyfooled.types import Classes, Counts, Images, PerImage, Progress, silent

WORTH_A_COPY = 64
"""Evaluations of an image from which on a quicker copy of the model, and windows, are worth their making. [ours]"""

Method = Literal["exact", "gradient"]
KINDS = ("inert", "suppression", "promotion", "balanced")
"""The kinds of regions; `Sensitivity.kind` holds their places in this list."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity:
    """What the perturbation in each region does to the logits of the true class t0 and the target t (Xu et al. 2019).

    Regions are numbered from 0; one that an image does not have has no pixels, no effect, and is inert.

    Parameters
    ----------
    labels
        (n,h,w) The region of every pixel.
    true_change, target_change
        (n,r) By how much the perturbation in a region changes the logit of t0 and of t, with its sign: the adversarial
        image's logit minus that of the adversarial image without the perturbation in this region.
    l2, linf
        (n,r) The norms of the perturbation in each region, for values in [0, 1].
    inert
        Share of an image's largest score under which a region counts as inert.
    floor
        Share of an image's largest score that both effects are raised to before their ratio is taken.
    """

    labels: Labels
    true_change: PerRegion
    target_change: PerRegion
    l2: PerRegion
    linf: PerRegion
    inert: float
    floor: float

    @property
    def true_drop(self) -> PerRegion:
        """(n,r) By how many logits the perturbation in a region holds the true class down; at least 0."""
        return (-self.true_change).clamp_min(0)

    @property
    def target_gain(self) -> PerRegion:
        """(n,r) By how many logits it lifts the target; at least 0."""
        return self.target_change.clamp_min(0)

    @property
    def score(self) -> PerRegion:
        """(n,r) The sensitivity: `true_drop` plus `target_gain`, in logits."""
        return self.true_drop + self.target_gain

    @property
    def ratio(self) -> PerRegion:
        """(n,r) The promotion-suppression ratio: log2 of `target_gain` over `true_drop`, both at least ζ.

        ζ is the share `floor` of the image's largest score, so that the ratio does not change with the scale of the
        logits, and so that it is under `inert`: no region that counts has its kind from ζ. Without any effect it is 0.
        """
        score = self.score
        least = self.floor * score.amax(1, keepdim=True) if score.numel() else score
        ratio = self.target_gain.maximum(least).log2() - self.true_drop.maximum(least).log2()
        return ratio.nan_to_num(0)

    @property
    def kind(self) -> Int[Tensor, "n r"]:
        """(n,r) What the perturbation mostly does in a region, as a place in `KINDS`.

        Suppression where the ratio is under −1, promotion where it is over 1, balanced between (the paper's
        thresholds); inert where the score is under the share `inert` of the image's largest.
        """
        ratio, score = self.ratio, self.score
        kinds = torch.full_like(ratio, KINDS.index("balanced"), dtype=torch.int64)
        kinds[ratio < -1] = KINDS.index("suppression")
        kinds[ratio > 1] = KINDS.index("promotion")
        if not score.numel():
            return kinds
        weak = (score == 0) | (score < self.inert * score.amax(1, keepdim=True))
        return kinds.masked_fill(weak, KINDS.index("inert"))

    @property
    def touched(self) -> Bool[Tensor, "n r"]:
        """(n,r) Whether the perturbation changes a pixel of the region."""
        return self.linf > 0

    @property
    def sizes(self) -> Int[Tensor, "n r"]:
        """(n,r) How many pixels a region has; 0 where an image has no such region."""
        ones = torch.ones_like(self.labels, dtype=self.l2.dtype)
        return region_sums(ones, self.labels).long()

    @property
    def suppression_share(self) -> PerImage:
        """(n,) Which share of the effect (the sum of all scores) holds the true class down; NaN without any effect."""
        return self.true_drop.sum(1) / self.score.sum(1)

    @property
    def effect_by_kind(self) -> Float[Tensor, "n 4"]:
        """(n,4) Which share of the effect lies in regions of each of the `KINDS`; NaN without any effect."""
        return self.by_kind(self.score)

    def by_kind(self, values: PerRegion) -> Float[Tensor, "n 4"]:
        """Return (n,4) which share of a number of each region, at least 0, lies in regions of each of the `KINDS`."""
        sums = values.new_zeros(len(values), len(KINDS)).scatter_add_(1, self.kind, values)
        return sums / values.sum(1, keepdim=True)

    def carriers(self, share: float = 0.8) -> Counts:
        """Count (n,) the fewest regions that together have a share of the effect; 0 without any effect."""
        if not 0 < share <= 1:
            raise bad_parameter("share", "must be above 0 and at most 1", share)
        scores = self.score.double().sort(dim=1, descending=True).values
        total = scores.sum(1, keepdim=True)
        # Rounding must not ask for a region more.
        short = scores.cumsum(1) < share * total * (1 - 1e-9)
        return torch.where(total[:, 0] > 0, short.sum(1) + 1, 0)

    def __repr__(self) -> str:
        n, r = self.score.shape
        return f"Sensitivity({n} images of {r} regions)"

    def to(self, device: torch.device | str) -> Sensitivity:
        """Move everything to a device."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        named |= {name: value.to(device) for name, value in named.items() if isinstance(value, Tensor)}
        return Sensitivity(**named)

    def on_image(self, values: Tensor) -> Tensor:
        """Give (n,h,w) every pixel its region's entry of values (n,r)."""
        return values.gather(1, self.labels.flatten(1)).view(self.labels.shape)

    def rank_correlation(self, other: Sensitivity) -> PerImage:
        """Return (n,) Spearman's rank correlation of the regions' scores with another's, over regions that are touched.

        NaN where all regions of an image score the same.
        """
        if self.score.shape != other.score.shape:
            rule = f"must have scores of the shape {tuple(self.score.shape)}"
            raise bad_parameter("other", rule, tuple(other.score.shape))
        correlations = self.score.new_zeros(len(self.score), dtype=torch.float64)
        for number, touched in enumerate(self.touched):
            pair = (scores[number][touched].view(1, 1, 1, -1) for scores in (self.score, other.score))
            correlations[number] = rank_correlation(*pair)[0]
        return correlations

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each region of each image: its centre, size, norms, both effects, score, ratio and kind.

        The centre is the mean row and column of its pixels, from 0; the ratio is the base-2 logarithm that `ratio` is.
        """
        n, r = self.score.shape
        height, width = self.labels.shape[1:]
        down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        sizes = self.sizes
        centres = [region_sums(place.to(self.l2).expand(n, -1, -1), self.labels) / sizes for place in (down, across)]
        columns = {
            "row": centres[0],
            "column": centres[1],
            "pixels": sizes,
            "l2": self.l2,
            "linf": self.linf,
            "true_drop": self.true_drop,
            "target_gain": self.target_gain,
            "score": self.score,
            "ratio": self.ratio,
            "kind": self.kind,
        }
        frame = pd.DataFrame({name: values.flatten().cpu().numpy() for name, values in columns.items()})
        frame["kind"] = [KINDS[code] for code in frame["kind"]]
        frame.insert(0, "region", list(range(r)) * n)
        frame.insert(0, "image", [image for image in range(n) for _ in range(r)])
        return frame[frame["pixels"] > 0].reset_index(drop=True)


_GRID = Grid()


@one_thread()
def sensitivity(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    true: Classes,
    target: Classes,
    regions: Regions = _GRID,
    *,
    method: Method = "exact",
    inert: float = 0.01,
    floor: float = 1e-3,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Measure what the perturbation in each region does to the logits of the true class and of the target.

    The paper's text is not public in full: the definitions are a reconstruction, and `inert` and `floor` are [ours].

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    clean, adversarial
        (n,c,h,w) The images before and after, values in [0, 1]; from any attack.
    true, target
        (n,) The classes t0 and t that the effect is measured on.
    regions
        How the images are divided: a `Grid`, `Superpixels`, or label maps.
    method
        ``"exact"``: the perturbation is removed from each region in turn, one evaluation for each region that it
        touches (and one for the whole image); of large images, on a CPU, by a quicker copy of the model that computes
        the same, of whose early layers only windows around the region. ``"gradient"``: to first order along the
        perturbation, at the adversarial image, one forward pass and a backward pass for each of the two classes; then
        the sum over regions is the gradient times the whole perturbation.
    inert
        Share of an image's largest score under which a region counts as inert.
    floor
        Share of an image's largest score that both effects are raised to before their ratio is taken; under `inert`.
    batch_size
        How many images are evaluated at once, of whichever regions and images; 8 on a CPU, whose caches they should
        fit, and 64 elsewhere if None. Memory grows with it, not with the number of regions.
    progress
        Called with the evaluations done, those in all, and what is being done.

    Returns
    -------
    Sensitivity
        On the device of the images.

    Raises
    ------
    ImageError
        If the two images differ in size or have values outside [0, 1], or do not differ at all.
    ParameterError
        If both classes are the same, or the regions do not fit.
    """
    one_of("method", method, ("exact", "gradient"))
    check_shares(inert, floor)
    if batch_size is not None:
        at_least("batch_size", batch_size, 1)
    check_pair(classifier, clean, adversarial, true, target)
    clean, adversarial = clean.detach(), adversarial.detach()
    labels = region_labels(regions, clean)
    l2, linf = region_norms(adversarial - clean, labels)
    pair = torch.stack([true, target], dim=1).long()
    if method == "gradient":
        changes = _gradient_changes(classifier, clean, adversarial, pair, labels)
    else:
        size = choose_batch_size(clean.device) if batch_size is None else batch_size
        changes = _exact_changes(classifier, clean, adversarial, pair, labels, linf > 0, size, progress)
    return Sensitivity(labels, changes[..., 0], changes[..., 1], l2, linf, inert, floor)


def choose_batch_size(device: torch.device) -> int:
    """Return how many images are evaluated at once unless told otherwise: so few on a CPU that its caches hold them."""
    return 8 if device.type == "cpu" else 64


def check_shares(inert: float, floor: float) -> None:
    """Raise `ParameterError` unless the shares of the largest score are such that no kind comes from the floor."""
    if not 0 < inert <= 1:
        raise bad_parameter("inert", "must be a share, above 0 and at most 1", inert)
    # A region that counts has one effect of at least half of `inert`; its ratio to the floor is then over 2.
    if not 0 < floor < inert / 4:
        raise bad_parameter("floor", f"must be above 0 and under a quarter of `inert`, {inert / 4:g}", floor)


def check_pair(classifier: Classifier, clean: Images, adversarial: Images, true: Classes, target: Classes) -> None:
    """Raise unless each clean image has an adversarial one of its size that differs from it, and two different classes.

    Raises
    ------
    ImageError
        If the images differ in shape, have values outside [0, 1], or do not differ at all.
    ParameterError
        If there is not one class of each kind for each image, or both are the same.
    """
    check_classifier(classifier, several_labels=True)
    check_images(clean)
    check_attempted(clean, adversarial)
    for name, classes in (("true", true), ("target", target)):
        check_class_vector(name, classes)
        if len(classes) != len(clean):
            raise ParameterError(f"`{name}` must have a class for each of the {len(clean)} images; got {len(classes)}.")
    same = (true == target).nonzero()[:, 0].tolist()
    if same:
        raise bad_parameter("target", "must be another class than the true one", f"the same for {name_images(same)}")
    unchanged = (~(clean != adversarial).flatten(1).any(1)).nonzero()[:, 0].tolist()
    if unchanged:
        raise ImageError(
            f"The clean and the adversarial image must differ; they are the same for {name_images(unchanged)}, so "
            "there is no perturbation to explain."
        )


@torch.no_grad()
def _exact_changes(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    pair: Tensor,
    labels: Labels,
    touched: Tensor,
    batch_size: int,
    progress: Progress,
) -> Float[Tensor, "n r 2"]:
    """Evaluate every adversarial image without the perturbation in each touched region, and take the differences."""
    n = len(adversarial)
    # First the image whole, as one without the perturbation in a region that it does not have.
    whole = touched.new_ones(n, 1)
    places = torch.cat([whole, touched], dim=1).nonzero()
    places[:, 1] -= 1

    def compute_pair_logits(some: Tensor, through: nn.Module | None) -> Tensor:
        image, region = some.unbind(1)
        inside = (labels[image] == region.view(-1, 1, 1)).unsqueeze(1)
        logits = classifier.logits(torch.where(inside, clean[image], adversarial[image]), through)
        check_classes(pair, logits)
        return logits.gather(1, pair[image])

    values = clean.new_zeros(n, touched.shape[1] + 1, 2)
    done = 0
    for through, pieces in _plan_evaluations(classifier, adversarial, places, batch_size):
        evaluated = share_out(classifier, partial(compute_pair_logits, through=through), pieces)
        for piece, pair_logits in zip(pieces, evaluated, strict=True):
            # The image whole comes last, as region -1 does.
            values[piece[:, 0], piece[:, 1]] = pair_logits.to(values)
            done += len(piece)
            progress(done, len(places), "regions")
    return torch.where(touched.unsqueeze(2), values[:, -1:] - values[:, :-1], 0.0)


def _plan_evaluations(
    classifier: Classifier, adversarial: Images, places: Tensor, batch_size: int
) -> Iterator[tuple[nn.Module | None, list[Tensor]]]:
    """Give what to evaluate in pieces, and through which module: of an image that is worth it, in windows alone."""
    counts = torch.bincount(places[:, 0], minlength=len(adversarial))
    is_worth_it = (counts >= WORTH_A_COPY)[places[:, 0]]
    few, many = places[~is_worth_it], places[is_worth_it]
    if len(few):
        yield None, cut_by_image(few, few[:, 0], batch_size)
    if not len(many):
        return
    quick = quicken(classifier, adversarial)
    windows = find_windows(classifier, quick, adversarial)
    if not windows.layers:
        yield quick.module, cut_by_image(many, many[:, 0], batch_size)
        return
    for number in dict.fromkeys(many[:, 0].tolist()):
        some = many[many[:, 0] == number]
        yield (
            windows.around(classifier.normalise(adversarial[number, None])),
            cut_by_image(some, some[:, 0], batch_size),
        )


def describe_evaluations(classifier: Classifier, images: Images, exact: Sensitivity) -> str:
    """Say in sentences what the exact sensitivity of an image (a batch of one) was computed on."""
    # The image whole is evaluated too.
    if 1 + int(exact.touched.sum()) < WORTH_A_COPY:
        return "On the model as it is: a copy is not worth it for so few."
    quick = quicken(classifier, images)
    return f"{quick.said} {find_windows(classifier, quick, images).said}".rstrip()


def _gradient_changes(
    classifier: Classifier, clean: Images, adversarial: Images, pair: Tensor, labels: Labels
) -> Float[Tensor, "n r 2"]:
    delta = (adversarial - clean).double()
    slopes = quiet_gradients(classifier, adversarial, pair)
    changes = [region_sums((slope * delta).sum(1), labels) for slope in slopes.unbind(1)]
    return torch.stack(changes, dim=2).to(clean.dtype)
