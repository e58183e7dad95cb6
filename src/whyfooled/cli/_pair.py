"""What the commands that explain a pair of images share: their arguments, and reading the pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from whyfooled.errors import bad_parameter

Clean = Annotated[
    Path,
    typer.Argument(help="The image before: a photograph, or the tensor that went into the model (.safetensors, …)."),
]
Adversarial = Annotated[
    Path | None,
    typer.Argument(
        help="The image after: .safetensors, .npy, .pt, or a picture. If left out, CLEAN is a file of "
        "`whyfooled attack` and has both."
    ),
]
Label = Annotated[
    str | None,
    typer.Option(help="The true class (name or index); what the model sees in the clean image if left out."),
]
Target = Annotated[
    str | None,
    typer.Option(help="The class that is promoted; what the model sees in the adversarial image if left out."),
]


def read_pair(clean: Path, adversarial: Path | None) -> tuple[Any, Path]:
    """Read the image before, if it is a photograph, and say which file has the image after."""
    from whyfooled.images import is_tensor_file, read_photograph

    if is_tensor_file(clean):
        return clean, clean if adversarial is None else adversarial
    photograph = read_photograph(clean)
    if adversarial is None:
        fix = "Give the adversarial image too, or a file of `whyfooled attack`."
        raise bad_parameter("ADVERSARIAL", "must be given where CLEAN is a photograph", "none", fix)
    return photograph, adversarial
