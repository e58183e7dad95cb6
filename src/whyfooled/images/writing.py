"""Files that are there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from whyfooled.errors import OutputError


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors to a safetensors file, on the CPU, float32 where they are floating."""
    # Cloned: tensors that share their storage, as equal images may, are refused by the format.
    ready = {}
    for name, tensor in tensors.items():
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        ready[name] = tensor.detach().to("cpu", dtype).contiguous().clone()
    # Not save_file, whose files only their owner can read.
    write_whole(path, save(ready, metadata=about))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, whenever the process is stopped; its folder is made if need be.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"The file {path} cannot be written: {error.strerror or error}.") from None


def check_output_file(path: Path) -> None:
    """Raise `OutputError` if a file could not be written by `write_whole`: before the work begins."""
    try:
        if path.is_dir():
            raise OutputError(f"The output path {path} is a folder; give a file.")
        # Under its own name, which may be too long, and a little more, as what is written is called at first.
        with tempfile.NamedTemporaryFile(prefix=path.name, dir=_find_nearest(path.absolute().parent)):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"The file {path} cannot be written: {reason}.") from None


def _find_nearest(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists: its permissions are tried, and no other folder made."""
    return next(place for place in (folder, *folder.parents) if place.exists())


@contextmanager
def output_folder(folder: str | Path, replaced: Sequence[str] = ("pictures",)) -> Iterator[Path]:
    """Give a staging folder whose files appear in `folder` together when the block ends well, and not at all otherwise.

    The staging folder is made at once, in `folder` or the nearest folder above it that exists, so that a place that
    cannot be written to is found before the work begins. What is in `folder` already stays, except what is written
    anew; a folder in it that is written anew, as those in `replaced` will be, is replaced whole.

    Raises
    ------
    OutputError
        If the path is a file, it cannot be written, or a folder in it would be replaced without a page beside it.
    """
    target = Path(folder)
    try:
        if target.exists() and not target.is_dir():
            raise OutputError(f"The output path {target} is a file; give a folder.")
        # Somebody's own pictures, perhaps the very ones that are to be read, would be lost.
        lost = [name for name in replaced if (target / name).is_dir() and not any(target.glob("*.html"))]
        if lost:
            raise OutputError(
                f"The output folder {target} has a folder '{lost[0]}' that is no report's, for no page is beside it. "
                "The new report's would replace it: give another folder."
            )
        staging = Path(tempfile.mkdtemp(prefix=".whyfooled-", dir=_find_nearest(target.absolute())))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"The output folder {target} cannot be written: {reason}.") from None
    try:
        yield staging
        _publish(staging, target)
    except OSError as error:
        raise OutputError(f"The output folder {target} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, target: Path) -> None:
    staging.chmod(0o755)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(target)
        return
    for path in sorted(staging.iterdir()):
        goal = target / path.name
        if path.is_dir():
            # Whole, so that no picture of an earlier run stands beside this one's.
            shutil.rmtree(goal, ignore_errors=True)
        path.replace(goal)
