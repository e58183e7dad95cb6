"""Saliency methods: ``(classifier, images, classes) -> maps``, one value for each input element."""

from whyfooled.saliency.cam import GradCAM
from whyfooled.saliency.enhanced import Enhanced, EnhancedGuidedBackprop, enhance
from whyfooled.saliency.gradient import Gradient, InputXGradient
from whyfooled.saliency.guided import Deconvnet, GuidedBackprop
from whyfooled.saliency.lrp import LRP, ContrastiveLRP

METHODS = (Gradient, InputXGradient, Deconvnet, GuidedBackprop, Enhanced, GradCAM, LRP, ContrastiveLRP)
"""Every saliency method of this package. The command line, the report and the conformance tests take them from here."""

__all__ = [
    "LRP",
    "METHODS",
    "ContrastiveLRP",
    "Deconvnet",
    "Enhanced",
    "EnhancedGuidedBackprop",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "InputXGradient",
    "enhance",
]
