"""Every method there is, with parameters that keep tests of all of them quick."""

from __future__ import annotations

from typing import Any

from tests.helpers.models import small
from tests.helpers.nets import HERE
from tests.helpers.small_transformers import small_vit
from whyfooled import BIM, FGSM, FMN, CarliniWagner, Classifier, DeepFool, GradCAM, Gradient
from whyfooled.attacks import ATTACKS, ExplanationAware
from whyfooled.defences import DETECTORS, DiscriminativePenalty, InputGradientPenalty, LargestSoftmax, MedianFilter
from whyfooled.registry import parse
from whyfooled.saliency import METHODS
from whyfooled.studies import (
    AttackOutcome,
    AwareAttack,
    CAMPairs,
    CompareModels,
    DetectorsUnderAttack,
    EffectMix,
    ExplanationRobustness,
    FilteringEffect,
    FitSize,
    InterpretabilityScores,
    NeuronMasking,
    ObjectOrBackground,
    Recovery,
    RefinedAttack,
    SaliencyGrid,
    SanityChecks,
    SensitivityCorrelation,
    SensitivityInterpretability,
    UniversalDissimilarity,
    UniversalGallery,
    UniversalTransfer,
)
from whyfooled.universal import UNIVERSAL, UPIPCA, RandomDirection, UPIGrad

_MAP_PARAMETERS = {
    "integrated-gradients": {"steps": 4},
    "smoothgrad": {"samples": 3},
    "lime": {"samples": 12, "superpixels": 6},
    "prediction-difference": {"window": 0.5, "samples": 1},
    "meaningful-perturbation": {"steps": 4, "fill": "zero", "l1": 0.0, "tv": 0.1},
}
QUICK_MAPS = [method(**_MAP_PARAMETERS.get(method.card.name, {})) for method in METHODS]
ATTENDING = {"attention-rollout", "attention-relevance"}
"""Methods of transformers alone."""


def network_for(method: Any) -> Classifier:
    """Make a small network that the method is for."""
    return small_vit() if method.card.name in ATTENDING else small()


# Radii at which the small network is fooled.
_BUDGETS = {
    "fgsm": {"epsilon": 0.3},
    "bim": {"epsilon": 0.3},
    "pgd": {"epsilon": 0.3, "restarts": 2},
    "apgd": {"epsilon": 0.3, "steps": 20},
    "apgd-minimal": {"steps": 10},
    "square": {"epsilon": 0.5, "queries": 200},
    "auto": {"epsilon": 0.3, "steps": 10, "targets": 2, "queries": 20},
    "deepfool": {"candidates": 3},
    "fmn": {"steps": 40},
    "ddn": {"steps": 40},
    "cw": {"steps": 25},
    "ead": {"steps": 40, "learning_rate": 2.0},
    "sigma-zero": {"steps": 60},
    "strattack": {"group_size": 5, "steps": 20, "rounds": 2},
    "refined": {"attack": CarliniWagner(steps=25), "keep": 0.6},
    "aware": {"epsilon": 0.3, "methods": (Gradient(),), "steps": 5},
}
QUICK_ATTACKS = [attack(**_BUDGETS[attack.card.name]) for attack in ATTACKS]
QUICK_ATTACKS += [parse("attacks", f"{name}(epsilon=14, ball=l2)") for name in ("fgsm", "bim", "pgd")]
QUICK_ATTACKS += [parse("attacks", "deepfool(ball=linf)"), parse("attacks", "fmn(ball=linf, steps=40)")]
QUICK_ATTACKS += [parse("attacks", "apgd(epsilon=5, ball=l2, steps=10, targets=2)")]
QUICK_ATTACKS += [parse("attacks", "apgd-minimal(ball=linf, steps=10)")]
QUICK_ATTACKS += [parse("attacks", "ead(decision=l1, steps=40, learning_rate=2)")]
QUICK_ATTACKS += [parse("attacks", "strattack(group_size=4, stride=3, refine=false, steps=20, rounds=2)")]
QUICK_ATTACKS += [parse("attacks", "refined(attack=bim(epsilon=0.5), where=sensitivity, cell=3, keep=0.6)")]
QUICK_ATTACKS += [parse("attacks", "refined(attack=fmn(steps=40), where=random, cell=3, keep=0.6)")]
LARGE_SQUARES = parse("attacks", "square(epsilon=9, ball=l2, queries=150)")
QUICK_ATTACKS += [LARGE_SQUARES]

