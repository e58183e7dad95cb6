"""whyfooled tells why an image classifier was fooled, and whether an explanation can be trusted.

The public names. They are imported at first use: ``import whyfooled`` itself loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from whyfooled._version import __version__ as __version__

if TYPE_CHECKING:
    from whyfooled.attacks import (
        APGD,
        BIM,
        DDN,
        EAD,
        FGSM,
        FMN,
        PGD,
        AttackResult,
        AutoAttack,
        CarliniWagner,
        DeepFool,
        MinimalAPGD,
        Refined,
        SigmaZero,
        Square,
        StrAttack,
        adapt,
        run_attack,
    )
    from whyfooled.attacks.adversaries import Adversaries, load_adversaries
    from whyfooled.attacks.many import attack_files
    from whyfooled.attacks.targets import choose_targets
    from whyfooled.classifier import Classifier, Fit
    from whyfooled.classifier.goals import Targeted, Untargeted
    from whyfooled.classifier.inputs import InputFormat
    from whyfooled.classifier.layers import list_layers
    from whyfooled.classifier.passes import count_passes
    from whyfooled.classifier.zoo import load_classifier
    from whyfooled.explanations.explanation import Explanation, PerturbationExplanation, UnitsExplanation
    from whyfooled.explanations.of_files import explain_files
    from whyfooled.explanations.of_image import explain
    from whyfooled.explanations.of_pair import explain_perturbation, explain_units
    from whyfooled.perturbation import (
        IS,
        Grid,
        Sensitivity,
        Superpixels,
        interpretability_curve,
        interpretability_score,
        sensitivity,
    )
    from whyfooled.saliency import (
        CAM,
        LIME,
        LRP,
        AttentionRelevance,
        AttentionRollout,
        ContrastiveLRP,
        Deconvnet,
        DeepLIFT,
        Enhanced,
        EnhancedGuidedBackprop,
        GradCAM,
        GradCAMPlusPlus,
        Gradient,
        GuidedBackprop,
        GuidedGradCAM,
        InputXGradient,
        IntegratedGradients,
        MeaningfulPerturbation,
        PredictionDifference,
        SmoothGrad,
        enhance,
        smooth_activations,
    )
    from whyfooled.saliency.recovery import recovery_curve
    from whyfooled.sources import Source, open_source
    from whyfooled.studies import run_study
    from whyfooled.units import (
        Concepts,
        Dissection,
        UnitChanges,
        UnitSensitivity,
        dissect,
        find_unit_changes,
        load_dissection,
        mask_units,
        open_concepts,
        unit_sensitivity,
        with_colours,
    )
    from whyfooled.universal import (
        UAP,
        UPIPCA,
        DeepFoolUAP,
        InterpretationAttack,
        RandomDirection,
        SingularUAP,
        UniversalPerturbation,
        UPIGrad,
        dissimilarity,
        evaluate,
    )

_HOME = {
    "attacks.adversaries": ("Adversaries", "load_adversaries"),
    "attacks.many": ("attack_files",),
    "attacks": (
        "APGD",
        "BIM",
        "DDN",
        "EAD",
        "FGSM",
        "FMN",
        "PGD",
        "AttackResult",
        "AutoAttack",
        "CarliniWagner",
        "DeepFool",
        "MinimalAPGD",
        "Refined",
        "SigmaZero",
        "Square",
        "StrAttack",
        "adapt",
        "run_attack",
    ),
    "classifier": ("Classifier", "Fit"),
    "explanations.of_files": ("explain_files",),
    "explanations.of_image": ("explain",),
    "explanations.of_pair": ("explain_perturbation", "explain_units"),
    "explanations.explanation": ("Explanation", "PerturbationExplanation", "UnitsExplanation"),
    "classifier.goals": ("Targeted", "Untargeted"),
    "classifier.layers": ("list_layers",),
    "saliency.recovery": ("recovery_curve",),
    "classifier.passes": ("count_passes",),
    "perturbation": (
        "IS",
        "Grid",
        "Sensitivity",
        "Superpixels",
        "interpretability_curve",
        "interpretability_score",
        "sensitivity",
    ),
    "saliency": (
        "CAM",
        "LIME",
        "LRP",
        "AttentionRelevance",
        "AttentionRollout",
        "ContrastiveLRP",
        "Deconvnet",
        "DeepLIFT",
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
        "enhance",
        "smooth_activations",
    ),
    "sources": ("Source", "open_source"),
    "studies": ("run_study",),
    "attacks.targets": ("choose_targets",),
    "universal": (
        "UAP",
        "UPIPCA",
        "DeepFoolUAP",
        "InterpretationAttack",
        "RandomDirection",
        "SingularUAP",
        "UPIGrad",
        "UniversalPerturbation",
        "dissimilarity",
        "evaluate",
    ),
    "units": (
        "Concepts",
        "Dissection",
        "UnitChanges",
        "UnitSensitivity",
        "dissect",
        "find_unit_changes",
        "load_dissection",
        "mask_units",
        "open_concepts",
        "unit_sensitivity",
        "with_colours",
    ),
    "classifier.inputs": ("InputFormat",),
    "classifier.zoo": ("load_classifier",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "APGD",
    "BIM",
    "CAM",
    "DDN",
    "EAD",
    "FGSM",
    "FMN",
    "IS",
    "LIME",
    "LRP",
    "PGD",
    "UAP",
    "UPIPCA",
    "Adversaries",
    "AttackResult",
    "AttentionRelevance",
    "AttentionRollout",
    "AutoAttack",
    "CarliniWagner",
    "Classifier",
    "Concepts",
    "ContrastiveLRP",
    "Deconvnet",
    "DeepFool",
    "DeepFoolUAP",
    "DeepLIFT",
    "Dissection",
    "Enhanced",
    "EnhancedGuidedBackprop",
    "Explanation",
    "Fit",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "Grid",
    "GuidedBackprop",
    "GuidedGradCAM",
    "InputFormat",
    "InputXGradient",
    "IntegratedGradients",
    "InterpretationAttack",
    "MeaningfulPerturbation",
    "MinimalAPGD",
    "PerturbationExplanation",
    "PredictionDifference",
    "RandomDirection",
    "Refined",
    "Sensitivity",
    "SigmaZero",
    "SingularUAP",
    "SmoothGrad",
    "Source",
    "Square",
    "StrAttack",
    "Superpixels",
    "Targeted",
    "UPIGrad",
    "UnitChanges",
    "UnitSensitivity",
    "UnitsExplanation",
    "UniversalPerturbation",
    "Untargeted",
    "adapt",
    "attack_files",
    "choose_targets",
    "count_passes",
    "dissect",
    "dissimilarity",
    "enhance",
    "evaluate",
    "explain",
    "explain_files",
    "explain_perturbation",
    "explain_units",
    "find_unit_changes",
    "interpretability_curve",
    "interpretability_score",
    "list_layers",
    "load_adversaries",
    "load_classifier",
    "load_dissection",
    "mask_units",
    "open_concepts",
    "open_source",
    "recovery_curve",
    "run_attack",
    "run_study",
    "sensitivity",
    "smooth_activations",
    "unit_sensitivity",
    "with_colours",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
