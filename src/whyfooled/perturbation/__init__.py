"""What a perturbation does: its effect on the logits, region by region, and how it lies to class activation maps."""

from whyfooled.perturbation.regions import Grid, Regions, Superpixels, region_labels
from whyfooled.perturbation.sensitivity import KINDS, Sensitivity, sensitivity

__all__ = ["KINDS", "Grid", "Regions", "Sensitivity", "Superpixels", "region_labels", "sensitivity"]