_DETECTOR_PARAMETERS = {"noise": {"samples": 2}}
QUICK_DETECTORS = [detector(**_DETECTOR_PARAMETERS.get(detector.card.name, {})) for detector in DETECTORS]

EVERY_PENALTY = [DiscriminativePenalty(), DiscriminativePenalty("concentration"), InputGradientPenalty()]

_FIT_PARAMETERS = {
    "grad": {"passes": 1, "images_per_step": 3},
    "pca": {"passes": 2, "samples": 1, "vectors": 2},
    "uap": {"passes": 2, "images_per_step": 3},
    # So that not all are fooled at once, and the order of the images matters.
    "uap-deepfool": {"passes": 1, "steps": 3},
    "uap-singular": {"passes": 2},
}
FITS = {method.card.name: method for method in UNIVERSAL}


def make_universal(name: str, epsilon: float = 0.3, **given: Any) -> Any:
    """Make a way to find a universal perturbation, by its name."""
    return FITS[name](epsilon=epsilon, **_FIT_PARAMETERS.get(name, {}), **given)


# Attacks that take little, and leave some images right.
QUICK_STUDIES = {
    "filtering-effect": FilteringEffect(top=2),
    "saliency-grid": SaliencyGrid(attacks=(FGSM(epsilon=0.02), BIM(epsilon=0.02, steps=4))),
    "recovery": Recovery(attack=FGSM(epsilon=0.1), fills=("zero", "noise"), fractions=(0.05, 0.3), random_orders=2),
    "attack-outcome": AttackOutcome(attacks=(FGSM(epsilon=0.02), FMN(steps=30))),
    "explanation-robustness": ExplanationRobustness(
        attack=ExplanationAware(ball="l2", steps=2, margin=0.1),
        attacked=(GradCAM(),),
        epsilons=(1.0, 3.0),
        bisections=1,
    ),
    "sanity-checks": SanityChecks(parts=2, others=2),
    "aware-attack": AwareAttack(
        attack=ExplanationAware(epsilon=0.1, steps=3), attacked=(Gradient(),), methods=(Gradient(), GradCAM())
    ),
    "cam-pairs": CAMPairs(attacks=(FGSM(epsilon=0.02), FMN(steps=30)), methods=(GradCAM(),)),
    "interpretability-score": InterpretabilityScores(attacks=(FGSM(epsilon=0.05), FMN(steps=30)), quantiles=(0.1, 0.5)),
    "sensitivity-correlation": SensitivityCorrelation(attacks=(FGSM(epsilon=0.02), FMN(steps=30)), target=None, cell=4),
    "effect-mix": EffectMix(attacks=(FGSM(epsilon=0.02), FMN(steps=30)), target=None, cell=4),
    "refined-attack": RefinedAttack(attacks=(BIM(epsilon=0.1, steps=5), FMN(steps=30)), target=None, cell=4, keep=0.5),
    "object-or-background": ObjectOrBackground(
        masks="of every image", attacks=(FGSM(epsilon=0.05), FMN(steps=30)), shifts=1
    ),
    "compare-models": CompareModels(
        models=(f"{HERE}:other",), attacks=(FGSM(epsilon=0.02), DeepFool()), random_orders=1
    ),
    "sensitivity-interpretability": SensitivityInterpretability(
        dissection="of small", attacks=(FGSM(epsilon=0.02), FMN(steps=30)), target=None, counts=(3, 8), permutations=50
    ),
    "neuron-masking": NeuronMasking(attacks=(FGSM(epsilon=0.05), FMN(steps=30)), target=None, counts=(1, 4), draws=2),
    "detectors": DetectorsUnderAttack(
        attacks=(FGSM(epsilon=0.05), FMN(steps=30)), detectors=(LargestSoftmax(), MedianFilter()), epsilon=0.1, steps=5
    ),
    "universal-dissimilarity": UniversalDissimilarity(
        methods=(UPIGrad(passes=2), RandomDirection()), epsilons=(0.5, 2.0), attack_steps=2
    ),
    "universal-transfer": UniversalTransfer(method=UPIPCA(passes=1, samples=1), models=("small",), epsilon=2.0),
    "universal-gallery": UniversalGallery(methods=(UPIPCA(passes=1), RandomDirection()), epsilon=2.0),
    "fit-size": FitSize(methods=(UPIGrad(passes=1),), sizes=(1, 3), repeats=2, epsilon=2.0),
}
