"""Image files to pixels, and back."""

from whyfooled.images.folders import (
    PHOTOGRAPH_SUFFIXES,
    common_folder,
    composed,
    existing_folder,
    files_below,
    folders_in,
    photographs_below,
    photographs_in,
)
from whyfooled.images.mistaken import mistaken_for
from whyfooled.images.pixels import content_digest, to_picture, to_tensor
from whyfooled.images.reading import (
    FEWEST_PIXELS_A_SIDE,
    FORMATS,
    MOST_PIXELS,
    TENSOR_SUFFIXES,
    example_photograph,
    is_file,
    is_folder,
    is_plain,
    is_tensor_file,
    read_adversarial,
    read_clean,
    read_photograph,
    read_picture,
    tensor_kind,
)
from whyfooled.images.writing import check_output_file, output_folder, write_tensors, write_whole

__all__ = [
    "FEWEST_PIXELS_A_SIDE",
    "FORMATS",
    "MOST_PIXELS",
    "PHOTOGRAPH_SUFFIXES",
    "TENSOR_SUFFIXES",
    "check_output_file",
    "common_folder",
    "composed",
    "content_digest",
    "example_photograph",
    "existing_folder",
    "files_below",
    "folders_in",
    "is_file",
    "is_folder",
    "is_plain",
    "is_tensor_file",
    "mistaken_for",
    "output_folder",
    "photographs_below",
    "photographs_in",
    "read_adversarial",
    "read_clean",
    "read_photograph",
    "read_picture",
    "tensor_kind",
    "to_picture",
    "to_tensor",
    "write_tensors",
    "write_whole",
]
