"""Detectors: ``(classifier, images) -> scores``; what a score means, and the attack that evades it."""

from whyfooled.defences.calibration import Calibration, Combination, Judgement, calibrate
from whyfooled.defences.confidence import LargestSoftmax, TwoSidedMargin
from whyfooled.defences.detector import Detector, EvadableDetector, FittingDetector
from whyfooled.defences.evading import Evading
from whyfooled.defences.gradcam_shift import GradCAMShift
from whyfooled.defences.mahalanobis import Mahalanobis
from whyfooled.defences.noise import UnderNoise
from whyfooled.defences.squeezing import BitDepth, MedianFilter

DETECTORS = (LargestSoftmax, TwoSidedMargin, BitDepth, MedianFilter, UnderNoise, Mahalanobis, GradCAMShift)
"""Every detector of this package. The command line, the study and the conformance tests take them from here."""

__all__ = [
    "DETECTORS",
    "BitDepth",
    "Calibration",
    "Combination",
    "Detector",
    "EvadableDetector",
    "Evading",
    "FittingDetector",
    "GradCAMShift",
    "Judgement",
    "LargestSoftmax",
    "Mahalanobis",
    "MedianFilter",
    "TwoSidedMargin",
    "UnderNoise",
    "calibrate",
]
