"""Hidden units: what they detect, what an attack does to them, and a classifier without some of them."""

from whyfooled.units.changes import UnitChanges, find_unit_changes
from whyfooled.units.concepts import CONCEPTS, NOTHING, Annotated, ConceptCard, Concepts, open_concepts, with_colours
from whyfooled.units.dissection import CUTOFF, DissectedLayer, Dissection, dissect, dissection_summary, load_dissection
from whyfooled.units.masking import mask_units
from whyfooled.units.sensitivity import UnitSensitivity, unit_sensitivity

__all__ = [
    "CONCEPTS",
    "CUTOFF",
    "NOTHING",
    "Annotated",
    "ConceptCard",
    "Concepts",
    "DissectedLayer",
    "Dissection",
    "UnitChanges",
    "UnitSensitivity",
    "dissect",
    "dissection_summary",
    "find_unit_changes",
    "load_dissection",
    "mask_units",
    "open_concepts",
    "unit_sensitivity",
    "with_colours",
]
