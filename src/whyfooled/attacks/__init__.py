"""Attacks: ``(classifier, images, goal) -> images``. `run_attack` runs one and verifies what it returns."""

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._result import AttackResult, run_attack
from whyfooled.attacks.adapters import adapt
from whyfooled.attacks.carlini_wagner import CarliniWagner
from whyfooled.attacks.ddn import DDN
from whyfooled.attacks.deep_fool import DeepFool
from whyfooled.attacks.ead import EAD
from whyfooled.attacks.fmn import FMN
from whyfooled.attacks.gradient_sign import BIM, FGSM
from whyfooled.attacks.pgd import PGD
from whyfooled.attacks.refined import Refined
from whyfooled.attacks.sigma_zero import SigmaZero
from whyfooled.attacks.str_attack import StrAttack

ATTACKS = (FGSM, BIM, PGD, DeepFool, FMN, DDN, CarliniWagner, EAD, SigmaZero, StrAttack, Refined)
"""Every attack of this package. The command line and the conformance tests take them from here."""

__all__ = [
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
    "CarliniWagner",
    "DeepFool",
    "Problem",
    "Refined",
    "SigmaZero",
    "StrAttack",
    "adapt",
    "run_attack",
]
