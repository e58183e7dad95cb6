"""Network dissection: what each hidden unit detects."""

from whyfooled.units.dissection.dissect import TOP, dissect
from whyfooled.units.dissection.dissection import Dissection, load_dissection
from whyfooled.units.dissection.results import CUTOFF, DissectedLayer
from whyfooled.units.dissection.summary import dissection_summary

__all__ = [
    "CUTOFF",
    "TOP",
    "DissectedLayer",
    "Dissection",
    "dissect",
    "dissection_summary",
    "load_dissection",
]
