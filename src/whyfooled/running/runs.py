"""Folders that long runs write to: each belongs to one run, and another one is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from whyfooled._version import __version__
from whyfooled.classifier import Classifier
from whyfooled.errors import ImageError, OutputError
from whyfooled.images.holding import HeldError, Holder, hold
from whyfooled.images.seals import is_whole
from whyfooled.images.writing import sweep
from whyfooled.running.kept import DamagedError, FileKind, read_record, write_record

LOCK_FILE = ".whyfooled.lock"


def digest_run(run: Mapping[str, Any]) -> str:
    """Return a digest of everything that makes a run this one and no other."""
    return hashlib.blake2b(json.dumps(run).encode(), digest_size=16).hexdigest()


def identify_computation(classifier: Classifier) -> dict[str, str]:
    """Return what every run depends on: the model, and what changes last digits: versions and the kind of device."""
    return {
        "version": __version__,
        "torch": torch.__version__,
        "model": classifier.name,
        "model_digest": classifier.digest(),
        "device": classifier.device.type,
    }


@contextmanager
def claim(
    path: Path,
    kind: FileKind,
    run: Mapping[str, Any],
    *,
    results: Callable[[], Iterable[str | None]],
    partial: Sequence[str] = (),
) -> Iterator[None]:
    """Hold a run's folder while it works, and write into it which run it belongs to, or find that it is this one.

    What killed processes left in the folder is deleted. If the block fails before it has written anything there, the
    claim is gone afterwards, and the folder if it was made for it.

    Parameters
    ----------
    path
        The file that says so; its folder is made if need be.
    kind
        What kind of file that is.
    run
        Everything that makes it this run and no other, as plain values.
    results
        Gives, for each result that is in the folder already, the digest of its run; None if it cannot be told. If there
        is none, another run's claim is taken over.
    partial
        Patterns of the names that earlier versions wrote to at first.

    Raises
    ------
    OutputError
        If another run has begun there, a process is working there, or the folder cannot be written.
    """
    folder = path.parent
    with ExitStack() as held:
        try:
            if folder.exists() and not folder.is_dir():
                raise OutputError(f"The output folder {folder} cannot be used: it is a file.")
            if not folder.exists():
                folder.mkdir(parents=True)
                held.enter_context(_undone_on_failure(folder.rmdir))
            held.enter_context(hold(folder / LOCK_FILE))
            _clear(folder, partial)
            _settle(path, kind, run, results)
            held.enter_context(_undone_on_failure(lambda: _drop_claim(path)))
        except HeldError as error:
            raise OutputError(_describe_use(folder, error.holder)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"The output folder {folder} cannot be used: {reason}.") from None
        yield


@contextmanager
def _undone_on_failure(undo: Callable[[], None]) -> Iterator[None]:
    """Undo what was done, as far as that can be, if the block fails."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            undo()
        raise


def _drop_claim(path: Path) -> None:
    """Delete a claim that nothing was written beside."""
    if {each.name for each in path.parent.iterdir()} <= {path.name, LOCK_FILE}:
        path.unlink(missing_ok=True)


def _clear(folder: Path, partial: Sequence[str]) -> None:
    """Delete what killed processes left; nobody else works in the folder now."""
    sweep(folder, deep=True)
    for path in (path for pattern in partial for path in folder.glob(pattern)):
        with suppress(OSError):
            path.unlink()


def _describe_use(folder: Path, holder: Holder) -> str:
    gone = "" if holder.is_here else f" If that process is gone, delete {folder / LOCK_FILE}."
    return f"{folder} is in use: a run is working there ({holder}). Wait for its end, or give another folder.{gone}"


def _settle(path: Path, kind: FileKind, run: Mapping[str, Any], results: Callable[[], Iterable[str | None]]) -> None:
    """Write which run a folder belongs to, unless that stands there already; raise `OutputError` if it is another."""
    now = json.loads(json.dumps(run))
    try:
        before = read_record(path, kind)
    except FileNotFoundError:
        before = None
    except DamagedError:
        if not _is_ours(path, set(results()), digest_run(run)):
            raise OutputError(
                f"The output folder {path.parent} cannot be used: {path.name} is not of a run, or is damaged. Give "
                "another folder, or delete this one."
            ) from None
        before = None
    except ImageError as error:
        raise OutputError(str(error)) from None
    differing = [] if before is None else [key for key in now if before.get(key) != now[key]]
    if before is not None and differing and any(True for _ in results()):
        raise OutputError(
            f"{path.parent} holds another run: {_describe_difference(before, now, differing[0])}. "
            "Give another folder, or delete this one."
        )
    if before is None or differing:
        write_record(path, kind, run)


def _is_ours(path: Path, runs: set[str | None], run: str) -> bool:
    """Tell whether a damaged claim may be written anew: by the results in its folder, or by its seal if none tells."""
    if runs <= {None}:
        return is_whole(path.read_bytes()) is not None
    return runs <= {None, run}


def _describe_difference(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> str:
    if key == "images":
        new, gone = (sorted(set(one) - set(other)) for one, other in ((now[key], before[key]), (before[key], now[key])))
        which = f"{new[0]} is new" if new else f"{gone[0]} is gone" if gone else "their order is another"
        return f"its photographs are not the same ({which})"
    if key in _CHANGED:
        return _CHANGED[key]
    return f"its {key} was {before.get(key)}, now it is {now[key]}"


_CHANGED = {
    "model_digest": "its model had other weights",
    "images_digest": "its images, or their labels, are not the same",
    "fit_images_digest": "its images to fit to, or their labels, are not the same",
    "models_digests": "its other models had other weights",
    "threads": "it was begun with several threads for each operation, which gives other last digits than one",
    "class_map": "its labels stood for other classes of the model",
}
