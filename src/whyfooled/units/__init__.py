"""Hidden units: what they detect, what an attack does to them, and a classifier without some of them."""

from whyfooled.units._colours import with_colours
from whyfooled.units._open import CONCEPTS, ConceptCard, open_concepts
from whyfooled.units.concepts import NOTHING, Annotated, Concepts

__all__ = ["CONCEPTS", "NOTHING", "Annotated", "ConceptCard", "Concepts", "open_concepts", "with_colours"]
