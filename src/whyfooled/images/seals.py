"""Seals of files that are kept: a digest of all bytes of a file, inside the file, whatever its format.

A file is made with `BLANK` where its seal belongs; the seal is the digest of the whole file as it is then. So
every byte counts, those of headers and of fillers too, and one function tells of every format whether one has changed.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from pathlib import Path

_NAME = b"blake2b:"
_SIZE = 16
BLANK = f"{_NAME.decode()}{'0' * (2 * _SIZE)}"
"""What stands in a file in the place of its seal until it is sealed."""

_SEAL = re.compile(re.escape(_NAME) + b"([0-9a-f]{%d})" % (2 * _SIZE))


def digest_content(content: bytes) -> str:
    """Return a digest of a file's content."""
    return hashlib.blake2b(content, digest_size=_SIZE).hexdigest()


def digest_file(path: Path) -> str:
    """Return a digest of a file's content; "" if it cannot be read."""
    try:
        return digest_content(path.read_bytes())
    except OSError:
        return ""


def seal(content: bytes, *, at_end: bool = False) -> bytes:
    """Put its seal into a file's content, in the place of the first `BLANK`; of the last one if `at_end`.

    A file's own metadata stand at its beginning or at its end, so that no name among its data is taken for the place.
    """
    sealed = bytearray(content)
    _put_in(sealed, at_end)
    return bytes(sealed)


def seal_file(path: Path, *, at_end: bool = False) -> None:
    """Put its seal into a file, without reading it into memory."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        _put_in(content, at_end)


def _put_in(content: bytearray | mmap.mmap, at_end: bool) -> None:
    blank = BLANK.encode()
    place = content.rfind(blank) if at_end else content.find(blank)
    if place < 0:
        raise ValueError("no place for a seal")
    content[place : place + len(blank)] = _NAME + hashlib.blake2b(content, digest_size=_SIZE).hexdigest().encode()


def is_whole(content: bytes | mmap.mmap) -> bool | None:
    """Tell whether a file's content is the one that was sealed; None if it has no seal."""
    seals = list(_SEAL.finditer(content))
    # Data that look like a seal are none, and the seal is among them.
    return any(_matches(content, *one.span(), one[1].decode()) for one in seals) if seals else None


def _matches(content: bytes | mmap.mmap, start: int, end: int, written: str) -> bool:
    with memoryview(content) as view:
        digest = hashlib.blake2b(view[:start], digest_size=_SIZE)
        digest.update(BLANK.encode())
        digest.update(view[end:])
    return digest.hexdigest() == written


def is_whole_file(path: Path) -> bool | None:
    """Tell it of a file, without reading it into memory; False for an empty one, which could not be mapped."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return is_whole(content)
