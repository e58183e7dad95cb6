"""Studies: experiments over many images that end in a table, a summary and a figure."""

from whyfooled.studies._runner import Progress, StudyResult, run_study
from whyfooled.studies._study import Batch, Measured, Study
from whyfooled.studies._table import Table
from whyfooled.studies._write import redraw
from whyfooled.studies.attack_outcome import AttackOutcome
from whyfooled.studies.cam_pairs import CAMPairs
from whyfooled.studies.effect_mix import EffectMix
from whyfooled.studies.filtering_effect import FilteringEffect
from whyfooled.studies.interpretability import InterpretabilityScores
from whyfooled.studies.recovery import Recovery
from whyfooled.studies.refined_attack import RefinedAttack
from whyfooled.studies.saliency_grid import SaliencyGrid
from whyfooled.studies.sensitivity_correlation import SensitivityCorrelation
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
)
"""Every study of this package. The command line and the tests take them from here."""

__all__ = [
    "STUDIES",
    "AttackOutcome",
    "Batch",
    "CAMPairs",
    "EffectMix",
    "FilteringEffect",
    "InterpretabilityScores",
    "Measured",
    "Progress",
    "Recovery",
    "RefinedAttack",
    "SaliencyGrid",
    "SensitivityCorrelation",
    "Study",
    "StudyResult",
    "Summary",
    "SummaryTable",
    "Table",
    "redraw",
    "run_study",
]
