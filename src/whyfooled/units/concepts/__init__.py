"""Concepts and the annotated images that show them."""

from whyfooled.units.concepts.colours import with_colours
from whyfooled.units.concepts.concepts import NOTHING, Annotated, ConceptReader, Concepts
from whyfooled.units.concepts.opening import CONCEPTS, ConceptCard, open_concepts

__all__ = [
    "CONCEPTS",
    "NOTHING",
    "Annotated",
    "ConceptCard",
    "ConceptReader",
    "Concepts",
    "open_concepts",
    "with_colours",
]
