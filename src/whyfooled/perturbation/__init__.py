"""What a perturbation does: its effect on the logits, region by region, and how it lies to class activation maps."""

from whyfooled.perturbation.attack_region import attack_region
from whyfooled.perturbation.interpretability import (
    IS,
    discriminative_region,
    interpretability_curve,
    interpretability_score,
)
from whyfooled.perturbation.regions import Grid, Regions, Superpixels, region_labels
from whyfooled.perturbation.sensitivity import KINDS, Sensitivity, sensitivity

__all__ = [
    "IS",
    "KINDS",
    "Grid",
    "Regions",
    "Sensitivity",
    "Superpixels",
    "attack_region",
    "discriminative_region",
    "interpretability_curve",
    "interpretability_score",
    "region_labels",
    "sensitivity",
]
