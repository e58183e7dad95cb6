"""Studies: experiments over many images that end in a table, a summary and a figure."""

from whyfooled.studies._prepare import Prepared, Setting
from whyfooled.studies._runner import Progress, StudyResult, run_study
from whyfooled.studies._study import Batch, Measured, Study
from whyfooled.studies._table import Table
from whyfooled.studies._write import redraw
from whyfooled.studies.attack_outcome import AttackOutcome
from whyfooled.studies.cam_pairs import CAMPairs
from whyfooled.studies.effect_mix import EffectMix
from whyfooled.studies.filtering_effect import FilteringEffect
from whyfooled.studies.fit_size import FitSize
from whyfooled.studies.interpretability import InterpretabilityScores
from whyfooled.studies.neuron_masking import NeuronMasking
from whyfooled.studies.recovery import Recovery
from whyfooled.studies.refined_attack import RefinedAttack
from whyfooled.studies.saliency_grid import SaliencyGrid
from whyfooled.studies.sensitivity_correlation import SensitivityCorrelation
from whyfooled.studies.sensitivity_interpretability import SensitivityInterpretability
from whyfooled.studies.universal_dissimilarity import UniversalDissimilarity
from whyfooled.studies.universal_gallery import UniversalGallery
from whyfooled.studies.universal_transfer import UniversalTransfer
from whyfooled.summary import Summary, SummaryTable

STUDIES = (
    FilteringEffect,
    SaliencyGrid,
    Recovery,
    AttackOutcome,
    SensitivityCorrelation,
    EffectMix,
    CAMPairs,
    InterpretabilityScores,
    RefinedAttack,
    SensitivityInterpretability,
    NeuronMasking,
    UniversalDissimilarity,
    UniversalTransfer,
    UniversalGallery,
    FitSize,
)
"""Every study of this package. The command line and the tests take them from here."""

__all__ = [
    "STUDIES",
    "AttackOutcome",
    "Batch",
    "CAMPairs",
    "EffectMix",
    "FilteringEffect",
    "FitSize",
    "InterpretabilityScores",
    "Measured",
    "NeuronMasking",
    "Prepared",
    "Progress",
    "Recovery",
    "RefinedAttack",
    "SaliencyGrid",
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
