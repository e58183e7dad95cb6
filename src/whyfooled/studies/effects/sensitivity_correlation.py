"""Whether a perturbation is large where it has an effect (Xu et al. 2019, fig. 3).

A correlation alone does not say that an attack puts its perturbation where the classifier is sensitive: any larger
change moves the logits further. So noise of the same size in every region is measured beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.perturbation import Grid, Sensitivity, region_labels, sensitivity
from whyfooled.perturbation.regions import Labels, region_norms
from whyfooled.registry import Card
from whyfooled.studies.effects import sensitivity_correlation_account
from whyfooled.studies.effects.sensitivity_correlation_account import ATTACK, MEASURES, NOISE, OVER
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import Fooled, FooledStudy
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import kendall_correlation, pearson_correlation
from whyfooled.tensors.randomness import image_generators, normal
from whyfooled.types import Images

_RESOLUTION = 1e-6
"""Norms that differ by less, of values in [0, 1] in single precision, are ties. [ours]"""


@final
@dataclass(frozen=True)
class SensitivityCorrelation(FooledStudy):
    """Correlate, over the regions of an image, the size of the perturbation with its effect on the logits.

    For each image that fools the classifier: Pearson's and Kendall's correlation of the sensitivity score (how far the
    perturbation in a region holds the true class down and lifts the target) with the ℓ2 and with the ℓ∞ norm of the
    perturbation in the region. Over all regions, as in the paper, and over the regions that the perturbation touches
    alone: where it is 0 its effect is 0 too, so that every untouched region of a sparse attack raises the former. There
    is no correlation with a norm that is the same in all regions, as ℓ∞ is where a perturbation fills its ball.

    Parameters
    ----------
    attacks
        What fools the classifier; not used on saved adversarial images.
    cell
        Side of the square regions, in pixels; as in `whyfooled.perturbation.Grid` if None.
    check_gradient
        Whether to compare the sensitivity with that to first order, which takes two backward passes and no evaluation
        of any region. [ours]
    control
        Whether to measure noise too, which has the ℓ2 norm of the perturbation in every region (up to the bounds of the
        image) and nothing else in common with it; on the same classes. [ours]
    """

    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = "random"
    cell: int | None = None
    check_gradient: bool = True
    control: bool = True

    card: ClassVar[Card] = Card(
        name="sensitivity-correlation",
        title="Sensitivity and size of perturbations",
        summary="Whether a perturbation is large in the regions in which it has an effect.",
        source="Xu et al. 2019, arXiv 1904.02057, fig. 3",
        cost="the attacks, and a forward pass for each region that a perturbation touches; twice that with the control",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "perturbation": "text",
        "l2": "real",
        "regions": "whole",
        "touched": "whole",
        **dict.fromkeys((f"{measure}_{over}" for measure in MEASURES for over in OVER), "real"),
        "gradient_rank": "real",
        "gradient_signed": "real",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        Grid(self.cell)

    def measure_fooled(self, classifier: Classifier, batch: Batch, fooled: Fooled) -> Measured:
        """Remove each perturbation, and noise of its size, from each region in turn."""
        clean, changed, classes = fooled.result.clean, fooled.result.attempted, (fooled.true, fooled.target)
        labels = region_labels(Grid(self.cell), clean)
        exact = sensitivity(classifier, clean, changed, *classes, labels)
        numbers = _correlations(exact)
        if self.check_gradient:
            first_order = sensitivity(classifier, clean, changed, *classes, labels, method="gradient")
            numbers["gradient_rank"] = exact.rank_correlation(first_order)
            numbers["gradient_signed"] = _correlate_changes(exact, first_order)
        rows = list(fooled.rows(numbers, perturbation=ATTACK))
        if self.control:
            noisy = add_noise_by_region(clean, changed, labels, batch.seed)
            effects = sensitivity(classifier, clean, noisy, *classes, labels)
            rows += fooled.rows(_correlations(effects), perturbation=NOISE)
        return Measured(rows)

    summarise = staticmethod(sensitivity_correlation_account.summarise)
    draw = staticmethod(sensitivity_correlation_account.draw)


def _correlations(effects: Sensitivity) -> dict[str, Tensor]:
    """Return what is measured of each image."""
    over = {"touched": effects.touched, "all": effects.sizes > 0}
    numbers = {
        "l2": effects.l2.double().norm(dim=1),
        "regions": over["all"].sum(1),
        "touched": over["touched"].sum(1),
    }
    for norm, size in (("l2", effects.l2), ("linf", effects.linf)):
        # A perturbation that fills its ball is equally large everywhere, but for the rounding of the image's values.
        size = (size.double() / _RESOLUTION).round()
        for name, regions in over.items():
            numbers[f"pearson_{norm}_{name}"] = pearson_correlation(effects.score, size, regions)
            numbers[f"kendall_{norm}_{name}"] = kendall_correlation(effects.score, size, regions)
    return numbers


def _correlate_changes(exact: Sensitivity, first_order: Sensitivity) -> Tensor:
    """Return (n,) Pearson's correlation of the effects on both logits, signs included, over touched regions."""
    changes = [torch.cat([effects.true_change, effects.target_change], dim=1) for effects in (exact, first_order)]
    return pearson_correlation(changes[0], changes[1], exact.touched.repeat(1, 2))


def add_noise_by_region(clean: Images, changed: Images, labels: Labels, seed: int) -> Images:
    """Add noise to the clean images that is as large (ℓ2) in each region as the perturbation."""
    noise = normal(clean, image_generators(clean, seed))
    wanted, drawn = (region_norms(delta, labels)[0] for delta in (changed - clean, noise))
    scale = (wanted / drawn).gather(1, labels.flatten(1)).view(labels.shape).unsqueeze(1)
    return (clean + scale * noise).clamp(0, 1)
