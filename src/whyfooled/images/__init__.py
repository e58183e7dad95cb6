"""Image files to pixels, and back."""

from whyfooled.images.folders import (
    PHOTOGRAPH_SUFFIXES,
    common_folder,
    compose_accents,
    existing_folder,
    list_files_below,
    list_folders_in,
    photographs_below,
    photographs_in,
)
from whyfooled.images.looks import looks_like, perceptual_hash
from whyfooled.images.mistaken import recognise_mistaken
from whyfooled.images.pixels import PICTURE_CHANNELS, content_digest, to_picture, to_tensor
from whyfooled.images.reading import (
    FEWEST_PIXELS_A_SIDE,
    FORMATS,
    MOST_PIXELS,
    TENSOR_SUFFIXES,
    describe_tensor,
    example_photograph,
    is_file,
    is_folder,
    is_plain,
    is_tensor_file,
    read_adversarial,
    read_clean,
    read_photograph,
    read_picture,
)
from whyfooled.images.writing import check_output_file, output_folder, write_tensors, write_whole

__all__ = [
    "FEWEST_PIXELS_A_SIDE",
    "FORMATS",
    "MOST_PIXELS",
    "PHOTOGRAPH_SUFFIXES",
    "PICTURE_CHANNELS",
    "TENSOR_SUFFIXES",
    "check_output_file",
    "common_folder",
    "compose_accents",
    "content_digest",
    "describe_tensor",
    "example_photograph",
    "existing_folder",
    "is_file",
    "is_folder",
    "is_plain",
    "is_tensor_file",
    "list_files_below",
    "list_folders_in",
    "looks_like",
    "output_folder",
    "perceptual_hash",
    "photographs_below",
    "photographs_in",
    "read_adversarial",
    "read_clean",
    "read_photograph",
    "read_picture",
    "recognise_mistaken",
    "to_picture",
    "to_tensor",
    "write_tensors",
    "write_whole",
]
