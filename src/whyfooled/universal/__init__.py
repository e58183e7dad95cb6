"""One perturbation that breaks the saliency maps of most images, how to find it, and what it does."""

from whyfooled.saliency.interpretations import interpretation
from whyfooled.universal._fitting import Fitting, Part, Step
from whyfooled.universal._method import UniversalMethod
from whyfooled.universal._perturbation import Altered, UniversalPerturbation
from whyfooled.universal.dissimilarity import dissimilarity
from whyfooled.universal.evaluation import Evaluation, changes, evaluate
from whyfooled.universal.per_image import InterpretationAttack
from whyfooled.universal.random_direction import RandomDirection
from whyfooled.universal.uap import UAP
from whyfooled.universal.uap_deepfool import DeepFoolUAP
from whyfooled.universal.uap_singular import SingularUAP
from whyfooled.universal.upi_grad import UPIGrad
from whyfooled.universal.upi_pca import UPIPCA

UNIVERSAL: tuple[type[UniversalMethod], ...] = (UPIGrad, UPIPCA, UAP, DeepFoolUAP, SingularUAP, RandomDirection)
"""Every way to find a universal perturbation."""

INTERPRETATION_ATTACKS = (InterpretationAttack,)
"""Every attack that keeps the class of an image and changes its map."""

__all__ = [
    "INTERPRETATION_ATTACKS",
    "UAP",
    "UNIVERSAL",
    "UPIPCA",
    "Altered",
    "DeepFoolUAP",
    "Evaluation",
    "Fitting",
    "InterpretationAttack",
    "Part",
    "RandomDirection",
    "SingularUAP",
    "Step",
    "UPIGrad",
    "UniversalMethod",
    "UniversalPerturbation",
    "changes",
    "dissimilarity",
    "evaluate",
    "interpretation",
]
