"""whyfooled tells why an image classifier was fooled, and whether an explanation can be trusted.

The public names. They are imported at first use: ``import whyfooled`` itself loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whyfooled.adversaries import Adversaries, load_adversaries
    from whyfooled.attacking import attack_files
    from whyfooled.attacks import (
        BIM,
        EAD,
        FGSM,
        FMN,
        PGD,
        AttackResult,
        CarliniWagner,
        Refined,
        StrAttack,
        adapt,
        run_attack,
    )
    from whyfooled.classifier import Classifier, Fit
    from whyfooled.explaining import explain
    from whyfooled.explaining_perturbation import PerturbationExplanation, explain_perturbation
    from whyfooled.explaining_units import UnitsExplanation, explain_units
    from whyfooled.explanation import Explanation
    from whyfooled.goals import Targeted, Untargeted
    from whyfooled.layers import list_layers
    from whyfooled.measures import recovery_curve
    from whyfooled.passes import count_passes
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
    from whyfooled.sources import Source, open_source
    from whyfooled.studies import run_study
    from whyfooled.targets import choose_targets
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
    from whyfooled.zoo import load_classifier

__version__ = "0.1.0"

_HOME = {
    "adversaries": ("Adversaries", "load_adversaries"),
    "attacking": ("attack_files",),
    "attacks": (
        "BIM",
        "EAD",
        "FGSM",
        "FMN",
        "PGD",
        "AttackResult",
        "CarliniWagner",
        "Refined",
        "StrAttack",
        "adapt",
        "choose_targets",
        "run_attack",
    ),
    "classifier": ("Classifier", "Fit"),
    "explaining": ("explain",),
    "explaining_perturbation": ("PerturbationExplanation", "explain_perturbation"),
    "explaining_units": ("UnitsExplanation", "explain_units"),
    "explanation": ("Explanation",),
    "goals": ("Targeted", "Untargeted"),
    "layers": ("list_layers",),
    "measures": ("recovery_curve",),
    "passes": ("count_passes",),
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
    "targets": ("choose_targets",),
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
    "zoo": ("load_classifier",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BIM",
    "CAM",
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
    "CarliniWagner",
    "Classifier",
    "Concepts",
    "ContrastiveLRP",
    "Deconvnet",
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
    "InputXGradient",
    "IntegratedGradients",
    "InterpretationAttack",
    "MeaningfulPerturbation",
    "PerturbationExplanation",
    "PredictionDifference",
    "RandomDirection",
    "Refined",
    "Sensitivity",
    "SingularUAP",
    "SmoothGrad",
    "Source",
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
