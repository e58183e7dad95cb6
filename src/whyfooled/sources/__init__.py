"""Where the images of a study come from: photographs, published data sets, arrays, saved adversarial images."""

from whyfooled.images.folders import common_folder
from whyfooled.sources._classes import class_map, mapped
from whyfooled.sources._labels import match_labels, read_labels
from whyfooled.sources._open import SOURCES, SourceCard, open_source, takes_labels
from whyfooled.sources._source import Reader, Sample, Source

__all__ = [
    "SOURCES",
    "Reader",
    "Sample",
    "Source",
    "SourceCard",
    "class_map",
    "common_folder",
    "mapped",
    "match_labels",
    "open_source",
    "read_labels",
    "takes_labels",
]
