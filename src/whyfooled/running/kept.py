"""Files that are kept and read again: what is in them, their version and their seal, in JSON or beside tensors.

Each is read as a record that is checked once: its seal before anything else, then its version, then the kind of every
value. The first versions had no seal, and are read without.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from safetensors.torch import load, save
from torch import Tensor

from whyfooled.images import write_whole
from whyfooled.images.seals import BLANK, is_whole, seal
from whyfooled.running.formats import check_format

_KEY = "whyfooled"
_HEADER = 8
"""Bytes of a safetensors file that say how long its header is."""


class DamagedError(Exception):
    """A file is not what it should be, or not as it was written."""


Check = Callable[[object], bool]
"""Tells whether a value is of a kind."""


def is_text(value: object) -> bool:
    """Tell whether a value is text."""
    return isinstance(value, str)


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number of at least 0."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: object) -> bool:
    """Tell whether a value is a number, which may be infinite or NaN."""
    return type(value) in (int, float)


def is_flag(value: object) -> bool:
    """Tell whether a value is true or false."""
    return isinstance(value, bool)


def is_record(value: object) -> bool:
    """Tell whether a value has named parts, of any kind."""
    return isinstance(value, dict)


def list_of(check: Check) -> Check:
    """Make the check of lists whose elements pass another one."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def record_of(check: Check) -> Check:
    """Make the check of named values that pass another one."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def parts_of(checks: Mapping[str, Check]) -> Check:
    """Make the check of records whose parts of some names pass each its own."""
    return lambda value: isinstance(value, dict) and all(check(value.get(name)) for name, check in checks.items())


def maybe(check: Check) -> Check:
    """Make the check of values that pass another one, or are missing."""
    return lambda value: value is None or check(value)


@final
@dataclass(frozen=True)
class FileKind:
    """A kind of file that is kept.

    Parameters
    ----------
    what
        What it is, such as "dissection".
    version
        The version of its format that is written here.
    command
        The command that makes it again.
    fields
        What must be in it, and how each value is checked; more may be there.
    """

    what: str
    version: int
    command: str
    fields: Mapping[str, Check]

    def check(self, place: Path, values: object) -> dict[str, Any]:
        """Return what stands in a file, without version and seal.

        Raises
        ------
        ImageError
            If its format is of another version.
        DamagedError
            If something is missing, or of another kind.
        """
        if not isinstance(values, dict):
            raise DamagedError
        # The first version did not always say which one it is.
        check_format(place, self.what, values.get("format", 1), self.version, self.command)
        # What may be left out is checked by `maybe`.
        if not parts_of(self.fields)(values):
            raise DamagedError
        return {name: value for name, value in values.items() if name not in ("format", "seal")}


def storable_text(text: str) -> str:
    """Write what no UTF-8 can hold, such as a file name in another encoding, with backslashes."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_seal(content: bytes) -> bool:
    """Tell whether a file's content is sealed; raise `DamagedError` if it is not the one that was sealed."""
    whole = is_whole(content)
    if whole is False:
        raise DamagedError
    return whole is True


def encode_record(kind: FileKind, values: Mapping[str, Any]) -> bytes:
    """Return plain values as the content of a sealed JSON file."""
    text = json.dumps({"format": kind.version, "seal": BLANK, **values}, indent=1, ensure_ascii=False)
    # A file's name may have bytes that are no text; JSON reads the escape back as it was.
    return seal(f"{text}\n".encode("utf-8", "backslashreplace"))


def write_record(path: Path, kind: FileKind, values: Mapping[str, Any]) -> None:
    """Write plain values to a sealed JSON file, whole or not at all."""
    write_whole(path, encode_record(kind, values))


def read_record(path: Path, kind: FileKind) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises
    ------
    OSError
        If the file cannot be read.
    DamagedError
        If it is another file, or not as it was written.
    ImageError
        If its format is of another version.
    """
    content = path.read_bytes()
    sealed = check_seal(content)
    return check_record(path, kind, parse_record(content), sealed)


def check_record(path: Path, kind: FileKind, values: object, sealed: bool) -> dict[str, Any]:
    """Return what stands in a file that is sealed, or of the first version; errors as of `read_record`."""
    checked = kind.check(path, values)
    if not sealed and isinstance(values, dict) and values.get("format", 1) != 1:
        raise DamagedError
    return checked


def parse_record(text: bytes | str) -> object:
    """Read JSON; raise `DamagedError` if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedError from None


def encode_tensors(kind: FileKind, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> bytes:
    """Return tensors, in their own precision, with plain values beside them, as a sealed safetensors file."""
    # Cloned: tensors that share their storage, as equal images may, are refused by the format.
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # One key: the format writes several in no fixed order, and equal runs are to give equal files.
    return seal(save(ready, {_KEY: json.dumps({"format": kind.version, "seal": BLANK, **values})}))


def write_kept_tensors(path: Path, kind: FileKind, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors, and plain values beside them, to a sealed safetensors file, whole or not at all."""
    write_whole(path, encode_tensors(kind, tensors, values))


def read_kept_tensors(path: Path, kind: FileKind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_kept_tensors` wrote: the values and the tensors; errors as of `read_record`."""
    with path.open("rb") as file:
        # Before all of it is read: a file of something else may be large.
        header = file.read(_HEADER)
        header += file.read(min(int.from_bytes(header, "little"), _LONGEST_HEADER))
        values = _parse_header(header)
        content = header + file.read()
    checked = check_record(path, kind, values, check_seal(content))
    try:
        return checked, load(content)
    except Exception:  # what a header of an unsealed file makes the reader stumble over
        raise DamagedError from None


_LONGEST_HEADER = 100_000_000


def _parse_header(header: bytes) -> object:
    """Return what stands beside the tensors of a safetensors file."""
    written = parse_record(header[_HEADER:])
    beside = written.get("__metadata__") if isinstance(written, dict) else None
    about = beside.get(_KEY) if isinstance(beside, dict) else None
    if not isinstance(about, str):
        raise DamagedError
    return parse_record(about)
