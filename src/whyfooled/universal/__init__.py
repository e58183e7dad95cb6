"""One perturbation that breaks the saliency maps of most images, how to find it, and what it does."""

from whyfooled.universal._fitting import Fitting, Part, Step
from whyfooled.universal._method import UniversalMethod
from whyfooled.universal._perturbation import UniversalPerturbation
from whyfooled.universal.dissimilarity import dissimilarity, interpretation
from whyfooled.universal.evaluation import Evaluation, changes, evaluate
from whyfooled.universal.random_direction import RandomDirection
from whyfooled.universal.upi_grad import UPIGrad
from whyfooled.universal.upi_pca import UPIPCA

UNIVERSAL: tuple[type[UniversalMethod], ...] = (UPIGrad, UPIPCA, RandomDirection)
"""Every way to find a universal perturbation."""

__all__ = [
    "UNIVERSAL",
    "UPIPCA",
    "Evaluation",
    "Fitting",
    "Part",
    "RandomDirection",
    "Step",
    "UPIGrad",
    "UniversalMethod",
    "UniversalPerturbation",
    "changes",
    "dissimilarity",
    "evaluate",
    "interpretation",
]
