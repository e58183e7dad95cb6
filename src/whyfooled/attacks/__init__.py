"""Attacks: ``(classifier, images, goal) -> images``. `run_attack` runs one and verifies what it returns."""

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._result import AttackResult, run_attack
from whyfooled.attacks.carlini_wagner import CarliniWagner
from whyfooled.attacks.gradient_sign import BIM, FGSM
from whyfooled.attacks.pgd import PGD

ATTACKS = (FGSM, BIM, PGD, CarliniWagner)
"""Every attack of this package. The command line and the conformance tests take them from here."""

__all__ = ["ATTACKS", "BIM", "FGSM", "PGD", "Attack", "AttackResult", "Attempt", "CarliniWagner", "run_attack"]
