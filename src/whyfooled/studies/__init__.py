"""Studies: experiments over many images that end in a table, a summary and a figure."""

from whyfooled.drawing.summary import Summary, SummaryTable
from whyfooled.studies.defences.detectors import DetectorsUnderAttack
from whyfooled.studies.effects.cam_pairs import CAMPairs
from whyfooled.studies.effects.compare_models import CompareModels
from whyfooled.studies.effects.effect_mix import EffectMix
from whyfooled.studies.effects.interpretability import InterpretabilityScores
from whyfooled.studies.effects.object_or_background import ObjectOrBackground
from whyfooled.studies.effects.refined_attack import RefinedAttack
from whyfooled.studies.effects.sensitivity_correlation import SensitivityCorrelation
from whyfooled.studies.maps.attack_outcome import AttackOutcome
from whyfooled.studies.maps.aware_attack import AwareAttack
from whyfooled.studies.maps.explanation_robustness import ExplanationRobustness
from whyfooled.studies.maps.filtering_effect import FilteringEffect
from whyfooled.studies.maps.recovery import Recovery
from whyfooled.studies.maps.saliency_grid import SaliencyGrid
from whyfooled.studies.maps.sanity_checks import SanityChecks
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.run.runner import Progress, StudyResult, run_study
from whyfooled.studies.run.write import redraw
from whyfooled.studies.study import Batch, Measured, Study
from whyfooled.studies.table import Table
from whyfooled.studies.units.neuron_masking import NeuronMasking
from whyfooled.studies.units.sensitivity_interpretability import SensitivityInterpretability
from whyfooled.studies.universal.dissimilarity import UniversalDissimilarity
from whyfooled.studies.universal.fit_size import FitSize
from whyfooled.studies.universal.gallery import UniversalGallery
from whyfooled.studies.universal.transfer import UniversalTransfer

STUDIES = (
    FilteringEffect,
    SaliencyGrid,
    Recovery,
    AttackOutcome,
    SanityChecks,
    AwareAttack,
    ExplanationRobustness,
    SensitivityCorrelation,
    EffectMix,
    CAMPairs,
    InterpretabilityScores,
    RefinedAttack,
    ObjectOrBackground,
    CompareModels,
    SensitivityInterpretability,
    NeuronMasking,
    DetectorsUnderAttack,
    UniversalDissimilarity,
    UniversalTransfer,
    UniversalGallery,
    FitSize,
)
"""Every study of this package. The command line and the tests take them from here."""

__all__ = [
    "STUDIES",
    "AttackOutcome",
    "AwareAttack",
    "Batch",
    "CAMPairs",
    "CompareModels",
    "DetectorsUnderAttack",
    "EffectMix",
    "ExplanationRobustness",
    "FilteringEffect",
    "FitSize",
    "InterpretabilityScores",
    "Measured",
    "NeuronMasking",
    "ObjectOrBackground",
    "Prepared",
    "Progress",
    "Recovery",
    "RefinedAttack",
    "SaliencyGrid",
    "SanityChecks",
    "SensitivityCorrelation",
    "SensitivityInterpretability",
    "Setting",
    "Study",
    "StudyResult",
    "Summary",
    "SummaryTable",
    "Table",
    "UniversalDissimilarity",
    "UniversalGallery",
    "UniversalTransfer",
    "redraw",
    "run_study",
]
