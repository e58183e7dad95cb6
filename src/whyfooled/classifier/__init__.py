"""A model with everything needed to use it."""

from whyfooled.classifier.classifier import Classifier, Fit, check_classes, check_finite
from whyfooled.classifier.goals import Goal, Switched, Targeted, Untargeted

__all__ = [
    "Classifier",
    "Fit",
    "Goal",
    "Switched",
    "Targeted",
    "Untargeted",
    "check_classes",
    "check_finite",
]
