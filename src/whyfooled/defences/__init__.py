"""Detectors: ``(classifier, images) -> scores``; what a score means, and the attack that evades it. And penalties.

A penalty is what a training loop adds to its loss: ``(classifier, images, labels) -> a number``.
"""

from whyfooled.defences.calibration import Calibration, Combination, Judgement, calibrate
from whyfooled.defences.confidence import LargestSoftmax, TwoSidedMargin
from whyfooled.defences.detector import Detector, EvadableDetector, FittingDetector
from whyfooled.defences.discriminative import DiscriminativePenalty
from whyfooled.defences.evading import Evading
from whyfooled.defences.gradcam_shift import GradCAMShift
from whyfooled.defences.input_gradient import InputGradientPenalty
from whyfooled.defences.mahalanobis import Mahalanobis
from whyfooled.defences.noise import UnderNoise
from whyfooled.defences.penalty import Penalty
from whyfooled.defences.squeezing import BitDepth, MedianFilter

DETECTORS = (LargestSoftmax, TwoSidedMargin, BitDepth, MedianFilter, UnderNoise, Mahalanobis, GradCAMShift)
"""Every detector of this package. The command line, the study and the conformance tests take them from here."""

PENALTIES = (DiscriminativePenalty, InputGradientPenalty)
"""Every penalty of this package. The lists and the conformance tests take them from here."""

__all__ = [
    "DETECTORS",
    "PENALTIES",
    "BitDepth",
    "Calibration",
    "Combination",
    "Detector",
    "DiscriminativePenalty",
    "EvadableDetector",
    "Evading",
    "FittingDetector",
    "GradCAMShift",
    "InputGradientPenalty",
    "Judgement",
    "LargestSoftmax",
    "Mahalanobis",
    "MedianFilter",
    "Penalty",
    "TwoSidedMargin",
    "UnderNoise",
    "calibrate",
]
