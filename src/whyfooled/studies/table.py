"""The rows of a study: one Parquet file for each shard, then one for all, read column by column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast, final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from whyfooled.errors import ImageError
from whyfooled.images.seals import BLANK, is_whole_file, seal, seal_file
from whyfooled.images.writing import whole_file
from whyfooled.running.kept import (
    DamagedError,
    FileKind,
    check_record,
    check_seal,
    is_count,
    is_number,
    is_text,
    list_of,
    parse_record,
    storable_text,
)

Kind = Literal["text", "whole", "real", "flag", "bytes"]
Columns = Mapping[str, Kind]
"""The columns of a study's rows, and what each holds; any value may be missing."""

SHARED: Columns = {"index": "whole", "image": "text", "error": "text"}
"""What the rows of every study begin with: the image's number and name, and why it (or a method on it) failed."""

_TYPES = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64(), "flag": pa.bool_(), "bytes": pa.binary()}
_KEY = b"whyfooled"

SHARD = FileKind(
    "shard",
    2,
    "whyfooled study",
    {
        "run": is_text,
        "forwards": is_count,
        "backwards": is_count,
        "good": is_count,
        "notes": list_of(is_text),
        "headline": lambda value: list_of(is_number)(value) and len(cast(list[float], value)) == 2,
    },
)
TABLE = FileKind("table", 2, "whyfooled study", {})


def encode(rows: Sequence[Mapping[str, Any]], columns: Columns, about: Mapping[str, Any]) -> bytes:
    """Write rows as a Parquet file; equal rows give equal bytes.

    Parameters
    ----------
    rows
        What was measured; columns that a row lacks are missing in it.
    columns
        The study's own columns, beside the `SHARED` ones.
    about
        Plain values kept beside the rows; see `read_about`.
    """
    arrays = {
        name: pa.array([_storable(row.get(name)) for row in rows], _TYPES[kind], from_pandas=True)
        for name, kind in {**SHARED, **columns}.items()
    }
    table = pa.table(arrays).replace_schema_metadata(_label(SHARD, about))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return seal(sink.getvalue().to_pybytes(), at_end=True)


def _label(kind: FileKind, about: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return what stands beside a file's rows."""
    return {_KEY: json.dumps({"format": kind.version, "seal": BLANK, **about}, sort_keys=True).encode()}


def _storable(value: Any) -> Any:
    return storable_text(value) if isinstance(value, str) else value


def read_about(path: Path) -> dict[str, Any] | None:
    """Return what was kept beside a shard's rows; None if the file is missing, damaged or another program's."""
    try:
        content = path.read_bytes()
        sealed = check_seal(content)
        # All of it: without a seal, the end of a file may be whole where its rows are not.
        return _check(path, SHARD, sealed, pq.read_table(pa.BufferReader(content)).schema)
    except (*_UNREADABLE, DamagedError, ImageError):
        return None


_UNREADABLE = (OSError, pa.ArrowException, ValueError)


def _check(path: Path, kind: FileKind, sealed: bool, schema: pa.Schema) -> dict[str, Any]:
    written = (schema.metadata or {}).get(_KEY)
    return check_record(path, kind, {} if written is None else parse_record(written), sealed)


def join(shards: Iterable[Path], target: Path) -> None:
    """Write the rows of all shards, one after the other, into one file, whole; one shard is in memory at a time."""
    tables = (pq.read_table(path).replace_schema_metadata(None) for path in shards)
    with whole_file(target) as partial:
        first = next(tables)
        with pq.ParquetWriter(partial, first.schema.with_metadata(_label(TABLE, {})), compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table)
        seal_file(partial, at_end=True)


@final
@dataclass(frozen=True)
class Table:
    """The rows of a study, in a Parquet file; what is asked for is read at that moment.

    Reading raises `ImageError` if the file is missing, damaged, or no table of a study.
    """

    path: Path

    @cached_property
    def columns(self) -> frozenset[str]:
        """The names of its columns; the file is checked when they are asked for first."""
        try:
            sealed = is_whole_file(self.path)
            if sealed is False:
                raise DamagedError
            # Without a seal, only reading it tells.
            schema = pq.read_schema(self.path) if sealed else pq.read_table(self.path).schema
            _check(self.path, TABLE, bool(sealed), schema)
            if not set(SHARED) <= set(schema.names):
                raise DamagedError
        except (*_UNREADABLE, DamagedError):
            raise ImageError(
                f"{self.path} is no table of `whyfooled study`, or is damaged. Run the study's command again: it is "
                "made anew from the shards."
            ) from None
        return frozenset(schema.names)

    def _read(self, **options: Any) -> pa.Table:
        """Read rows, once the file is known to be whole."""
        _ = self.columns
        return pq.read_table(self.path, **options)

    def read(
        self, columns: Sequence[str] | None = None, where: Sequence[tuple[str, str, Any]] | None = None
    ) -> pd.DataFrame:
        """Read rows that were measured.

        Parameters
        ----------
        columns
            Which columns; all if None.
        where
            Conditions such as ``("fill", "==", "zero")``, all of which must hold.

        Returns
        -------
        DataFrame
            Texts are categories: a method's name stands in memory once.
        """
        chosen = pc.field("error").is_null()
        if where:
            chosen &= pq.filters_to_expression(list(where))
        table = self._read(columns=None if columns is None else list(columns), filters=chosen)
        frame: pd.DataFrame = table.to_pandas(strings_to_categorical=True, self_destruct=True)
        return frame

    def errors(self) -> pd.DataFrame:
        """Read the rows of what failed, with the reasons."""
        frame: pd.DataFrame = self._read(filters=pc.field("error").is_valid()).to_pandas()
        return frame

    @property
    def images(self) -> int:
        """How many images the study was given."""
        return len(self._read(columns=["index"])["index"].unique())
