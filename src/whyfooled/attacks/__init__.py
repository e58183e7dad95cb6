"""Attacks: ``(classifier, images, goal) -> images``. `run_attack` runs one and verifies what it returns."""

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._result import AttackResult, run_attack
from whyfooled.attacks.adapters import adapt
from whyfooled.attacks.apgd import APGD
from whyfooled.attacks.apgd_minimal import MinimalAPGD
from whyfooled.attacks.auto import AutoAttack
from whyfooled.attacks.aware import ExplanationAware
from whyfooled.attacks.aware_result import AwareResult, run_aware
from whyfooled.attacks.carlini_wagner import CarliniWagner
from whyfooled.attacks.ddn import DDN
from whyfooled.attacks.deep_fool import DeepFool
from whyfooled.attacks.ead import EAD
from whyfooled.attacks.fmn import FMN
from whyfooled.attacks.gradient_sign import BIM, FGSM
from whyfooled.attacks.pgd import PGD
from whyfooled.attacks.refined import Refined
from whyfooled.attacks.sigma_zero import SigmaZero
from whyfooled.attacks.square import Square
from whyfooled.attacks.str_attack import StrAttack

ATTACKS = (
    FGSM,
    BIM,
    PGD,
    APGD,
    MinimalAPGD,
    DeepFool,
    FMN,
    DDN,
    CarliniWagner,
    EAD,
    SigmaZero,
    StrAttack,
    Square,
    AutoAttack,
    Refined,
    ExplanationAware,
)
"""Every attack of this package. The command line and the conformance tests take them from here."""

__all__ = [
    "APGD",
    "ATTACKS",
    "BIM",
    "DDN",
    "EAD",
    "FGSM",
    "FMN",
    "PGD",
    "Attack",
    "AttackResult",
    "Attempt",
    "AutoAttack",
    "AwareResult",
    "CarliniWagner",
    "DeepFool",
    "ExplanationAware",
    "MinimalAPGD",
    "Problem",
    "Refined",
    "SigmaZero",
    "Square",
    "StrAttack",
    "adapt",
    "run_attack",
    "run_aware",
]
