"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from whyfooled.errors import OutputError
from whyfooled.images.holding import HeldError, hold

_PREFIX, _LOCK = ".whyfooled-", ".lock"
_PARTS = ("pictures", "figures", "regions.csv", "named.csv", "units.csv")
"""What a page may have beside it, and another one may not."""
_MARKS = ("*.html",)
"""What is beside them then."""
_UNDO, _DONE, _EARLIER, _ADDED = "undo", "done", "earlier", "added"


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
    with whole_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes its place when the block ends well; its folder is made if need be.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _staged(path.parent) as partial:
            yield partial
            partial.replace(path)
    except OSError as error:
        raise OutputError(f"The file {path} cannot be written: {error.strerror or error}.") from None


def check_output_file(path: Path) -> None:
    """Raise `OutputError` if a file could not be written by `write_whole`: before the work begins."""
    try:
        if path.is_dir():
            raise OutputError(f"The output path {path} is a folder; give a file.")
        nearest = _find_nearest(path.absolute().parent)
        sweep(nearest)
        # Under its own name, which may be too long, beside the place where it is written at first.
        with _staged(nearest) as partial:
            partial.touch()
        (nearest / path.name).exists()
    except (OSError, ValueError) as error:
        raise OutputError(f"The file {path} cannot be written: {_say_why(error)}.") from None


def _say_why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _find_nearest(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists: its permissions are tried, and no other folder made."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return nearest


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give a path in a folder that no other process uses; what lies there when the block ends is deleted.

    A lock beside it says that it is in use, so that what a killed process leaves is known for what it is.
    """
    staging = folder / f"{_PREFIX}{secrets.token_hex(4)}"
    with hold(staging.with_name(f"{staging.name}{_LOCK}")):
        try:
            yield staging
        finally:
            _discard(staging)


def _discard(staging: Path) -> None:
    """Delete a staging place; a replacement that is not finished is undone first."""
    _put_back(staging / _UNDO, staging.parent)
    _delete(staging)


def _delete(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Delete what killed processes of this package left in a folder, and in those below it if `deep`.

    That is what `write_whole` and `output_folder` write to at first, where its lock is held by no process any more.
    What an interrupted replacement had put aside is put back.
    """
    pattern = f"{_PREFIX}*{_LOCK}"
    for lock in sorted(folder.rglob(pattern) if deep else folder.glob(pattern)):
        # One that is held is in use; one that cannot be deleted, as in another user's folder, stays.
        with suppress(HeldError, OSError), hold(lock):
            _discard(lock.with_suffix(""))


@contextmanager
def output_folder(
    folder: str | Path, replaced: Sequence[str] = _PARTS, marks: Sequence[str] = _MARKS
) -> Iterator[Path]:
    """Give a staging folder whose files appear in `folder` together when the block ends well, and not at all otherwise.

    The staging folder is made at once, in `folder` or the nearest folder above it that exists, so that a place that
    cannot be written to is found before the work begins. What is in `folder` already stays, except what is written
    anew, and what `replaced` names, which are parts of an earlier page where a file like one of `marks` is beside them;
    folders are replaced whole. If the replacement fails or is interrupted, what was there is put back; if its process
    is killed, by the next call.

    Raises
    ------
    OutputError
        If the path is a file, it cannot be written, or a folder in it would be replaced without a page beside it.
    """
    target = Path(folder)
    try:
        nearest = _prepare_folder(target, replaced, marks)
    except (OSError, ValueError) as error:
        raise OutputError(f"The output folder {target} cannot be written: {_say_why(error)}.") from None
    try:
        with _staged(nearest) as staging:
            staging.mkdir()
            yield staging
            _publish(staging, target, replaced, marks)
    except OSError as error:
        raise OutputError(f"The output folder {target} cannot be written: {_say_why(error)}.") from error


def _prepare_folder(target: Path, replaced: Sequence[str], marks: Sequence[str]) -> Path:
    """Return where a folder's staging folder is made; raise `OutputError` if it must not be written to."""
    if target.exists() and not target.is_dir():
        raise OutputError(f"The output path {target} is a file; give a folder.")
    nearest = _find_nearest(target.absolute())
    sweep(nearest)
    # Somebody's own pictures, perhaps the very ones that are to be read, would be lost.
    lost = [name for name in replaced if (target / name).is_dir() and not _is_marked(target, marks)]
    if lost:
        raise OutputError(
            f"The output folder {target} has a folder '{lost[0]}' that is no report's, for no page is beside it. "
            "The new report's would replace it: give another folder."
        )
    return nearest


def _is_marked(target: Path, marks: Sequence[str]) -> bool:
    return any(True for mark in marks for _ in target.glob(mark))


def _publish(staging: Path, target: Path, replaced: Sequence[str], marks: Sequence[str]) -> None:
    """Move everything to its place; what was there is put aside until all of it is done."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(target)
        return
    with _staged(target) as aside:
        earlier, added = aside / _UNDO / _EARLIER, aside / _UNDO / _ADDED
        for folder in (earlier, added):
            folder.mkdir(parents=True)
        written = {path.name for path in staging.iterdir()}
        # Of an earlier page, which this one takes the place of; without one they are somebody's own.
        outdated = set(replaced) - written if _is_marked(target, marks) else set()
        for name in sorted(outdated):
            if os.path.lexists(target / name):
                (target / name).rename(earlier / name)
        for path in sorted(staging.iterdir()):
            goal = target / path.name
            # Folders whole, so that no picture of an earlier run stands beside this one's.
            if os.path.lexists(goal):
                goal.rename(earlier / path.name)
            else:
                (added / path.name).touch()
            path.rename(goal)
        # In one step: from here on nothing is put back.
        (aside / _UNDO).rename(aside / _DONE)


def _put_back(undo: Path, target: Path) -> None:
    """Bring a folder back to what it was before a replacement that was not finished."""
    if not undo.is_dir():
        return
    for path in (undo / _ADDED).glob("*"):
        _delete(target / path.name)
    for path in (undo / _EARLIER).glob("*"):
        _delete(target / path.name)
        path.rename(target / path.name)
