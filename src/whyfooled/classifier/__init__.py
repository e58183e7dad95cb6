"""A model with everything needed to use it."""

from whyfooled.classifier.classifier import Classifier, Fit, check_classes, check_finite
from whyfooled.classifier.goals import Goal, Targeted, Untargeted

__all__ = [
    "Classifier",
    "Fit",
    "Goal",
    "Targeted",
    "Untargeted",
    "check_classes",
    "check_finite",
]
