"""Hidden units: what they detect, what an attack does to them, and a classifier without some of them."""

from whyfooled.units._colours import with_colours
from whyfooled.units._open import CONCEPTS, ConceptCard, open_concepts
from whyfooled.units._results import CUTOFF, DissectedLayer, Dissection
from whyfooled.units._saved import load_dissection
from whyfooled.units.changes import UnitChanges, find_unit_changes
from whyfooled.units.concepts import NOTHING, Annotated, Concepts
from whyfooled.units.dissection import dissect
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
    "find_unit_changes",
    "load_dissection",
    "mask_units",
    "open_concepts",
    "unit_sensitivity",
    "with_colours",
]
