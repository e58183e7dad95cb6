"""The rows of a study: one Parquet file for each shard, then one for all, read column by column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from whyfooled.errors import OutputError

Kind = Literal["text", "whole", "real", "flag", "bytes"]
Columns = Mapping[str, Kind]
"""The columns of a study's rows, and what each holds; any value may be missing."""

SHARED: Columns = {"index": "whole", "image": "text", "error": "text"}
"""What the rows of every study begin with: the image's number and name, and why it (or a method on it) failed."""

_TYPES = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64(), "flag": pa.bool_(), "bytes": pa.binary()}
_KEY = b"whyfooled"


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
    table = pa.table(arrays).replace_schema_metadata({_KEY: json.dumps(dict(about), sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _storable(value: Any) -> Any:
    """Write what no UTF-8 can hold, such as a file name in another encoding, with backslashes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def read_about(path: Path) -> dict[str, Any] | None:
    """Return what was kept beside a file's rows; None if the file is missing, damaged or another program's."""
    try:
        # All of it: the end of a file may be whole where its rows are not.
        metadata = pq.read_table(path).schema.metadata or {}
        about: dict[str, Any] = json.loads(metadata[_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return about


def join(shards: Iterable[Path], target: Path) -> None:
    """Write the rows of all shards, one after the other, into one file, whole; one shard is in memory at a time."""
    partial = target.with_name(f"{target.name}.partial")
    tables = (pq.read_table(path).replace_schema_metadata(None) for path in shards)
    try:
        first = next(tables)
        with pq.ParquetWriter(partial, first.schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table)
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"The file {target} cannot be written: {error.strerror or error}.") from None


@final
@dataclass(frozen=True)
class Table:
    """The rows of a study, in a Parquet file; what is asked for is read at that moment."""

    path: Path

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
        table = pq.read_table(self.path, columns=None if columns is None else list(columns), filters=chosen)
        frame: pd.DataFrame = table.to_pandas(strings_to_categorical=True, self_destruct=True)
        return frame

    def errors(self) -> pd.DataFrame:
        """Read the rows of what failed, with the reasons."""
        frame: pd.DataFrame = pq.read_table(self.path, filters=pc.field("error").is_valid()).to_pandas()
        return frame

    @property
    def images(self) -> int:
        """How many images the study was given."""
        return len(pq.read_table(self.path, columns=["index"])["index"].unique())
