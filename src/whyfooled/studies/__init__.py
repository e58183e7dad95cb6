"""Studies: experiments over many images that end in a table, a summary and a figure."""

from whyfooled.studies._runner import Progress, StudyResult, run_study
from whyfooled.studies._study import Batch, Measured, Study
from whyfooled.studies._summary import Summary, SummaryTable
from whyfooled.studies._table import Table
from whyfooled.studies._write import redraw
from whyfooled.studies.attack_outcome import AttackOutcome
from whyfooled.studies.cam_pairs import CAMPairs
from whyfooled.studies.filtering_effect import FilteringEffect
from whyfooled.studies.interpretability import InterpretabilityScores
from whyfooled.studies.recovery import Recovery
from whyfooled.studies.saliency_grid import SaliencyGrid

STUDIES = (FilteringEffect, SaliencyGrid, Recovery, AttackOutcome, CAMPairs, InterpretabilityScores)
"""Every study of this package. The command line and the tests take them from here."""

__all__ = [
    "STUDIES",
    "AttackOutcome",
    "Batch",
    "CAMPairs",
    "FilteringEffect",
    "InterpretabilityScores",
    "Measured",
    "Progress",
    "Recovery",
    "SaliencyGrid",
    "Study",
    "StudyResult",
    "Summary",
    "SummaryTable",
    "Table",
    "redraw",
    "run_study",
]
