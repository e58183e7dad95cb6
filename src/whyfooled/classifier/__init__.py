"""A model with everything needed to use it."""

from whyfooled.classifier.classifier import Classifier, Fit, check_classes, check_finite

__all__ = [
    "Classifier",
    "Fit",
    "check_classes",
    "check_finite",
]
