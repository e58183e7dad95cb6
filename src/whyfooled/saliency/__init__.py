"""Saliency methods: ``(classifier, images, classes) -> maps``, one value for each input element."""

from whyfooled.saliency.attention import AttentionRelevance, AttentionRollout
from whyfooled.saliency.backward.smooth import smooth_activations
from whyfooled.saliency.cam import CAM, GradCAM, GradCAMPlusPlus, GuidedGradCAM
from whyfooled.saliency.deeplift import DeepLIFT
from whyfooled.saliency.differentiable import DifferentiableMethod, check_differentiable, differentiable
from whyfooled.saliency.enhanced import Enhanced, EnhancedGuidedBackprop, enhance
from whyfooled.saliency.gradient import Gradient, InputXGradient
from whyfooled.saliency.guided import Deconvnet, GuidedBackprop
from whyfooled.saliency.integrated_gradients import IntegratedGradients
from whyfooled.saliency.lime import LIME
from whyfooled.saliency.lrp import LRP, ContrastiveLRP
from whyfooled.saliency.meaningful_perturbation import MeaningfulPerturbation
from whyfooled.saliency.prediction_difference import PredictionDifference
from whyfooled.saliency.smoothgrad import SmoothGrad

METHODS = (
    Gradient,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    Deconvnet,
    GuidedBackprop,
    Enhanced,
    CAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    DeepLIFT,
    LRP,
    ContrastiveLRP,
    AttentionRollout,
    AttentionRelevance,
    LIME,
    PredictionDifference,
    MeaningfulPerturbation,
)
"""Every saliency method of this package. The command line, the report and the conformance tests take them from here."""

REFUSED = {
    "real-time-saliency": "Real-time image saliency (Dabkowski & Gal 2017, arXiv 1705.07857) is not offered: its maps "
    "come from a network that must first be trained for each classifier, on a labelled data set. "
    "meaningful-perturbation asks the same question of one image at a time, without training.",
}
"""Methods that are known but not offered, by the name that they would have, and why."""

__all__ = [
    "CAM",
    "LIME",
    "LRP",
    "METHODS",
    "REFUSED",
    "AttentionRelevance",
    "AttentionRollout",
    "ContrastiveLRP",
    "Deconvnet",
    "DeepLIFT",
    "DifferentiableMethod",
    "Enhanced",
    "EnhancedGuidedBackprop",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GuidedBackprop",
    "GuidedGradCAM",
    "InputXGradient",
    "IntegratedGradients",
    "MeaningfulPerturbation",
    "PredictionDifference",
    "SmoothGrad",
    "check_differentiable",
    "differentiable",
    "enhance",
    "smooth_activations",
]
